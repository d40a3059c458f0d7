"""What a model ran on stands in every object, whatever a library's words in it are like."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.results import report
from tests.support import phantoms
from tests.support import results as cases

SOURCE = cases.series(phantoms.Phantom(shape=(3, 16, 20)))
FALLBACK = "openvino 2026.4.1 CPU float32, in place of tensorrt: "
NASTY = FALLBACK + 'C:\\plans\\x.plan: Kernel "Größe=3,4"\n\tat 层 \x00\x1b[31m\ud800 ' + "no memory, " * 200


def made(engine: str, kinds: tuple[str, ...], folder: Path) -> dict[str, Dataset]:
    """Objects of these kinds, which all passed the gate."""
    context = cases.context(SOURCE, engine=engine)
    files = results.make_results(context, cases.findings(SOURCE), kinds, folder)
    assert [(file.kind, file.problem) for file in files if not file.verified] == []
    return {file.kind: dcmread(file.path) for file in files}


def parameters(ds: Dataset) -> list[str]:
    """The algorithm's parameters in a report."""
    found: list[str] = []

    def walk(item: Dataset) -> None:
        names = item.get("ConceptNameCodeSequence")
        if names and names[0].CodeValue == "111002":
            found.append(item.TextValue)
        for child in item.get("ContentSequence", ()):
            walk(child)

    walk(ds)
    return found


def test_the_fallback_and_its_reason_stand_in_the_objects(tmp_path: Path) -> None:
    engine = FALLBACK + "a has no plan, run `secondread engines build a`"
    objects = made(engine, ("seg", "sr"), tmp_path)
    assert f"engine: {engine}" in parameters(objects["sr"])
    (algorithm, *_) = objects["seg"].SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    # Commas part the parameters here
    assert algorithm.AlgorithmParameters.split(",")[0] == "engine=" + engine.replace(",", ";")
    for ds in objects.values():
        described = [item.get("ContributionDescription") for item in ds.ContributingEquipmentSequence]
        assert f"Algorithm that analysed the images, on {engine}" in described


def test_every_kind_stands_the_worst_reason(tmp_path: Path) -> None:
    assert len(made(NASTY, results.KINDS, tmp_path)) >= 8


def test_the_report_in_words_says_it_in_one_line() -> None:
    words = report.worded(cases.context(SOURCE, engine=NASTY), cases.findings(SOURCE))
    (line,) = [line for line in words.limitations if "in place of tensorrt" in line]
    assert "C:/plans/x.plan" in line and line.isprintable() and len(line) <= 1000


@pytest.mark.parametrize("kind", ["seg", "sr"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(why="")
@example(why="=,=,\\")
@given(why=st.text(max_size=2000))
def test_no_reason_breaks_an_object(kind: str, why: str, tmp_path: Path) -> None:
    # Were it not taken apart by highdicom, nobody else could read it either
    ds = made(FALLBACK + why, (kind,), tmp_path)[kind]
    if kind == "seg":
        (algorithm, *_) = ds.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        pairs = [pair.split("=") for pair in algorithm.AlgorithmParameters.split(",")]
        assert [len(pair) for pair in pairs] == [2, 2] and pairs[0][0] == "engine"
    else:
        assert any(text.startswith("engine: openvino") for text in parameters(ds))
