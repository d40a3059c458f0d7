"""The presentation state: lines on the pixels' edges, words, and the source's own window; what is wrong does not pass."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError, SeriesError
from dicom_node.results import verify
from dicom_node.series import SeriesImages
from engines.findings import Findings
from tests.support import phantoms
from tests.support import results as cases

PHANTOM = phantoms.Phantom(shape=(9, 29, 37))


def series(**elements: object) -> SeriesImages:
    """The phantom; these elements are on each image, a list has one value for each."""
    headers = phantoms.datasets(PHANTOM)
    for index, ds in enumerate(headers):
        for keyword, value in elements.items():
            setattr(ds, keyword, value[index] if isinstance(value, list) else value)
    return cases.series(PHANTOM, headers)


SOURCE = series(WindowCenter=40, WindowWidth=400)


def blocks() -> NDArray[np.uint8]:
    """Two segments on slices of their own, unlike along every axis; the first with a hole and a corner."""
    labels = np.zeros(PHANTOM.shape, np.uint8)
    labels[2:4, 3:9, 5:20] = 1
    labels[3, 9, 4] = labels[3, 9, 19] = 1
    labels[3, 5, 7] = 0
    labels[6, 20:29, 30:37] = 2
    return labels


def make(folder: Path, found: Findings | None = None, source: SeriesImages = SOURCE) -> Dataset:
    """The presentation state as it is on disk."""
    found = found or cases.findings(source, mask=blocks())
    [made] = results.make_results(cases.context(source), found, ("presentation-state",), folder)
    assert made.verified, made.problem
    return dcmread(made.path)


def annotations(ds: Dataset, layer: str) -> list[Dataset]:
    return [item for item in ds.GraphicAnnotationSequence if item.GraphicLayer == layer]


def test_it_applies_to_the_key_slices(tmp_path: Path) -> None:
    ds = make(tmp_path)
    [referred] = ds.ReferencedSeriesSequence
    named = [item.ReferencedSOPInstanceUID for item in referred.ReferencedImageSequence]
    assert named == [SOURCE.datasets[3].SOPInstanceUID, SOURCE.datasets[6].SOPInstanceUID]
    assert (ds.Modality, ds.ContentLabel) == ("PR", "AI_UNVERIFIED")
    assert [item.GraphicLayer for item in ds.GraphicLayerSequence] == ["NOTE", "SEGMENT_1", "SEGMENT_2"]
    assert [item.GraphicLayerDescription for item in ds.GraphicLayerSequence][1:] == [
        "Left lung",
        "Right lung",
    ]


def test_lines_run_along_the_pixels_edges(tmp_path: Path) -> None:
    [item] = annotations(make(tmp_path), "SEGMENT_2")
    [graphic] = item.GraphicObjectSequence
    # (column, row) of corners; the last pixel's outer corner is the image's size (PS3.3 C.10.5.1.2)
    assert list(graphic.GraphicData) == [30, 20, 37, 20, 37, 29, 30, 29, 30, 20]
    assert (graphic.GraphicType, graphic.GraphicFilled, graphic.NumberOfGraphicPoints) == ("POLYLINE", "N", 5)


def test_words_name_measure_and_warn(tmp_path: Path) -> None:
    ds = make(tmp_path)
    [text] = annotations(ds, "SEGMENT_1")[0].TextObjectSequence
    assert text.UnformattedTextValue == "Left lung, 2346 mL Volume (AI, not verified)"
    assert list(text.AnchorPoint) == [5, 3]
    notes = [item.TextObjectSequence[0].UnformattedTextValue for item in annotations(ds, "NOTE")]
    assert notes == ["AI, not verified, for research only: chest-ct 1.0.0"] * 2


def test_the_source_shows_as_it_shows_itself(tmp_path: Path) -> None:
    ds = make(tmp_path)
    assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, -1024, "HU")
    assert [(item.WindowCenter, item.WindowWidth) for item in ds.SoftcopyVOILUTSequence] == [(40, 400)] * 2
    [area] = ds.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [37, 29]
    assert [float(value) for value in area.PresentationPixelSpacing] == [0.8, 0.7]


def test_a_line_that_is_too_long_for_one_element_goes_on_in_the_next(tmp_path: Path) -> None:
    source = cases.series(phantoms.Phantom(shape=(2, 200, 200)))
    mask = np.zeros((2, 200, 200), np.uint8)
    mask[1, ::4] = mask[1, 1::4, ::2] = mask[1, :, 0] = 1
    [item] = annotations(make(tmp_path, cases.findings(source, mask=mask), source), "SEGMENT_1")
    assert max(graphic.NumberOfGraphicPoints for graphic in item.GraphicObjectSequence) == 8001


def test_images_that_are_rescaled_differently_have_none(tmp_path: Path) -> None:
    source = series(RescaleSlope=[1 + index for index in range(9)])
    context, found = cases.context(source), cases.findings(source)
    [said] = results.left_out(context, found, ("presentation-state", "sr"))
    assert said.startswith("no presentation-state: the source images are rescaled differently")
    made = results.make_results(context, found, ("presentation-state", "sr"), tmp_path)
    assert [file.kind for file in made] == ["sr"]
    with pytest.raises(SeriesError) as caught:
        results.make_results(context, found, ("presentation-state",), tmp_path)
    assert caught.value.reason == "mixed-rescale"


def test_key_slices_of_specks_are_left_out_and_said(tmp_path: Path) -> None:
    source = cases.series(phantoms.Phantom(shape=(2, 400, 400)))
    mask = np.zeros(source.volume.geometry.shape, np.uint8)
    mask[0, ::2, ::2] = 1
    context, found = cases.context(source), cases.findings(source, mask=mask)
    [said] = results.left_out(context, found, ("presentation-state", "sr"))
    assert said.startswith("no presentation-state: the mask is too ragged")
    assert "160000 points (at most 100000)" in said
    made = results.make_results(context, found, ("presentation-state", "sr"), tmp_path)
    assert [file.kind for file in made] == ["sr"]
    # What lies on other slices is not drawn
    mask[1, :300] = 1
    assert results.left_out(context, found, ("presentation-state", "sr")) == ()


@pytest.mark.parametrize("slope", ["0.87716727716728", "1.2345678901e-05", "3", "0.1"])
def test_any_rescaling_reads_back_as_the_source_has_it(slope: str, tmp_path: Path) -> None:
    source = series(RescaleSlope=slope, RescaleIntercept="-1234.567890123")
    ds = make(tmp_path, cases.findings(source), source)
    assert (ds.RescaleSlope, ds.RescaleIntercept) == (float(slope), -1234.567890123)


def test_images_without_rescaling_have_one(tmp_path: Path) -> None:
    headers = phantoms.datasets(PHANTOM)
    for ds in headers:
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    source = cases.series(PHANTOM, headers)
    assert "RescaleSlope" not in make(tmp_path, cases.findings(source), source)


def test_nothing_segmented_makes_none(tmp_path: Path) -> None:
    nothing = cases.findings(SOURCE, mask=np.zeros(PHANTOM.shape, np.uint8))
    assert results.make_results(cases.context(SOURCE), nothing, ("presentation-state",), tmp_path) == []


def test_a_retry_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name)
    first, second = ((tmp_path / name / "presentation-state.dcm").read_bytes() for name in ("a", "b"))
    assert first == second


def graphic(ds: Dataset, layer: str = "SEGMENT_2") -> Dataset:
    found: Dataset = annotations(ds, layer)[0].GraphicObjectSequence[0]
    return found


def move(ds: Dataset, away: float) -> None:
    graphic(ds).GraphicData = [value + away for value in graphic(ds).GraphicData]


def drop_hole(ds: Dataset) -> None:
    for item in annotations(ds, "SEGMENT_1"):
        item.GraphicObjectSequence = item.GraphicObjectSequence[:1]


def swap(ds: Dataset) -> None:
    images = ds.ReferencedSeriesSequence[0].ReferencedImageSequence
    ds.ReferencedSeriesSequence[0].ReferencedImageSequence = images[::-1]


def elsewhere(ds: Dataset) -> None:
    item = annotations(ds, "SEGMENT_2")[0]
    item.ReferencedImageSequence[0].ReferencedSOPInstanceUID = SOURCE.datasets[3].SOPInstanceUID


def unmark(ds: Dataset) -> None:
    for item in annotations(ds, "NOTE"):
        item.TextObjectSequence[0].UnformattedTextValue = "verified"


def say(ds: Dataset) -> None:
    annotations(ds, "SEGMENT_1")[0].TextObjectSequence[0].UnformattedTextValue = "Left lung, 1 mL"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda ds: move(ds, -1), "do not enclose"),
        (lambda ds: move(ds, 1), "leaves the image"),
        (drop_hole, "do not enclose"),
        (swap, "not the key slices"),
        (elsewhere, "do not enclose"),
        (unmark, "not marked as not verified"),
        (say, "not its own"),
        (lambda ds: ds.GraphicAnnotationSequence.pop(), "what is annotated"),
        (lambda ds: ds.GraphicLayerSequence.pop(), "a layer that is not there"),
        (lambda ds: setattr(graphic(ds), "NumberOfGraphicPoints", 4), "not as many points"),
        (lambda ds: setattr(graphic(ds), "GraphicType", "INTERPOLATED"), "not a polyline"),
        (lambda ds: setattr(ds, "RescaleIntercept", 0), "rescaling"),
        (lambda ds: setattr(ds.SoftcopyVOILUTSequence[0], "WindowCenter", 50), "window of slice 4"),
        (lambda ds: ds.SoftcopyVOILUTSequence.pop(), "windows are not"),
        (
            lambda ds: setattr(
                ds.DisplayedAreaSelectionSequence[0], "DisplayedAreaBottomRightHandCorner", [9, 9]
            ),
            "not the whole image",
        ),
        (lambda ds: delattr(ds, "ContentLabel"), "ContentLabel is absent"),
    ],
)
def test_a_wrong_presentation_state_is_caught(
    damage: Callable[[Dataset], None], says: str, tmp_path: Path
) -> None:
    ds = make(tmp_path)
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    found = cases.findings(SOURCE, mask=blocks())
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), "presentation-state", cases.context(SOURCE), found, ())
