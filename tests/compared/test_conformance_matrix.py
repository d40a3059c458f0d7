"""Every kind of result on every kind of source, in front of others' programs; docs/conformance.md has the table.

SECONDREAD_WRITE_DOCS=1 writes that page anew.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node import results, series
from dicom_node.series import SeriesImages
from tests.support import answers, validators
from tests.support import results as cases
from tests.support.sources import SOURCES
from worker import conformance
from worker.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

#: Debian's dciodvfy is older than the IOD.
_UNKNOWN_TO_DCIODVFY = ("labelmap",)

#: What is asked of every object, by what it is.
_CHECKS = """
A ✓ is an object that was made of the source's files as the reader reads them, passed the gate, and then: dciodvfy finds no error (not
asked of `labelmap`, which it does not know); dcentvfy finds none between the source and all results of the run;
DicomSRValidator finds none in a report or a selection; dcmqi finds each segment's voxels where the source's own headers have
them, and so does highdicom (alone, and by the source image, where that has no place in the patient). What is left out has its reason
below the table.
"""

made: dict[str, dict[str, str]] = {}


def findings(source: SeriesImages) -> Any:
    """Three blocks of unlike size, in a corner, whatever is in the images; boxes beside them, and a derived image."""
    shape = source.volume.geometry.shape
    box = answers.box(low=(-0.5, 2.5, 3.25), high=(shape[0] / 2, 9.75, 14.0))
    return cases.findings(source, mask=blocks(shape), boxes=(box,), image=answers.derived(source))


def blocks(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Labels 1 to 3, unlike along every axis that is long enough."""
    mask = np.zeros(shape, np.uint8)
    deep = max(1, shape[0] // 3)
    rows, columns = shape[1] // 8, shape[2] // 8
    mask[:deep, rows : 4 * rows, columns : 2 * columns] = 1
    mask[: max(1, deep // 2), rows : 2 * rows, 3 * columns : 7 * columns] = 2
    mask[-1, 5 * rows : 6 * rows, columns : 6 * columns] = 3
    return mask


@pytest.mark.peer("dicom3tools")
@pytest.mark.peer("pixelmed")
@pytest.mark.peer("dcmqi")
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_result_on_this_source(name: str, tmp_path: Path) -> None:
    # Given the source as files, when all kinds of results are made of it
    files = SOURCES[name].write(tmp_path / "source")
    source = series.read_series(files, planar=SOURCES[name].planar)
    context, found = cases.context(source), findings(source)
    objects = results.make_results(context, found, results.KINDS, tmp_path)
    assert [file.problem for file in objects] == [""] * len(objects)
    # Then others find nothing wrong with any, nor between them and the source
    questions = [question for file in objects for question in asked(file)]
    questions.append(("dcentvfy", *files, *(file.path for file in objects)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(lambda question: validators.run(*question), questions)
        assert [line for said in answers for line in validators.errors(said)] == []
    for file in objects:
        if file.kind in ("seg", "labelmap"):
            check_voxels(file.path, found.mask, source, tmp_path / f"dcmqi-{file.kind}")
    # And what is not made is said
    cells = {file.kind: "✓" for file in objects}
    left_out = results.left_out(context, found, results.KINDS)
    said = dict(line.removeprefix("no ").split(": ", 1) for line in left_out)
    assert cells.keys() | said.keys() == set(results.KINDS)
    made[name] = {**cells, **said}


def asked(file: results.ResultFile) -> list[tuple[Any, ...]]:
    """What the validators are asked about one object."""
    questions: list[tuple[Any, ...]] = []
    if file.kind not in _UNKNOWN_TO_DCIODVFY:
        questions.append(("dciodvfy", "-new", file.path))
    if dcmread(file.path, stop_before_pixels=True).Modality in ("SR", "KO"):
        questions.append(("DicomSRValidator", file.path))
    return questions


def check_voxels(path: Path, mask: NDArray[Any], source: SeriesImages, folder: Path) -> None:
    """Every voxel of every segment is where the source has it."""
    numbers = (1, 2, 3)
    wanted = {n: validators.located(np.argwhere(mask == n), source.volume.geometry.affine) for n in numbers}
    segmentation = highdicom.seg.segread(path)
    if not source.volume.geometry.in_patient:
        # dcmqi reads only what lies in the patient.
        [image] = source.instances
        [pixels] = segmentation.get_pixels_by_source_instance([image.SOPInstanceUID], combine_segments=True)
        assert np.array_equal(pixels, mask[0])
        return
    assert validators.labels(path, folder, numbers) == wanted
    read = segmentation.get_volume(combine_segments=True)
    assert {n: validators.located(np.argwhere(read.array == n), read.affine) for n in numbers} == wanted


@pytest.mark.peer("dicom3tools")
@pytest.mark.peer("pixelmed")
@pytest.mark.peer("dcmqi")
def test_the_statement_has_what_was_found() -> None:
    if made.keys() != SOURCES.keys():
        pytest.skip("the matrix was not made as a whole in this run")
    page = conformance.statement(Settings(), source="the default one", matrix=table())
    if os.environ.get("SECONDREAD_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, (
        "docs/conformance.md is not what this version does: set SECONDREAD_WRITE_DOCS=1 and run this file again"
    )


def table() -> str:
    """The matrix in Markdown, its reasons numbered below it."""
    reasons: dict[str, int] = {}
    lines = [
        _row(["source", *(f"`{kind}`" for kind in results.KINDS)]),
        _row(["---"] * (len(results.KINDS) + 1)),
    ]
    for name, cells in made.items():
        shown = [
            cells[kind] if cells[kind] == "✓" else f"– ({reasons.setdefault(cells[kind], len(reasons) + 1)})"
            for kind in results.KINDS
        ]
        lines.append(_row([name, *shown]))
    notes = [f"({number}) {reason}" for reason, number in reasons.items()]
    return "\n".join([_CHECKS.strip(), "", *lines, *([""] if notes else []), *notes])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
