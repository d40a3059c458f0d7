"""The model that ships, on the CT that ships: its golden case, and a body without lungs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node.series import read_series
from engines import loader
from engines.findings import Findings
from engines.package import ModelPackage, open_package
from engines.predict import predict
from engines.runner import Runner
from engines.volume import Geometry, Volume
from tests.support import enhanced, phantoms
from worker import assets


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return open_package(assets.models() / "chest-ct")


@pytest.fixture(scope="module")
def runner(package: ModelPackage) -> Iterator[Runner]:
    with loader.open_runner(package) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(package: ModelPackage, runner: Runner) -> Findings:
    images = read_series(sorted(Path(assets.demo() / "ct").glob("*.dcm")))
    # Feet first: the orientation must come from the geometry, not from the order of the files.
    assert {ds.PatientPosition for ds in images.datasets} == {"FFS"}
    return predict(package, runner, images.volume)


def test_the_same_slices_as_an_enhanced_image_give_the_same_answer(
    found: Findings, package: ModelPackage, runner: Runner, tmp_path: Path
) -> None:
    slices = [pydicom.dcmread(path) for path in sorted(Path(assets.demo() / "ct").glob("*.dcm"))]
    for ds in slices:
        if ds.file_meta.TransferSyntaxUID.is_compressed:
            ds.decompress(generate_instance_uid=False)
    images = read_series(phantoms.write([enhanced.image(slices)], tmp_path))
    answer = predict(package, runner, images.volume)
    assert answer.measurements == found.measurements
    assert answer.findings == found.findings
    assert np.array_equal(answer.mask, found.mask)


def _centroid(found: Findings, number: int) -> np.ndarray:
    """LPS mm."""
    index = np.argwhere(found.mask == number).mean(axis=0)
    return found.geometry.to_patient(index)


def test_the_left_lung_is_on_the_patients_left(found: Findings) -> None:
    left, right = _centroid(found, 1), _centroid(found, 2)
    assert [segment.label for segment in found.segments][:2] == ["Left lung", "Right lung"]
    # x runs to the patient's left (PS3.3 C.7.6.2.1.1).
    assert left[0] - right[0] > 80


def test_the_measurements_are_those_of_the_model_card(found: Findings) -> None:
    measured = {(row.key, row.segment_number): row.value for row in found.measurements}
    assert measured["lung_volume", 1] == pytest.approx(1910, rel=0.03)
    assert measured["lung_volume", 2] == pytest.approx(921, rel=0.03)
    assert measured["lung_volume", None] == pytest.approx(
        measured["lung_volume", 1] + measured["lung_volume", 2]
    )
    assert measured["lung_density", 1] == pytest.approx(-801, abs=10)
    assert measured["laa950", None] == pytest.approx(2.7, abs=0.5)
    assert [(finding.key, finding.present) for finding in found.findings] == [("emphysema_like", False)]


def test_a_body_without_lungs_gets_no_lungs_and_no_statement(package: ModelPackage, runner: Runner) -> None:
    # Given a body of water with a bubble of 70 mL of gas in it
    slices, rows, columns = np.mgrid[0:40, 0:160, 0:160].astype(np.float32)
    array = np.full((40, 160, 160), -1000, np.int16)
    array[((rows - 80) / 55) ** 2 + ((columns - 80) / 70) ** 2 < 1] = 30
    array[((slices - 20) * 2) ** 2 + (rows - 60) ** 2 + (columns - 90) ** 2 < 10**2] = -1000
    affine = np.array([[0, 0, 2.5, -200], [0, 2.5, 0, -200], [5, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    volume = Volume(array=array, geometry=Geometry(shape=array.shape, affine=affine), unit="[hnsf'U]")
    # When the model answers
    answer = predict(package, runner, volume)
    # Then it finds the body, and says nothing about lungs
    assert set(np.unique(answer.mask)) == {0, 3}
    assert answer.findings == ()
    assert {(row.key, row.value) for row in answer.measurements} == {("lung_volume", 0.0)}
