"""A derived series: the model's values, slice by slice, where the source has them, in classic images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import display, own_uids, results, series
from dicom_node.errors import GateError
from dicom_node.results import image_series, report, stored_values, verify, verify_image_series, verify_sr
from dicom_node.results.stored_values import Range
from dicom_node.series import SeriesImages
from engines.findings import Findings
from tests.support import answers, phantoms, planar, validators
from tests.support import results as cases
from tests.support.sources import SOURCES

#: What each source becomes.
CLASSES = {
    "CT, axial": "CT Image Storage",
    "CT, double oblique": "CT Image Storage",
    "MR": "Secondary Capture Image Storage",
    "CT, enhanced multi-frame": "CT Image Storage",
    "MR, enhanced multi-frame": "Secondary Capture Image Storage",
    "CR, single image": "Computed Radiography Image Storage",
    "DX, single image": "Digital X-Ray Image Storage - For Presentation",
    "US, single image": "Secondary Capture Image Storage",
    "CT, single image": "CT Image Storage",
}


def found(source: SeriesImages, **changes: Any) -> Findings:
    return answers.findings(source, image=answers.derived(source, **changes), image_label="denoised")


def make(source: SeriesImages, folder: Path, findings: Findings | None = None) -> list[Dataset]:
    files = results.make_results(cases.context(source), findings or found(source), ("image-series",), folder)
    assert {file.problem for file in files} == {""}
    return [dcmread(file.path) for file in files]


def values(ds: Dataset) -> Any:
    return ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


@pytest.mark.peer("dicom3tools")
@pytest.mark.parametrize("name", CLASSES)
def test_the_values_are_back_where_the_source_is(name: str, tmp_path: Path) -> None:
    # Given a source as files, when a derived image is made of it, of whatever class
    paths = SOURCES[name].write(tmp_path / "source")
    source = series.read_series(paths, planar=SOURCES[name].planar)
    made = make(source, tmp_path)
    assert {ds.SOPClassUID.name for ds in made} == {CLASSES[name]}
    # Then our own reader sees one volume on the same grid, with the values to half a step
    again = series.read_series(sorted((tmp_path / "image-series").iterdir()), planar=SOURCES[name].planar)
    wanted = answers.derived(source).array
    step = float(made[0].RescaleSlope)
    assert np.abs(again.volume.array - wanted).max() <= step / 2 * 1.001
    if source.volume.geometry.in_patient:
        assert again.volume.geometry.agrees_with(source.volume.geometry)
        assert again.volume.geometry.frame_of_reference_uid == source.volume.geometry.frame_of_reference_uid
    # And others find nothing wrong with it
    said = [validators.run("dciodvfy", "-new", ds.filename) for ds in (made[0], made[-1])]
    assert validators.errors("\n".join(said)) == []


SOURCE = cases.series(cases.LIES["axial"])


def test_it_is_one_series_of_ours_that_says_what_it_is(tmp_path: Path) -> None:
    made = make(SOURCE, tmp_path)
    assert len(made) == len(SOURCE.datasets)
    [uid] = {ds.SeriesInstanceUID for ds in made}
    assert own_uids.is_ours(uid) and all(own_uids.is_ours(ds.SOPInstanceUID) for ds in made)
    assert len({ds.SOPInstanceUID for ds in made}) == len(made)
    first = made[0]
    assert first.SeriesDescription == "AI unverified (research): denoised, chest-ct 1.0.0"
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.DerivationDescription.startswith("denoised: made by an AI model of the source image")
    assert [item.ManufacturerModelName for item in first.ContributingEquipmentSequence] == [
        "phantom",
        "chest-ct",
        "secondread",
    ]


def test_each_image_names_its_source_and_has_its_number(tmp_path: Path) -> None:
    for ds, origin in zip(make(SOURCE, tmp_path), SOURCE.datasets, strict=True):
        [item] = ds.SourceImageSequence
        assert item.ReferencedSOPInstanceUID == origin.SOPInstanceUID
        assert ds.InstanceNumber == origin.InstanceNumber
        assert ds.ImagePositionPatient == origin.ImagePositionPatient
        assert ds.KVP == origin.KVP


def test_a_frame_is_named_by_its_number(tmp_path: Path) -> None:
    source = series.read_series(SOURCES["CT, enhanced multi-frame"].write(tmp_path / "source"))
    named = [ds.SourceImageSequence[0] for ds in make(source, tmp_path)]
    assert [(item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) for item in named] == (
        cases.context(source).source_slices()
    )


def test_the_window_is_the_sources_where_the_unit_is(tmp_path: Path) -> None:
    headers = phantoms.datasets(phantoms.Phantom())
    for ds in headers:
        ds.WindowCenter, ds.WindowWidth = 40, 400
    source = cases.series(phantoms.Phantom(), headers)
    assert {(ds.WindowCenter, ds.WindowWidth) for ds in make(source, tmp_path / "same")} == {(40, 400)}
    other = make(source, tmp_path / "other", found(source, unit="1", scale=0.001))
    assert all(float(ds.WindowWidth) < 10 for ds in other)
    assert {ds.RescaleType for ds in other} == {"US"}


def test_a_retry_makes_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    first, second = ([Path(ds.filename).read_bytes() for ds in make(SOURCE, folder)] for folder in folders)
    assert first == second


def test_without_a_derived_image_there_is_no_series(tmp_path: Path) -> None:
    made = results.make_results(
        cases.context(SOURCE), answers.findings(SOURCE), ("sr", "image-series"), tmp_path
    )
    assert [file.kind for file in made] == ["sr"]


def test_key_objects_name_its_middle_image(tmp_path: Path) -> None:
    made = results.make_results(
        cases.context(SOURCE), found(SOURCE), ("image-series", "sr", "key-objects"), tmp_path
    )
    assert {file.problem for file in made} == {""}
    selected = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in dcmread(made[-1].path).ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    ]
    middle = made[len(SOURCE.datasets) // 2]
    assert selected == [middle.sop_instance_uid, made[-2].sop_instance_uid]


def test_the_report_says_that_it_was_made(tmp_path: Path) -> None:
    said = report.text(report.worded(cases.context(SOURCE), found(SOURCE)))
    assert "- The model made a derived series of the images: denoised.\n" in said
    # Nothing was measured: there is no heading over nothing
    assert [part.splitlines()[0] for part in said.split("\n\n")[1:]] == [
        "Conclusion",
        "Comparison",
        "Limits and origin",
    ]
    [file] = results.make_results(cases.context(SOURCE), found(SOURCE), ("sr",), tmp_path)
    [group] = verify_sr.read_groups(dcmread(file.path)).values()
    assert group.comments == ["The model made a derived series: denoised."]


def test_values_that_are_no_numbers_are_not_stored(tmp_path: Path) -> None:
    broken = answers.derived(SOURCE)
    broken.array[3, 4, 5] = np.nan
    findings = answers.findings(SOURCE, image=broken)
    context = cases.context(SOURCE)
    assert results.left_out(context, findings, ("sr", "image-series")) == (
        "no image-series: the derived image has values that are no numbers",
    )


def other_values(ds: Dataset) -> None:
    pixels = ds.pixel_array.copy()
    pixels[4, 7] += 2
    ds.PixelData = pixels.tobytes()


def mirrored(ds: Dataset) -> None:
    ds.PixelData = ds.pixel_array[:, ::-1].tobytes()


def elsewhere(ds: Dataset) -> None:
    ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], float(ds.ImagePositionPatient[2]) + 0.1]


def flipped(ds: Dataset) -> None:
    ds.ImageOrientationPatient = [-value for value in ds.ImageOrientationPatient[:3]] + list(
        ds.ImageOrientationPatient[3:]
    )


def of_another(ds: Dataset) -> None:
    ds.SourceImageSequence[0].ReferencedSOPInstanceUID = SOURCE.datasets[0].SOPInstanceUID


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (other_values, "differ from the model's"),
        (mirrored, "differ from the model's"),
        (elsewhere, "lies elsewhere"),
        (flipped, "lies elsewhere"),
        (of_another, "another source image"),
        (lambda ds: setattr(ds, "InstanceNumber", 12), "not in its place"),
        (lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"]), "not a derived image"),
        (lambda ds: setattr(ds, "PatientID", "OTHER"), "not the source's: PatientID"),
        (lambda ds: setattr(ds, "SOPInstanceUID", "1.2.3"), "SOPInstanceUID is not"),
    ],
)
def test_the_gate_sees_a_harmed_image(harm: Callable[[Dataset], None], said: str, tmp_path: Path) -> None:
    context, findings = cases.context(SOURCE), found(SOURCE)
    ds = make(SOURCE, tmp_path)[5]
    harm(ds)
    file = BytesIO()
    ds.save_as(file)
    check = verify_image_series.checker(context, findings)
    with pytest.raises(GateError, match=said):
        verify.check_part(file.getvalue(), "image-series", 5, context, check)


def test_two_images_in_each_others_place_are_seen(tmp_path: Path) -> None:
    context, findings = cases.context(SOURCE), found(SOURCE)
    raw = Path(make(SOURCE, tmp_path)[4].filename).read_bytes()
    with pytest.raises(GateError):
        verify.check_part(raw, "image-series", 5, context, verify_image_series.checker(context, findings))


@pytest.mark.parametrize(
    ("low", "high", "whole", "slope", "error"),
    [
        (-1024, 3071, True, "1", 0.0),
        (-1024, 3071, False, "0.062489", 0.0312445),
        (0.0, 1.0, False, "1.52597E-5", 8e-6),
        (-1e9, 1e9, True, "30519.4", 15260.0),
        (5.5, 5.5, False, "1", 0.5),
    ],
)
def test_sixteen_bits_hold_the_range_to_half_a_step(
    low: float, high: float, whole: bool, slope: str, error: float
) -> None:
    made = stored_values.rescale(Range(low=low, high=high, whole=whole))
    assert float(made.slope) == pytest.approx(float(slope), rel=1e-3)
    assert made.error == pytest.approx(error, rel=0.05)
    given = np.linspace(low, high, 1001) if not whole else np.linspace(low, high, 11).round()
    back = made.store(given) * float(made.slope) + float(made.intercept)
    assert np.abs(back - given).max() <= made.error * (1 + 1e-9)
    assert max(len(made.slope), len(made.intercept)) <= 16


def test_pet_has_no_intercept() -> None:
    made = stored_values.through_zero(Range(low=0.0, high=25.5, whole=False))
    assert made.intercept == "0"
    assert abs(float(made.store(np.array([25.5]))[0]) * float(made.slope) - 25.5) <= made.error


@pytest.mark.parametrize("scale", [1e-6, 1.0])
def test_what_a_window_says_is_what_a_viewer_shows(tmp_path: Path, scale: float) -> None:
    # Given an image in a unit of its own, of large numbers or of tiny ones
    image = replace(answers.derived(SOURCE, scale=scale), unit="mm2/s")
    low, high = np.percentile(image.array[:, ::4, ::4], (1, 99))
    made = make(SOURCE, tmp_path, answers.findings(SOURCE, image=image, image_label="diffusion"))
    # Then it is shown from black to white, by a window that needs no function to be named
    for ds, array in zip(made, image.array, strict=True):
        assert "VOILUTFunction" not in ds and ds.WindowWidth >= 1
        seen = display.shown(ds, values(ds), otherwise=(0.0, 0.0)).array
        np.testing.assert_allclose(seen, np.interp(array, (low, high), (0, 1)), atol=1e-3)


def test_a_radiograph_of_few_values_becomes_a_secondary_capture(tmp_path: Path) -> None:
    source = series.read_series(phantoms.write([planar.dx()], tmp_path / "source"), planar=True)
    [ds] = make(source, tmp_path, found(source, scale=0.001))
    assert ds.SOPClassUID.name == "Secondary Capture Image Storage"
    assert replace(cases.MODEL).name in ds.SeriesDescription
    assert image_series.middle(cases.context(source)) == 0
    assert (
        np.abs(values(ds) - answers.derived(source, scale=0.001).array[0]).max() <= float(ds.RescaleSlope) / 2
    )
