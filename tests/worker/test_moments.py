"""A dynamic series on its way through an installation, through `secondread run`, and into a package's example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from engines import package
from tests.engines import test_moments as packages
from tests.engines.test_moments import TAKE
from tests.support import moments, phantoms
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from tests.worker.test_cascade import run_command
from worker import golden, lightbox
from worker.lightbox import LightBox
from worker.shelf import Shelf

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def _write(folder: Path, moments: dict[str, Any] | None = None) -> Path:
    return packages.write(folder, moments, series={"Modality": "MR"})


def _installed(journey: Journey, folder: Path, moments: dict[str, Any] | None = None) -> None:
    _write(folder / "models" / "tiny", moments)
    journey.shelf = Shelf([folder / "models"], threads=1)
    journey.routes = [journeys.route("dynamic", when={"Modality": "MR"})]


def _marks_the_lesion(seg: Dataset, first: list[Dataset]) -> None:
    """The Segmentation is of the lesion, on the images of `first` and no others."""
    by_uid = {str(ds.SOPInstanceUID): ds for ds in first}
    listed = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {str(item.ReferencedSOPInstanceUID) for item in listed} <= set(by_uid)
    expected = np.zeros(moments.SHAPE, np.uint8)
    expected[moments.LESION] = 1
    order = sorted(first, key=lambda ds: float(ds.ImagePositionPatient[2]))
    seen = []
    for group, frame in zip(
        seg.PerFrameFunctionalGroupsSequence, np.atleast_3d(seg.pixel_array), strict=True
    ):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        image = by_uid[str(source.ReferencedSOPInstanceUID)]
        assert group.PlanePositionSequence[0].ImagePositionPatient == image.ImagePositionPatient
        np.testing.assert_array_equal(frame, expected[order.index(image)])
        seen.append(order.index(image))
    assert sorted(seen) == [1, 2]


def _of(made: list[Dataset], moment: int) -> list[Dataset]:
    deep = moments.SHAPE[0]
    return [ds for ds in made if moment * deep < ds.InstanceNumber <= (moment + 1) * deep]


@pytest.mark.parametrize("take", [["first", 2, "last"], [2, 3, 4]])
def test_what_takes_up_contrast_is_marked_on_the_first_moment(
    journey: Journey, tmp_path: Path, take: list[Any]
) -> None:
    _installed(journey, tmp_path, TAKE | {"take": take})
    journey.lightbox = LightBox(64)
    made = moments.series(4, moments.identified)
    journey.run(made)
    journey.shelf.close()
    job = journey.job()
    assert (job.state, job.error) == ("done", "")
    first = 0 if take[0] == "first" else 1
    said = "1 of 4 (0 s), 2 of 4 (62 s), 4 of 4" if not first else "2 of 4 (62 s), 3 of 4 (124 s), 4 of 4"
    assert f"looked at by time: {said} (186 s)" in job.notes
    assert all(one.problem == "" for one in job.objects)
    (seg,) = [file for file in journey.sent() if file.path.name == "seg.dcm"]
    _marks_the_lesion(pydicom.dcmread(seg.path), _of(made, first))
    # What is kept for the next model counts every moment that was read, beside the headers of one
    held = journey.lightbox.kept_bytes - lightbox.HEADER_BYTES * moments.SHAPE[0]
    assert held == 3 * np.prod(moments.SHAPE) * 2
    journey.lightbox.close()


def test_a_dynamic_series_that_is_incomplete_fails_the_job_by_its_moment(
    journey: Journey, tmp_path: Path
) -> None:
    _installed(journey, tmp_path)
    journey.run([ds for ds in moments.series(4, moments.identified) if ds.InstanceNumber != 18])
    journey.shelf.close()
    job = journey.job()
    assert job.state == "failed"
    assert job.reason == "missing-slice"
    assert "moment 4 of 4 (186 s) lacks 1 of 5 slices: that at (-30.00, -20.00, 105.00) mm" in job.error


def test_run_marks_restricted_diffusion_on_the_b0_images(tmp_path: Path) -> None:
    _write(tmp_path / "diffusion", {"by": "b-value", "take": ["first", 2, "last"]})
    made = moments.series(4, moments.weighted((0, 50, 400, 800)))
    phantoms.write(made, tmp_path / "in")
    done = run_command(tmp_path, "run", tmp_path / "diffusion", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    _marks_the_lesion(pydicom.dcmread(tmp_path / "out" / "seg.dcm"), _of(made, 0))
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert found["segments"][0]["voxels"] == 120
    assert "1 of 4 (b 0), 2 of 4 (b 50), 4 of 4 (b 800)" in " ".join(done.stdout.split())


def test_an_example_is_recorded_of_a_dynamic_series_and_checked(tmp_path: Path) -> None:
    opened = package.open_package(_write(tmp_path / "tiny"))
    phantoms.write(moments.series(3, moments.timed), tmp_path / "in")
    golden.record(opened, tmp_path / "in", threads=1)
    with np.load(tmp_path / "tiny" / "example" / "input.npz") as kept:
        np.testing.assert_array_equal(kept["image.further"], [moments.array(1), moments.array(2)])
    verdicts = golden.check(opened, threads=1)
    assert [(verdict.dice, verdict.agrees) for verdict in verdicts] == [(1.0, True), (1.0, True)]
