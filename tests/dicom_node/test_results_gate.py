"""The gate: whatever is wrong with an object, it is caught before it leaves."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import ResultContext, content_tree, files, verify, verify_seg
from engines.findings import Findings
from tests.support import phantoms
from tests.support import results as cases


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResultContext, Findings, Path]:
    """Good results of every kind."""
    source = cases.series(cases.LIES["not bytewise"])
    labels = cases.mask(source.volume.geometry.shape)
    # The phantom's blocks are alike on every slice: one voxel more makes this slice unlike the rest.
    labels[3, 0, 0] = 2
    context, found = cases.context(source), cases.findings(source, mask=labels)
    folder = tmp_path_factory.mktemp("results")
    assert all(item.verified for item in results.make_results(context, found, results.KINDS, folder))
    return context, found, folder


def gate(
    made: tuple[ResultContext, Findings, Path], kind: str, damage: Callable[[Dataset], None] | None
) -> None:
    """Damage the object, write it, and let the gate look at it."""
    context, found, folder = made
    ds = dcmread(folder / f"{kind}.dcm")
    if damage is not None:
        damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    order = list(cases.KINDS)
    verify.check(buffer.getvalue(), kind, context, found, made=order[: order.index(kind)])


@pytest.mark.parametrize("kind", cases.KINDS)
def test_what_is_right_passes(made: tuple[ResultContext, Findings, Path], kind: str) -> None:
    gate(made, kind, None)


def repack(ds: Dataset, frames: list[np.ndarray]) -> None:
    """Put other frames into a Segmentation."""
    bits = np.concatenate([frame.ravel() for frame in frames]).astype(np.uint8)
    data = np.packbits(bits, bitorder="little").tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)


def frames(ds: Dataset) -> list[np.ndarray]:
    return [frame.copy() for frame in verify_seg.unpack(ds)]


def flip_rows(ds: Dataset) -> None:
    repack(ds, [frame[::-1] for frame in frames(ds)])


def flip_columns(ds: Dataset) -> None:
    repack(ds, [frame[:, ::-1] for frame in frames(ds)])


def toggle_one_voxel(ds: Dataset) -> None:
    changed = frames(ds)
    changed[-1][0, 0] ^= True
    repack(ds, changed)


def shift_the_pixels_by_a_frame(ds: Dataset) -> None:
    repack(ds, [*frames(ds)[1:], frames(ds)[0]])


def big_endian_bits(ds: Dataset) -> None:
    data = np.frombuffer(ds.PixelData, np.uint8)
    ds.PixelData = np.packbits(np.unpackbits(data, bitorder="little")).tobytes()


def cut_the_pixels(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:-40]


def move(ds: Dataset, millimetres: float) -> None:
    """Move every frame along the slices' axis."""
    for group in ds.PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0]
        x, y, z = position.ImagePositionPatient
        position.ImagePositionPatient = [x, y, z + millimetres]


def shift_by_a_slice(ds: Dataset) -> None:
    move(ds, 2.5)


def shift_by_a_quarter_of_a_slice(ds: Dataset) -> None:
    move(ds, 0.625)


def shift_by_half_a_slice(ds: Dataset) -> None:
    move(ds, 1.2)


def swap_slices_with_their_images(ds: Dataset) -> None:
    """Two frames of one segment trade places, source images included: only the voxels tell."""
    of_two = [
        group
        for group in ds.PerFrameFunctionalGroupsSequence
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2
    ]
    first, second = of_two[0], of_two[-1]
    for keyword in ("PlanePositionSequence", "DerivationImageSequence"):
        one, other = first[keyword].value, second[keyword].value
        setattr(first, keyword, list(other))
        setattr(second, keyword, list(one))


def mirror_the_orientation(ds: Dataset) -> None:
    orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def stretch_the_pixels(ds: Dataset) -> None:
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [0.7, 0.8]


def swap_segments(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        item = group.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = {1: 2, 2: 1, 3: 3}[item.ReferencedSegmentNumber]


def swap_labels(ds: Dataset) -> None:
    one, two = ds.SegmentSequence[0], ds.SegmentSequence[1]
    one.SegmentLabel, two.SegmentLabel = two.SegmentLabel, one.SegmentLabel


def swap_types(ds: Dataset) -> None:
    one, two = ds.SegmentSequence[0], ds.SegmentSequence[1]
    kinds = [list(item.SegmentedPropertyTypeCodeSequence) for item in (one, two)]
    one.SegmentedPropertyTypeCodeSequence, two.SegmentedPropertyTypeCodeSequence = kinds[1], kinds[0]


def lose_a_segment(ds: Dataset) -> None:
    del ds.SegmentSequence[2]


def lose_a_frame(ds: Dataset) -> None:
    kept = frames(ds)[:-1]
    del ds.PerFrameFunctionalGroupsSequence[-1]
    ds.NumberOfFrames = len(kept)
    repack(ds, kept)


def double_a_frame(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence.append(ds.PerFrameFunctionalGroupsSequence[0])
    ds.NumberOfFrames += 1
    repack(ds, [*frames_of(ds, ds.NumberOfFrames - 1), frames_of(ds, 1)[0]])


def frames_of(ds: Dataset, count: int) -> list[np.ndarray]:
    """The first frames."""
    number, ds.NumberOfFrames = ds.NumberOfFrames, count
    found = frames(ds)
    ds.NumberOfFrames = number
    return found


def name_another_image(ds: Dataset) -> None:
    groups = ds.PerFrameFunctionalGroupsSequence
    groups[0].DerivationImageSequence = list(groups[1].DerivationImageSequence)


def lose_the_functional_groups(ds: Dataset) -> None:
    del ds.SharedFunctionalGroupsSequence


def another_frame_of_reference(ds: Dataset) -> None:
    ds.FrameOfReferenceUID = "1.2.3"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_rows, "differs from the mask"),
        (flip_columns, "differs from the mask"),
        (toggle_one_voxel, "differs from the mask"),
        (shift_the_pixels_by_a_frame, "differs from the mask"),
        (big_endian_bits, "differs from the mask"),
        (swap_segments, "differs from the mask"),
        (swap_slices_with_their_images, "differs from the mask"),
        (cut_the_pixels, "shorter than its frames"),
        (shift_by_a_slice, "names another source image"),
        (shift_by_a_quarter_of_a_slice, r"frame 1 is 0\.625 mm off its source image"),
        (shift_by_half_a_slice, r"frame 1 is not on the mask's grid: 0\.4\d voxels"),
        (mirror_the_orientation, "not on the mask's grid"),
        (stretch_the_pixels, "not on the mask's grid"),
        (swap_labels, "segment 1 is described with another label"),
        (swap_types, "segment 1 is described with another label, code"),
        (lose_a_segment, r"segments \[1, 2\] instead of \[1, 2, 3\]"),
        (lose_a_frame, "are not in the object"),
        (double_a_frame, "two frames show the same segment"),
        (name_another_image, "names another source image"),
        (lose_the_functional_groups, "does not read back"),
        (another_frame_of_reference, "FrameOfReferenceUID"),
    ],
)
def test_a_wrong_segmentation_is_caught(
    made: tuple[ResultContext, Findings, Path], damage: Callable[[Dataset], None], says: str
) -> None:
    with pytest.raises(GateError, match=says):
        gate(made, "seg", damage)


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize(
    "keyword",
    [
        "PatientID",
        "PatientName",
        "AccessionNumber",
        "StudyInstanceUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
    ],
)
def test_an_object_of_somebody_else_is_caught(
    made: tuple[ResultContext, Findings, Path], kind: str, keyword: str
) -> None:
    def damage(ds: Dataset) -> None:
        setattr(ds, keyword, "1.2.3")

    with pytest.raises(GateError, match=keyword) as caught:
        gate(made, kind, damage)
    # The message goes to rows and logs: it names the attribute and never anybody's values.
    assert "PHANTOM" not in str(caught.value)


def items(ds: Dataset, value_type: str) -> list[Dataset]:
    """The report's content items of one value type, in order."""
    return [item for item in content_tree.walk(ds) if item.ValueType == value_type]


def change_a_value(ds: Dataset) -> None:
    measured = items(ds, "NUM")[0].MeasuredValueSequence[0]
    measured.NumericValue, measured.FloatingPointValue = "2345.7", 2345.7


def change_what_is_read(ds: Dataset) -> None:
    items(ds, "NUM")[0].MeasuredValueSequence[0].NumericValue = "234.568"


def change_a_unit(ds: Dataset) -> None:
    items(ds, "NUM")[0].MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "L"


def change_a_derivation(ds: Dataset) -> None:
    [derivation] = items(ds, "NUM")[1].ContentSequence
    derivation.ConceptCodeSequence[0].CodeMeaning = "Median"


def swap_sides(ds: Dataset) -> None:
    left, right, _ = (
        item for item in items(ds, "NUM") if item.ConceptNameCodeSequence[0].CodeMeaning == "Volume"
    )
    left.MeasuredValueSequence, right.MeasuredValueSequence = (
        list(right.MeasuredValueSequence),
        list(left.MeasuredValueSequence),
    )


def say_present(ds: Dataset) -> None:
    [statement] = [
        item for item in items(ds, "CODE") if "emphysema" in item.ConceptNameCodeSequence[0].CodeMeaning
    ]
    statement.ConceptCodeSequence[0].CodeValue = "52101004"


def change_the_words(ds: Dataset) -> None:
    [words] = [item for item in items(ds, "TEXT") if item.TextValue == "LAA-950 8.4 % (threshold 10 %)"]
    words.TextValue = "LAA-950 84 % (threshold 10 %)"


def change_the_report_in_words(ds: Dataset) -> None:
    [words] = [item for item in items(ds, "TEXT") if item.TextValue == "Volume, Left lung: 2346 mL"]
    words.TextValue = "Volume, Left lung: 2436 mL"


def refer_to_another_segment(ds: Dataset) -> None:
    items(ds, "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def refer_to_another_segmentation(ds: Dataset) -> None:
    items(ds, "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def lose_a_group(ds: Dataset) -> None:
    container = next(item for item in items(ds, "CONTAINER") if len(content_tree.children(item)) == 4)
    del container.ContentSequence[0]


def lose_an_evidence(ds: Dataset) -> None:
    [study] = ds.CurrentRequestedProcedureEvidenceSequence
    del study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]


def claim_verification(ds: Dataset) -> None:
    ds.VerificationFlag = "VERIFIED"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (change_a_value, "numbers, units or derivations"),
        (change_what_is_read, "Volume: Numeric Value and Floating Point Value differ"),
        (change_a_unit, "numbers, units or derivations"),
        (change_a_derivation, "numbers, units or derivations"),
        (swap_sides, "numbers of chest-ct/1 Left lung are not its own"),
        (say_present, "statements are not the findings'"),
        (change_the_words, "words of chest-ct/emphysema are not its own"),
        (change_the_report_in_words, "report in words"),
        (refer_to_another_segment, "chest-ct/1 Left lung refers to another segment"),
        (refer_to_another_segmentation, "chest-ct/1 Left lung refers to another segment"),
        (lose_a_group, "numbers, units or derivations"),
        (lose_an_evidence, "evidence"),
        (claim_verification, "UNVERIFIED"),
    ],
)
def test_a_wrong_report_is_caught(
    made: tuple[ResultContext, Findings, Path], damage: Callable[[Dataset], None], says: str
) -> None:
    with pytest.raises(GateError, match=says):
        gate(made, "sr", damage)


def test_images_of_two_patients_carry_no_result(tmp_path: Path) -> None:
    headers = phantoms.datasets(cases.LIES["axial"])
    headers[5].PatientID = "PHANTOM-2"
    source = cases.series(cases.LIES["axial"], headers)
    made = results.make_results(cases.context(source), cases.findings(source), ("seg", "sr"), tmp_path)
    assert [item.verified for item in made] == [False, False]
    assert "the source images differ in PatientID" in made[0].problem


def test_bytes_that_are_no_dicom_are_caught(made: tuple[ResultContext, Findings, Path]) -> None:
    context, found, _ = made
    with pytest.raises(GateError, match="does not read back"):
        verify.check(b"not DICOM" * 100, "seg", context, found, made=("seg",))


def test_a_failed_object_is_kept_and_holds_its_report_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that turns one bit of the Segmentation
    whole = files.write

    def turning(ds: Dataset, path: Path) -> None:
        if path.name == "seg.dcm":
            toggle_one_voxel(ds)
        whole(ds, path)

    monkeypatch.setattr(files, "write", turning)
    # When results are made
    source = cases.series(cases.LIES["axial"])
    segmentation, report = results.make_results(
        cases.context(source), cases.findings(source), ("seg", "sr"), tmp_path
    )
    # Then both files are there, neither may leave, and both say why
    assert segmentation.path.exists() and report.path.exists()
    assert (segmentation.verified, report.verified) == (False, False)
    assert "differs from the mask" in segmentation.problem
    assert report.problem == "it refers to seg, which failed the read-back"
