"""PET as SUV and radiographs as displayed on their way through an installation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from engines.volume import SUV
from tests.engines import build
from tests.support import pet, planar
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from tests.worker.test_single_images import named
from worker import criteria
from worker.shelf import Shelf

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

UNIT = {"value": SUV, "scheme": "UCUM", "meaning": "Standardized Uptake Value body weight"}
SUV_NAME = build.code("126401", "SUVbw", "DCM")


@pytest.fixture
def models(journey: Journey, tmp_path: Path) -> Iterator[Journey]:
    """An installation with a model of PET in SUV, hot from 1, and one of displayed radiographs, bright from 0.6."""
    kinds = ["seg", "sr", "key-images", "presentation-state"]
    suv: dict[str, Any] = {
        "name": "hot",
        "inputs": [build.entry(values="SUVbw", intensity={"kind": "window", "low": 0, "high": 2})],
        "outputs": [{"name": "logits", "labels": [build.label(1, "label1")]}],
        "measurements": [build.measurement("suvmax", "maximum", name=SUV_NAME, unit=UNIT)],
        "results": kinds,
    }
    shown: dict[str, Any] = {
        "name": "bright",
        "inputs": [
            build.entry(planar=True, values="displayed", intensity={"kind": "window", "low": 0, "high": 1})
        ],
        "tiling": {"patch": [1, 32, 32]},
        "outputs": [{"name": "logits", "labels": [build.label(1, "bright")]}],
        "results": ["seg", "key-images"],
    }
    build.write(tmp_path / "models" / "hot", build.thresholds((0.5,)), **suv)
    build.write(tmp_path / "models" / "bright", build.thresholds((0.6,)), **shown)
    journey.shelf = Shelf([tmp_path / "models"])
    rule = journeys.route()
    journey.routes = [
        replace(rule, name=model, when=criteria.parse({"Modality": modality}), run=(model,))
        for model, modality in (("hot", "PT"), ("bright", "DX"))
    ]
    yield journey
    journey.shelf.close()


def _of_the_journey(made: list[Dataset]) -> list[Dataset]:
    return [named(ds, number) for number, ds in enumerate(made, start=1)]


def test_a_pet_is_measured_and_reported_in_suv(models: Journey) -> None:
    models.run(_of_the_journey(pet.series()))
    job = models.job()
    assert (job.state, job.reason, job.error) == ("done", "", "")
    highest = pet.activity().max() * pet.WEIGHT * 1000 / (pet.DOSE * 2 ** (-3600 / pet.HALF_LIFE))
    [measured] = job.measurements
    assert measured.value == pytest.approx(highest, rel=1e-5)
    assert {made.kind: made.problem for made in job.objects} == {"seg": "", "sr": "", "key-images": ""}
    assert any("the model looked at other values (SUVbw)" in note for note in job.notes)
    [sr] = [ds for ds in (pydicom.dcmread(one.path) for one in models.sent()) if ds.Modality == "SR"]
    assert "g/ml{SUVbw}" in sr.to_json() and "g/ml (SUVbw)" in sr.to_json()


def test_a_pet_without_a_weight_fails_with_the_element(models: Journey) -> None:
    models.run(_of_the_journey(pet.series(PatientWeight=None)))
    job = models.job()
    assert (job.state, job.reason, job.objects) == ("failed", "no-suv", [])
    assert "Patient's Weight (0010,1030) is missing" in job.error


def test_a_radiograph_is_looked_at_as_it_is_displayed(models: Journey) -> None:
    ds = planar.dx()
    ds.WindowCenter, ds.WindowWidth = "2048", "4096"
    models.run([named(ds)])
    job = models.job()
    assert (job.state, job.reason, job.error) == ("done", "", "")
    # MONOCHROME1: what is stored below 0.4 of the window is shown brighter than 0.6.
    dark = int((planar.marker().astype(int) * 16 < 0.4 * 4095).sum())
    assert [one.voxels for one in job.segments] == [dark]
    assert any("those that a viewer shows" in note for note in job.notes)
