"""The Key Object Selection ties a run's objects together, and names the slices that matter."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import files, verify
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])


def make(folder: Path, wanted: tuple[str, ...] = results.KINDS) -> dict[str, Dataset]:
    """The objects as they are on disk, by kind."""
    made = results.make_results(cases.context(SOURCE), cases.findings(SOURCE), wanted, folder)
    assert [file.problem for file in made] == [""] * len(made)
    return {file.kind: dcmread(file.path) for file in made}


def selected(ds: Dataset) -> list[str]:
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in ds.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    ]


def test_it_selects_the_key_slices_and_every_result(tmp_path: Path) -> None:
    made = make(tmp_path)
    ds = made["key-objects"]
    slices = [item.ReferencedSOPInstanceUID for item in made["key-images"].SourceImageSequence]
    others = [made[kind].SOPInstanceUID for kind in cases.KINDS if kind != "key-objects"]
    assert selected(ds) == [*slices, *others]
    [study] = ds.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == ds.StudyInstanceUID
    counts = [len(series.ReferencedSOPSequence) for series in study.ReferencedSeriesSequence]
    assert counts == [2] + [1] * len(others)
    assert ds.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    assert ds.Modality == "KO"


def test_alone_it_selects_the_key_slices(tmp_path: Path) -> None:
    ds = make(tmp_path, ("key-objects",))["key-objects"]
    assert selected(ds) == [SOURCE.datasets[2].SOPInstanceUID, SOURCE.datasets[4].SOPInstanceUID]


def test_where_nothing_is_segmented_it_selects_the_report_or_is_not_made(tmp_path: Path) -> None:
    nothing = cases.findings(SOURCE, mask=np.zeros(SOURCE.volume.geometry.shape, np.uint8), maps=())
    report, printed, selection = results.make_results(
        cases.context(SOURCE), nothing, results.KINDS, tmp_path / "a"
    )
    assert (report.kind, printed.kind, selection.problem) == ("sr", "pdf", "")
    assert selected(dcmread(selection.path)) == [report.sop_instance_uid, printed.sop_instance_uid]
    assert results.make_results(cases.context(SOURCE), nothing, ("key-objects",), tmp_path / "b") == []


def test_it_stays_where_what_it_names_may_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a disk that loses the colours of the key images
    whole = files.write

    def black(ds: Dataset, path: Path) -> None:
        if path.name == "key-images.dcm":
            ds.PixelData = bytes(len(ds.PixelData))
        whole(ds, path)

    monkeypatch.setattr(files, "write", black)
    made = results.make_results(cases.context(SOURCE), cases.findings(SOURCE), results.KINDS, tmp_path)
    # Then the selection waits with them, and the report goes: it does not name them
    assert [file.kind for file in made if not file.verified] == ["key-images", "key-objects"]
    assert made[-1].problem == "it refers to key-images, which failed the read-back"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda ds: ds.ContentSequence.pop(), "what is selected"),
        (lambda ds: ds.ContentSequence.append(ds.ContentSequence[-1]), "what is selected"),
        (
            lambda ds: setattr(
                ds.CurrentRequestedProcedureEvidenceSequence[0]
                .ReferencedSeriesSequence[0]
                .ReferencedSOPSequence[0],
                "ReferencedSOPInstanceUID",
                "2.25.7",
            ),
            "evidence",
        ),
        (lambda ds: delattr(ds, "ConceptNameCodeSequence"), "ConceptNameCodeSequence of a CONTAINER"),
        (lambda ds: setattr(ds, "InstanceNumber", None), "InstanceNumber is empty"),
    ],
)
def test_a_wrong_selection_is_caught(damage: Callable[[Dataset], None], says: str, tmp_path: Path) -> None:
    ds = make(tmp_path)["key-objects"]
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    before = cases.KINDS[:-1]
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), "key-objects", cases.context(SOURCE), cases.findings(SOURCE), before)
