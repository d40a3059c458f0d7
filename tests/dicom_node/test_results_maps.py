"""Probability maps as Parametric Map and FRACTIONAL Segmentation: every number at its point, and called what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import verify
from dicom_node.series import SeriesImages
from engines.errors import OutputError
from engines.findings import Code, Findings, Map
from tests.support import phantoms
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["not bytewise"])
SHAPE = SOURCE.volume.geometry.shape
KINDS = ("parametric-map", "fractional")


def several(source: SeriesImages = SOURCE, *numbers: int) -> Findings:
    """Maps of these segments; of the first and the third where none is named."""
    shape = source.volume.geometry.shape
    maps = tuple(cases.probability(shape, number) for number in numbers or (1, 3))
    return cases.findings(source, maps=maps)


def make(folder: Path, kind: str, found: Findings, source: SeriesImages = SOURCE) -> Dataset:
    """The object as it is on disk."""
    [made] = results.make_results(cases.context(source), found, (kind,), folder)
    assert made.verified, made.problem
    return dcmread(made.path)


def located(array: NDArray[np.float64], affine: NDArray[np.float64]) -> dict[tuple[int, ...], float]:
    """What is not zero, by its point in the patient in hundredths of a millimetre."""
    index = np.argwhere(array)
    at = np.rint((index @ affine[:3, :3].T + affine[:3, 3]) * 100).astype(int)
    return dict(zip(map(tuple, at.tolist()), array[tuple(index.T)].tolist(), strict=True))


@pytest.mark.parametrize("lie", cases.LIES)
def test_a_reader_of_others_finds_every_number_of_the_map(lie: str, tmp_path: Path) -> None:
    source = cases.series(cases.LIES[lie])
    found = cases.findings(source)
    make(tmp_path, "parametric-map", found, source)
    volume = highdicom.imread(tmp_path / "parametric-map.dcm").get_volume(apply_real_world_transform=True)
    assert located(volume.array, volume.affine) == located(found.maps[0].array, source.volume.geometry.affine)


@pytest.mark.parametrize("lie", cases.LIES)
def test_a_reader_of_others_finds_every_probability(lie: str, tmp_path: Path) -> None:
    source = cases.series(cases.LIES[lie])
    found = several(source)
    make(tmp_path, "fractional", found, source)
    read = highdicom.seg.segread(tmp_path / "fractional.dcm")
    volume = read.get_volume(segment_numbers=[1, 3], rescale_fractional=True)
    for channel, item in enumerate(found.maps):
        seen = located(volume.array[..., channel], volume.affine)
        wanted = located(np.rint(item.array * 255) / 255, source.volume.geometry.affine)
        assert seen.keys() == wanted.keys()
        assert np.allclose(list(seen.values()), [wanted[point] for point in seen], atol=1e-6)


def test_the_map_says_what_it_is(tmp_path: Path) -> None:
    ds = make(tmp_path, "parametric-map", cases.findings(SOURCE))
    shared = ds.SharedFunctionalGroupsSequence[0]
    [mapping] = shared.RealWorldValueMappingSequence
    assert (mapping.LUTLabel, mapping.LUTExplanation) == ("PROBABLE", "Probability of Left lung")
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Probability"
    assert (shared.FrameVOILUTSequence[0].WindowCenter, shared.FrameVOILUTSequence[0].WindowWidth) == (0.5, 1)
    assert ds.SeriesDescription == "AI unverified (research): probability, Left lung, chest-ct 1.0.0"
    assert ds.ContentQualification == "RESEARCH"
    # Two slices at the end hold nothing
    assert ds.NumberOfFrames == SHAPE[0] - 2


def test_slices_between_are_there_although_they_show_nothing(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.float32)
    array[2, 3, 4], array[3, 3, 4], array[5, 3, 4], array[7, 1, 1] = 0.5, 0.004, 1, 0.009
    found = cases.findings(SOURCE, maps=(replace(cases.probability(SHAPE), array=array),))
    ds = make(tmp_path, "parametric-map", found)
    # To the slice where the last number of one percent is, without a gap: readers expect even steps
    assert ds.NumberOfFrames == 4
    numbers = np.frombuffer(ds.FloatPixelData, "<f4").reshape(4, *SHAPE[1:])
    assert np.array_equal(numbers, array[2:6])


def test_a_fraction_of_a_step_has_no_frame(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.float32)
    array[2, 3, 4], array[4, 3, 4], array[6, 1, 1] = 0.5, 0.0021, 0.0019
    found = cases.findings(SOURCE, maps=(replace(cases.probability(SHAPE), array=array),))
    ds = make(tmp_path, "fractional", found)
    assert ds.pixel_array.max(axis=(1, 2)).tolist() == [1, 128]


def test_other_numbers_keep_their_unit_and_range(tmp_path: Path) -> None:
    # Given a map that is of no segment, with numbers below zero
    heat = Map(
        key="heat",
        name=Code(value="99901", scheme="99TEST", meaning="Saliency"),
        unit=cases.HOUNSFIELD,
        segment_number=None,
        array=cases.probability(SHAPE).array * np.float32(-700),
    )
    found = cases.findings(SOURCE, maps=(heat,))
    [mapping] = (
        make(tmp_path, "parametric-map", found)
        .SharedFunctionalGroupsSequence[0]
        .RealWorldValueMappingSequence
    )
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == float(heat.array.min())
    # Then it is no probability, and no Segmentation
    assert results.make_results(cases.context(SOURCE), found, ("fractional",), tmp_path / "none") == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_map_or_in_an_empty_one_there_is_none(kind: str, tmp_path: Path) -> None:
    nothing = replace(cases.probability(SHAPE), array=np.zeros(SHAPE, np.float32))
    for maps in ((), (nothing,)):
        found = cases.findings(SOURCE, maps=maps)
        assert results.make_results(cases.context(SOURCE), found, (kind,), tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_a_frame_of_reference_have_none(kind: str, tmp_path: Path) -> None:
    headers = phantoms.datasets(cases.LIES["axial"])
    for ds in headers:
        del ds.FrameOfReferenceUID
    source = cases.series(cases.LIES["axial"], headers)
    [said] = results.left_out(cases.context(source), cases.findings(source), (kind, "sr"))
    assert said.startswith(f"no {kind}: the source images have no Frame of Reference")


@pytest.mark.parametrize("kind", KINDS)
def test_a_retry_makes_the_same_bytes(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, kind, several())
    first, second = ((tmp_path / name / f"{kind}.dcm").read_bytes() for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_what_is_no_probability_makes_no_map(value: float) -> None:
    array = np.full(SHAPE, 0.5, np.float32)
    array[3, 4, 5] = value
    with pytest.raises(OutputError, match='map "probable" has'):
        replace(cases.probability(SHAPE), array=array)


def test_a_map_lies_on_the_grid_and_its_segment_is_there() -> None:
    with pytest.raises(OutputError, match="differ in shape"):
        cases.findings(SOURCE, maps=(cases.probability((3, 29, 37)),))
    with pytest.raises(OutputError, match="segment 4, which is not there"):
        cases.findings(SOURCE, maps=(cases.probability(SHAPE, 4),))
    with pytest.raises(OutputError, match="float64, not float32"):
        replace(cases.probability(SHAPE), array=np.zeros(SHAPE))


def change_number(ds: Dataset) -> None:
    numbers = np.frombuffer(ds.FloatPixelData, "<f4").copy()
    numbers[1000] += 1e-6
    ds.FloatPixelData = numbers.tobytes()


def mapping_of(ds: Dataset) -> Dataset:
    found: Dataset = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    return found


def move(ds: Dataset) -> None:
    group = ds.PerFrameFunctionalGroupsSequence[0]
    group.PlanePositionSequence[0].ImagePositionPatient[2] += 5.0


def drop_frame(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence.pop()


def encode(ds: Dataset, numbers: NDArray[np.uint8]) -> None:
    ds.NumberOfFrames = len(numbers)
    ds.compress(
        ds.file_meta.TransferSyntaxUID, numbers, encoding_plugin="pylibjpeg", generate_instance_uid=False
    )


def step(ds: Dataset) -> None:
    encode(ds, ds.pixel_array + (ds.pixel_array == ds.pixel_array.max()).astype(np.uint8))


def lose(ds: Dataset) -> None:
    drop_frame(ds)
    encode(ds, ds.pixel_array[:-1].copy())


def swap(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        item = group.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = 4 - item.ReferencedSegmentNumber


def to_unused(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2


@pytest.mark.parametrize(
    ("kind", "damage", "says"),
    [
        ("parametric-map", change_number, "numbers differ"),
        ("parametric-map", move, "not on the mask's grid|another source image"),
        ("parametric-map", drop_frame, "slices that the map spans"),
        ("parametric-map", lambda ds: setattr(mapping_of(ds), "RealWorldValueSlope", 2.0), "rescaled"),
        ("parametric-map", lambda ds: setattr(mapping_of(ds), "LUTExplanation", "Spleen"), "of"),
        (
            "parametric-map",
            lambda ds: setattr(mapping_of(ds).MeasurementUnitsCodeSequence[0], "CodeValue", "%"),
            "name or unit",
        ),
        (
            "parametric-map",
            lambda ds: setattr(mapping_of(ds), "DoubleFloatRealWorldValueLastValueMapped", 2.0),
            "range",
        ),
        ("parametric-map", lambda ds: setattr(ds, "FrameOfReferenceUID", "2.25.5"), "FrameOfReferenceUID"),
        ("fractional", step, "differs from its map"),
        ("fractional", lose, "missing on slice"),
        ("fractional", swap, "differs from its map|the same"),
        ("fractional", to_unused, "the same, or a frame"),
        ("fractional", move, "not on the mask's grid|another source image"),
        ("fractional", lambda ds: setattr(ds, "MaximumFractionalValue", 254), "said to be"),
        ("fractional", lambda ds: setattr(ds, "SegmentationFractionalType", "OCCUPANCY"), "said to be"),
    ],
)
def test_wrong_numbers_are_caught(
    kind: str, damage: Callable[[Dataset], None], says: str, tmp_path: Path
) -> None:
    ds = make(tmp_path, kind, several())
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), kind, cases.context(SOURCE), several(), ())
