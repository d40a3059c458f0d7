"""Results of a multi-frame source: each names the frames that it is about, and each instance once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import files, references, verify
from dicom_node.results.context import ResultContext
from dicom_node.series import SeriesImages, read_series
from engines.findings import Findings
from tests.support import enhanced, phantoms
from tests.support import results as cases

PHANTOM = cases.LIES["double oblique"]

#: The same slices in one image, in two parts of one, and with a frame beside them that is set aside.
SOURCES = ("one image", "two parts", "with a localizer")


def images(name: str) -> list[Dataset]:
    slices = phantoms.datasets(PHANTOM)
    if name == "with a localizer":
        return [with_localizer(slices)]
    ds = enhanced.image(slices[::-1])
    return [ds] if name == "one image" else enhanced.split(ds, 7)


def with_localizer(slices: list[Dataset]) -> Dataset:
    """Its first frame is a localizer."""
    [scout] = phantoms.datasets(phantoms.Phantom(shape=(1, 32, 40), orientation=phantoms.CORONAL))
    ds = enhanced.image([scout, *slices])
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        kind = "VOLUME" if number else "LOCALIZER"
        group.CTImageFrameTypeSequence = [enhanced.item(FrameType=["ORIGINAL", "PRIMARY", kind, "NONE"])]
    return ds


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> SeriesImages:
    return read_series(phantoms.write(images(request.param), tmp_path / "images"))


def make(context: ResultContext, found: Findings, folder: Path) -> dict[str, Dataset]:
    made = results.make_results(context, found, cases.KINDS, folder)
    assert [file.problem for file in made] == [""] * len(cases.KINDS)
    return {file.kind: dcmread(file.path) for file in made}


def keys(source: SeriesImages, slices: list[int]) -> list[tuple[str, int]]:
    """Instance and frame of the slices, found by their place in the source's own files."""
    return [(ds.SOPInstanceUID, ds.frame_number) for ds in (source.datasets[index] for index in slices)]  # type: ignore[attr-defined]


def test_every_frame_of_a_segmentation_names_the_frame_that_it_lies_on(
    source: SeriesImages, tmp_path: Path
) -> None:
    made = make(cases.context(source), cases.findings(source), tmp_path)
    places = {
        tuple(np.round([float(value) for value in ds.ImagePositionPatient], 3)): key
        for ds, key in zip(source.datasets, keys(source, list(range(12))), strict=True)
    }
    for kind in ("seg", "labelmap"):
        groups = made[kind].PerFrameFunctionalGroupsSequence
        assert len(groups) > 7
        for group in groups:
            [image] = group.DerivationImageSequence[0].SourceImageSequence
            position = group.PlanePositionSequence[0].ImagePositionPatient
            assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == places[
                tuple(np.round([float(value) for value in position], 3))
            ]


def test_every_instance_is_named_once(source: SeriesImages, tmp_path: Path) -> None:
    made = make(cases.context(source), cases.findings(source), tmp_path)
    uids = list(dict.fromkeys(str(ds.SOPInstanceUID) for ds in source.datasets))
    for kind in ("seg", "labelmap"):
        [series] = made[kind].ReferencedSeriesSequence
        assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == uids
        assert [item.ReferencedSOPInstanceUID for item in made[kind].SourceImageSequence] == uids
    for kind in ("sr", "key-objects"):
        evidence = references.read(made[kind], "CurrentRequestedProcedureEvidenceSequence")
        listed = [reference[-1] for reference in evidence]
        assert len(listed) == len(set(listed))
        assert kind == "key-objects" or set(uids) <= set(listed)


def test_references_have_the_source_s_own_class(source: SeriesImages, tmp_path: Path) -> None:
    uids = {str(ds.SOPInstanceUID) for ds in source.datasets}
    for ds in make(cases.context(source), cases.findings(source), tmp_path).values():
        found = [item for item in every_item(ds) if str(item.get("ReferencedSOPInstanceUID")) in uids]
        assert found
        assert {item.ReferencedSOPClassUID for item in found} == {EnhancedCTImageStorage}


def every_item(ds: Dataset) -> Iterator[Dataset]:
    for element in ds:
        for item in element.value if element.VR == "SQ" else ():
            yield item
            yield from every_item(item)


def test_frames_that_are_not_part_of_the_volume_are_not_named(tmp_path: Path) -> None:
    source = read_series(phantoms.write(images("with a localizer"), tmp_path / "images"))
    made = make(cases.context(source), cases.findings(source), tmp_path)
    [item] = made["seg"].SourceImageSequence
    assert list(item.ReferencedFrameNumber) == list(range(2, 14))
    # Where all frames are meant, none is named (PS3.3 Table 10-3).
    source = read_series(phantoms.write(images("one image"), tmp_path / "all"))
    made = make(cases.context(source), cases.findings(source), tmp_path)
    assert "ReferencedFrameNumber" not in made["seg"].SourceImageSequence[0]


def test_key_images_and_key_objects_name_their_frames(source: SeriesImages, tmp_path: Path) -> None:
    made = make(cases.context(source), cases.findings(source), tmp_path)
    expected = keys(source, [2, 4])
    named = made["key-images"].SourceImageSequence
    assert [(item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) for item in named] == expected
    selected = [
        item.ReferencedSOPSequence[0]
        for item in made["key-objects"].ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert [(item.ReferencedSOPInstanceUID, item.get("ReferencedFrameNumber")) for item in selected[:2]] == (
        expected
    )
    assert not any("ReferencedFrameNumber" in item for item in selected[2:])


def test_a_reader_of_others_finds_the_mask(source: SeriesImages, tmp_path: Path) -> None:
    found = cases.findings(source)
    make(cases.context(source), found, tmp_path)
    geometry = source.volume.geometry
    grid = highdicom.Volume(
        array=source.volume.array,
        affine=geometry.affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=geometry.frame_of_reference_uid,
    )
    for kind in ("seg", "labelmap"):
        volume = highdicom.seg.segread(tmp_path / f"{kind}.dcm").get_volume(combine_segments=True)
        assert np.array_equal(volume.match_geometry(grid).array, found.mask)


def test_a_reader_of_others_finds_the_source_frames(tmp_path: Path) -> None:
    """highdicom's own index of a Segmentation knows which frame of which source is which."""
    source = read_series(phantoms.write(images("one image"), tmp_path / "images"))
    found = cases.findings(source)
    make(cases.context(source), found, tmp_path)
    read = highdicom.seg.segread(tmp_path / "seg.dcm")
    slices = [index for index, plane in enumerate(found.mask) if plane.any()]
    numbers = [number for _, number in keys(source, slices)]
    pixels = read.get_pixels_by_source_frame(
        source.datasets[0].SOPInstanceUID, numbers, combine_segments=True
    )
    assert np.array_equal(pixels, found.mask[slices])


def test_the_same_job_makes_the_same_bytes(source: SeriesImages, tmp_path: Path) -> None:
    found = cases.findings(source)
    for folder in ("first", "second"):
        make(cases.context(source), found, tmp_path / folder)
    for kind in cases.KINDS:
        first, second = ((tmp_path / folder / f"{kind}.dcm").read_bytes() for folder in ("first", "second"))
        assert first == second


def test_classic_images_that_call_themselves_enhanced(tmp_path: Path) -> None:
    """Some converters keep the class and drop the frames."""
    slices = phantoms.datasets(PHANTOM)
    for ds in slices:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    source = read_series(phantoms.write(slices, tmp_path / "images"))
    made = make(cases.context(source), cases.findings(source), tmp_path)
    assert [item.ReferencedSOPInstanceUID for item in made["seg"].SourceImageSequence] == [
        ds.SOPInstanceUID for ds in source.datasets
    ]


def segmentation_of_another_frame(ds: Dataset) -> None:
    image = ds.PerFrameFunctionalGroupsSequence[3].DerivationImageSequence[0].SourceImageSequence[0]
    image.ReferencedFrameNumber = 1 + image.ReferencedFrameNumber % 12


def segmentation_of_no_frame(ds: Dataset) -> None:
    image = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    del image.ReferencedFrameNumber


def segmentation_of_two_frames(ds: Dataset) -> None:
    image = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    image.ReferencedFrameNumber = [image.ReferencedFrameNumber, 1]


def instance_named_twice(ds: Dataset) -> None:
    ds.SourceImageSequence.append(ds.SourceImageSequence[0])


def referenced_instance_twice(ds: Dataset) -> None:
    items = ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    items.append(items[0])


def picture_of_another_frame(ds: Dataset) -> None:
    ds.SourceImageSequence[0].ReferencedFrameNumber = 1


def selected_frames(ds: Dataset) -> None:
    for item in ds.ContentSequence:
        if item.ValueType == "IMAGE":
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = 1


def evidence_twice(ds: Dataset) -> None:
    instances = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    instances.ReferencedSOPSequence.append(instances.ReferencedSOPSequence[0])


WRONG: dict[str, tuple[str, Callable[[Dataset], None]]] = {
    "another frame": ("seg", segmentation_of_another_frame),
    "another frame's labels": ("labelmap", segmentation_of_another_frame),
    "no frame": ("seg", segmentation_of_no_frame),
    "two frames": ("seg", segmentation_of_two_frames),
    "an instance twice": ("seg", instance_named_twice),
    "a referenced instance twice": ("labelmap", referenced_instance_twice),
    "a picture of another frame": ("key-images", picture_of_another_frame),
    "a selection of other frames": ("key-objects", selected_frames),
    "evidence twice": ("sr", evidence_twice),
    "evidence of the selection twice": ("key-objects", evidence_twice),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_gate_holds_what_names_other_frames(name: str, tmp_path: Path) -> None:
    kind, change = WRONG[name]
    source = read_series(phantoms.write(images("one image"), tmp_path / "images"))
    context, found = cases.context(source), cases.findings(source)
    ds = make(context, found, tmp_path)[kind]
    change(ds)
    files.write(ds, tmp_path / "changed.dcm")
    before = cases.KINDS[: cases.KINDS.index(kind)]
    with pytest.raises(GateError):
        verify.check((tmp_path / "changed.dcm").read_bytes(), kind, context, found, before)
