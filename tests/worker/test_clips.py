"""A cine loop on its way through an installation, and through `secondread run`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.engines import build
from tests.engines.test_clips import LENGTH, SIZE, changes_of, weighing
from tests.support import phantoms, planar
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from tests.worker.test_cascade import run_command
from tests.worker.test_single_images import named
from worker.shelf import Shelf

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def _moments(count: int = 8) -> NDArray[np.uint8]:
    """Frames of the model's size, each brighter than the last."""
    noise = np.random.default_rng(0).integers(0, 20, (count, *SIZE))
    return (noise + 10 * np.arange(count)[:, None, None]).astype(np.uint8)


def _clip() -> Dataset:
    ds = named(planar.cine(_moments()))
    ds.FrameOfReferenceUID = None
    return ds


def _expected() -> float:
    """What the model says of every second frame."""
    means = _moments()[1::2].mean(axis=(1, 2)) / 100
    return float((np.arange(1, LENGTH + 1) * means).sum())


def _write(folder: Path) -> Path:
    changes = changes_of(entry={"series": {"Modality": "US"}})
    return build.write(folder, weighing(), **changes | {"results": ["sr", "key-images"]})


def test_a_clip_is_measured_and_its_report_is_about_the_clip(journey: Journey, tmp_path: Path) -> None:
    _write(tmp_path / "models" / "tiny")
    journey.shelf = Shelf([tmp_path / "models"], threads=1)
    journey.routes = [journeys.route("loops", when={"Modality": "US"})]
    source = _clip()
    journey.run([source])
    journey.shelf.close()
    job = journey.job()
    assert (job.state, job.error) == ("done", "")
    assert [(one.key, one.value) for one in job.measurements] == [
        ("weight", pytest.approx(_expected(), rel=1e-4))
    ]
    assert "4 of 8 frames were looked at" in job.notes
    assert all(made.problem == "" for made in job.objects)
    (sr,) = [file for file in journey.sent() if file.path.name == "sr.dcm"]
    evidence = pydicom.dcmread(sr.path).CurrentRequestedProcedureEvidenceSequence
    (item,) = evidence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_run_looks_at_a_clip(tmp_path: Path) -> None:
    _write(tmp_path / "clips")
    phantoms.write([_clip()], tmp_path / "in")
    done = run_command(tmp_path, "run", tmp_path / "clips", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out" / "findings.json").read_text())["measurements"]
    assert found["value"] == pytest.approx(_expected(), rel=1e-4)
    assert (tmp_path / "out" / "image.png").exists()
