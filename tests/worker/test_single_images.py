"""Single images on their way through an installation, and through `secondread run`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from tests.engines import build
from tests.support import phantoms, planar
from tests.worker import journey as journeys
from tests.worker.journey import SERIES, STUDY, Journey
from worker import cli, criteria
from worker.shelf import Shelf

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

DATA = Path(__file__).parent.parent / "data" / "single_images"
MM2 = {"value": "mm2", "scheme": "UCUM", "meaning": "square millimeter"}
AREA = build.code("42798000", "Area")
BLOCK = int((planar.marker() == 180).sum())


def write_model(folder: Path, *modalities: str, **changes: Any) -> Path:
    """A package that marks what is bright, and what is brightest, on single images."""
    entry = {"planar": True, "intensity": {"kind": "min-max"}, "series": {"Modality": list(modalities)}}
    content: dict[str, Any] = {
        "name": "bright",
        "inputs": [build.entry(**entry)],
        "tiling": {"patch": [1, 32, 32]},
        "outputs": [{"name": "logits", "labels": [build.label(1, "bright"), build.label(2, "brightest")]}],
        "measurements": [build.measurement("area", "area", of=["bright"], name=AREA, unit=MM2)],
        "results": ["seg", "sr", "key-images", "key-objects", "labelmap"],
    }
    return build.write(folder, build.thresholds((0.6, 0.9)), **content | changes)


def named(ds: Dataset, number: int = 1) -> Dataset:
    """The image under the journey's UIDs, of its patient."""
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = STUDY, SERIES, f"{SERIES}.{number}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientName, ds.PatientID, ds.AccessionNumber = journeys.NAME, journeys.ID, journeys.ACCESSION
    ds.InstanceNumber = number
    return ds


@pytest.fixture
def x_rays(journey: Journey, tmp_path: Path) -> Iterator[Journey]:
    """An installation whose one route gives X-rays and ultrasound to the model of single images."""
    write_model(tmp_path / "planar" / "bright", "DX", "MG", "US")
    journey.shelf = Shelf([tmp_path / "planar"])
    when = criteria.parse({"Modality": ["DX", "MG", "US"]})
    rule = journeys.route("x-rays")
    journey.routes = [replace(rule, when=when, run=("bright",))]
    yield journey
    journey.shelf.close()


def test_a_radiograph_s_results_leave(x_rays: Journey) -> None:
    x_rays.run([named(planar.dx())])
    job = x_rays.job()
    assert (job.state, job.reason, job.error) == ("done", "", "")
    assert [(made.kind, made.problem) for made in job.objects] == [
        (kind, "") for kind in ("seg", "labelmap", "key-images", "sr", "key-objects")
    ]
    # Turned over: what the film shows dark is the brightest of the stored values
    assert [(one.label, one.voxels) for one in job.segments][1][1] > 0
    assert any("MONOCHROME1" in note for note in job.notes)
    assert any("at the detector" in note for note in job.notes)
    assert len(x_rays.sent()) == 5


def test_an_image_without_a_size_is_analysed_and_the_job_says_what_is_missing(x_rays: Journey) -> None:
    ds = planar.us()
    del ds.SequenceOfUltrasoundRegions
    x_rays.run([named(ds)])
    job = x_rays.job()
    assert job.state == "done" and job.measurements == []
    [said] = [note for note in job.notes if "cannot be measured" in note]
    assert (
        said == "Area (square millimeter) cannot be measured: the image does not say how large its pixels are"
    )


def test_two_views_in_one_series_fail_with_what_to_do(x_rays: Journey) -> None:
    x_rays.run([named(planar.mg()), named(planar.mg(), 2)])
    job = x_rays.job()
    assert (job.state, job.reason, job.objects) == ("failed", "several-images", [])
    assert "series of its own" in job.error


def test_a_model_of_volumes_still_refuses_a_radiograph(journey: Journey, tmp_path: Path) -> None:
    entry = build.entry(series={"Modality": "DX"})
    build.write(tmp_path / "volumes" / "tiny", build.thresholds((0.5, 0.75)), inputs=[entry])
    journey.shelf = Shelf([tmp_path / "volumes"])
    journey.routes = [journeys.route(when={"Modality": "DX"})]
    journey.run([named(planar.dx())])
    journey.shelf.close()
    assert (journey.job().state, journey.job().reason) == ("failed", "inverted-grey")


@pytest.mark.parametrize(
    ("source", "pixel_mm2"),
    [(planar.mg, 0.08 * 0.08), (planar.us, 0.5 * 0.4), (planar.ct, 0.8 * 0.7), (planar.op, None)],
)
def test_run_makes_everything_of_one_image(
    source: Callable[[], Dataset], pixel_mm2: float | None, tmp_path: Path
) -> None:
    write_model(tmp_path / "bright", "MG", "US", "OP", "CT")
    phantoms.write([source()], tmp_path / "in")
    found = run(tmp_path)
    names = [path.name for path in sorted((tmp_path / "out").glob("*.dcm"))]
    assert names == ["key-images.dcm", "key-objects.dcm", "labelmap.dcm", "seg.dcm", "sr.dcm"]
    with Image.open(tmp_path / "out" / "image.png") as picture:
        assert max(picture.size) == 512
    if pixel_mm2 is None:
        assert found["measurements"] == []
    else:
        assert [one["value"] for one in found["measurements"]] == [pytest.approx(BLOCK * pixel_mm2)]


def test_run_on_a_real_radiograph(tmp_path: Path) -> None:
    write_model(tmp_path / "bright", "DX")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes((DATA / "dx_monochrome1.dcm").read_bytes())
    found = run(tmp_path)
    source = pydicom.dcmread(DATA / "dx_monochrome1.dcm")
    # The film's own values, turned over and scaled as the model scales them
    values = 255 - source.pixel_array.astype(float)
    share = (values - values.min()) / (values.max() - values.min())
    expected = [int(((share >= 0.6) & (share < 0.9)).sum()), int((share >= 0.9).sum())]
    assert [one["voxels"] for one in found["segments"]] == pytest.approx(expected, abs=2)
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    assert (seg.Rows, seg.Columns) == (source.Rows, source.Columns)
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def run(folder: Path) -> Any:
    """`secondread run` on what lies in "in"; its findings."""
    arguments = ["run", str(folder / "bright"), str(folder / "in"), "--out", str(folder / "out")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    return json.loads((folder / "out" / "findings.json").read_text())
