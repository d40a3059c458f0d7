"""Results of enhanced sources in front of programs that others wrote, with the sources themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node import results
from dicom_node.frame_header import frame_number
from dicom_node.series import SeriesImages, read_series
from tests.compared.test_results_peers import KINDS, located, read_nrrd, run
from tests.support import enhanced, phantoms
from tests.support import results as cases


def images(folder: Path, lie: str, modality: str = "CT", *, parts: int = 1) -> list[Path]:
    """Files of an enhanced source, whose frames' order says nothing."""
    slices = phantoms.datasets(cases.LIES[lie])
    ds = enhanced.image(slices[1::2] + slices[::2], modality)
    return phantoms.write([ds] if parts == 1 else enhanced.split(ds, 5), folder / "images")


def make(source: SeriesImages, folder: Path, kinds: tuple[str, ...] = KINDS) -> list[Path]:
    """Files of its results."""
    made = results.make_results(cases.context(source), cases.findings(source), kinds, folder)
    assert [item.problem for item in made] == [""] * len(kinds)
    return [item.path for item in made]


@pytest.mark.peer("dicom3tools")
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("lie", ["axial", "double oblique"])
def test_validators_find_no_error(lie: str, modality: str, parts: int, tmp_path: Path) -> None:
    files = images(tmp_path, lie, modality, parts=parts)
    made = make(read_series(files), tmp_path)
    for path in (*files, *made):
        said = run("dciodvfy", "-new", path)
        assert "Error" not in said, said
    assert f"Enhanced{modality}Image" in run("dciodvfy", "-new", files[0])
    said = run("dcentvfy", *files, *made)
    assert "Error" not in said, said


@pytest.mark.peer("dcmqi")
@pytest.mark.parametrize("kind", ["seg", "labelmap"])
@pytest.mark.parametrize("lie", ["axial", "feet first", "coronal", "double oblique"])
def test_dcmqi_reads_the_same_voxels_at_the_same_points(lie: str, kind: str, tmp_path: Path) -> None:
    source = read_series(images(tmp_path, lie))
    [written] = make(source, tmp_path, (kind,))
    run("segimage2itkimage", "--inputDICOM", written, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    labels = cases.findings(source).mask
    for number in (1, 2, 3):
        file = tmp_path / ("1.nrrd" if kind == "labelmap" else f"{number}.nrrd")
        wanted = located(np.argwhere(labels == number), source.volume.geometry.affine)
        assert read_nrrd(file, number) == wanted


@pytest.mark.peer("pixelmed")
def test_the_reports_fit_their_templates(tmp_path: Path) -> None:
    *_, report, selection = make(read_series(images(tmp_path, "axial", parts=2)), tmp_path)
    for path in (report, selection):
        said = run("DicomSRValidator", path)
        assert "IOD validation complete" in said
        assert "Error" not in said, said


@pytest.mark.peer("dcmtk")
def test_dcmtk_reads_the_frames_of_a_selection(tmp_path: Path) -> None:
    source = read_series(images(tmp_path, "axial"))
    *_, selection = make(source, tmp_path)
    said = run("dsrdump", selection)
    assert "E: " not in said, said
    for index in (2, 4):
        assert f"(CTe image,,{frame_number(source.datasets[index])})" in said, said
