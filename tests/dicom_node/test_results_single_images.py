"""Every kind of result on single images: where the frames lie, what is said, and what the gate catches."""

from __future__ import annotations

from collections.abc import Callable
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
from dicom_node.results import ResultContext, files, verify
from dicom_node.series import read_series
from engines.findings import Findings
from tests.support import phantoms, planar
from tests.support import results as cases

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

#: The modalities whose images have no place in the patient.
UNPLACED = [name for name in planar.ALL if name != "CT"]
IMPOSSIBLE = ("Area (square millimeter) cannot be measured: the image does not say how large its pixels are",)


def mask() -> NDArray[np.uint8]:
    """Three regions of unlike size, unlike in both directions."""
    labels = np.zeros((1, planar.ROWS, planar.COLUMNS), np.uint8)
    labels[0, 12:30, 14:33] = 1
    labels[0, 20:24, 50:72] = 2
    labels[0, 40:51, 20:27] = 3
    return labels


def case(
    ds: Dataset, folder: Path, labels: NDArray[np.uint8] | None = None
) -> tuple[ResultContext, Findings]:
    """A context and findings about this image, as read from disk."""
    source = read_series(phantoms.write([ds], folder), planar=True)
    found = cases.findings(source, mask=mask() if labels is None else labels, impossible=IMPOSSIBLE)
    return cases.context(source), found


def make(modality: str, folder: Path) -> dict[str, Dataset]:
    """All results, as they are on disk."""
    context, found = case(planar.ALL[modality](), folder / "source")
    made = results.make_results(context, found, results.KINDS, folder)
    assert [item.problem for item in made] == [""] * len(made)
    return {item.kind: dcmread(item.path) for item in made}


@pytest.mark.parametrize("modality", planar.ALL)
def test_every_kind_is_made_or_said_to_be_left_out(modality: str, tmp_path: Path) -> None:
    context, found = case(planar.ALL[modality](), tmp_path / "source")
    made = results.make_results(context, found, results.KINDS, tmp_path)
    left_out = [
        line.removeprefix("no ").split(": ")[0] for line in results.left_out(context, found, results.KINDS)
    ]
    needs_a_place = ["rtstruct", "parametric-map"] if modality in UNPLACED else []
    shown_otherwise = ["presentation-state"] if modality in ("CR", "DX", "US", "OP", "SC") else []
    assert left_out == [kind for kind in cases.KINDS if kind in (*needs_a_place, *shown_otherwise)]
    assert {item.kind: item.problem for item in made} == {
        kind: "" for kind in cases.KINDS if kind not in left_out
    }


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
@pytest.mark.parametrize("modality", UNPLACED)
def test_a_frame_lies_on_its_source_image_and_claims_no_place(
    modality: str, kind: str, tmp_path: Path
) -> None:
    ds = make(modality, tmp_path)[kind]
    [source] = [dcmread(path) for path in (tmp_path / "source").iterdir()]
    assert "FrameOfReferenceUID" not in ds
    assert (ds.Rows, ds.Columns) == (source.Rows, source.Columns)
    shared = ds.SharedFunctionalGroupsSequence[0]
    assert "PlaneOrientationSequence" not in shared and "PixelMeasuresSequence" not in shared
    for group in ds.PerFrameFunctionalGroupsSequence:
        assert "PlanePositionSequence" not in group and "PixelMeasuresSequence" not in group
        [derivation] = group.DerivationImageSequence
        [image] = derivation.SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.ReferencedSOPClassUID == source.SOPClassUID
        assert image.SpatialLocationsPreserved == "YES"
        # As many indices as there are dimensions (PS3.3 C.7.6.17.1)
        indices = np.atleast_1d(group.FrameContentSequence[0].DimensionIndexValues)
        assert len(indices) == len(ds.DimensionIndexSequence)
    assert [item.ReferencedSOPClassUID for item in ds.SourceImageSequence] == [source.SOPClassUID]


@pytest.mark.parametrize("modality", planar.ALL)
def test_highdicom_reads_the_mask_from_both(modality: str, tmp_path: Path) -> None:
    make(modality, tmp_path)
    [source] = [dcmread(path) for path in (tmp_path / "source").iterdir()]
    for kind in ("seg", "labelmap"):
        read = highdicom.seg.segread(tmp_path / f"{kind}.dcm")
        array = read.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)
        np.testing.assert_array_equal(np.asarray(array), mask())


def test_a_slice_of_a_scan_keeps_its_place_and_says_no_thickness_that_nobody_knows(tmp_path: Path) -> None:
    ds = planar.ct()
    del ds.SliceThickness
    context, found = case(ds, tmp_path / "source")
    [made] = results.make_results(context, found, ("seg",), tmp_path)
    assert made.verified, made.problem
    seg = dcmread(made.path)
    assert seg.FrameOfReferenceUID == ds.FrameOfReferenceUID
    assert seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient == list(
        ds.ImagePositionPatient
    )
    assert "SliceThickness" not in seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


def test_the_report_says_what_cannot_be_measured(tmp_path: Path) -> None:
    report = make("OP", tmp_path)["sr"]
    assert f"{IMPOSSIBLE[0]}." in comments(report)


def comments(item: Dataset) -> list[str]:
    """Every text of a report."""
    own = [str(item.TextValue)] if item.get("ValueType") == "TEXT" else []
    return own + [text for child in item.get("ContentSequence") or () for text in comments(child)]


# Key images ---------------------------------------------------------------------------------------


def shown(ds: Dataset) -> NDArray[np.float64]:
    """The grey of a key image's picture, brought back to the source's pixels."""
    picture = ds.pixel_array[:, :-288, 1].astype(np.float64)
    rows = (np.arange(planar.ROWS) + 0.5) * picture.shape[0] / planar.ROWS
    columns = (np.arange(planar.COLUMNS) + 0.5) * picture.shape[1] / planar.COLUMNS
    return picture[np.ix_(rows.astype(int), columns.astype(int))]


@pytest.mark.parametrize(
    ("modality", "body", "block"),
    [
        # Stored value x 4 or x 16 in the header's window, turned over; then as they are.
        ("CR", 255 * (1 - (400 - 50) / 700), 255 * (1 - (720 - 50) / 700)),
        ("DX", 255 * (1 - (1600 - 500) / 3000), 255 * (1 - (2880 - 500) / 3000)),
        ("MG", 255 * (1600 - 500) / 3000, 255 * (2880 - 500) / 3000),
        ("US", 100, 180),
    ],
)
def test_a_key_image_looks_like_the_image_beside_it(
    modality: str, body: float, block: float, tmp_path: Path
) -> None:
    grey = shown(make(modality, tmp_path)["key-images"])
    assert grey[52, 70] == pytest.approx(body, abs=2)
    assert grey[11, 20] == pytest.approx(block, abs=2)


def test_a_key_image_is_named_by_its_image_alone(tmp_path: Path) -> None:
    ds = make("MG", tmp_path)["key-images"]
    assert ds.SOPClassUID.name == "Secondary Capture Image Storage"
    assert ds.ImageLaterality == "L" and "Laterality" not in ds


@pytest.mark.parametrize(("said", "kept"), [("YES", "YES"), ("NO", "NO"), (None, None)])
def test_what_is_burned_into_the_source_is_burned_into_the_key_image(
    said: str | None, kept: str | None, tmp_path: Path
) -> None:
    ds = planar.us()
    if said is None:
        del ds.BurnedInAnnotation
    else:
        ds.BurnedInAnnotation = said
    context, found = case(ds, tmp_path / "source")
    [made] = results.make_results(context, found, ("key-images",), tmp_path)
    assert made.verified, made.problem
    assert dcmread(made.path).get("BurnedInAnnotation") == kept


# The gate -----------------------------------------------------------------------------------------


def test_the_same_job_makes_the_same_bytes(tmp_path: Path) -> None:
    context, found = case(planar.dx(), tmp_path / "source")
    for name in ("first", "second"):
        results.make_results(context, found, results.KINDS, tmp_path / name)
    for path in (tmp_path / "first").glob("*.dcm"):
        first, second = (tmp_path / name / path.name for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def place(ds: Dataset) -> None:
    item = Dataset()
    item.ImagePositionPatient = [0, 0, 0]
    ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = [item]


def elsewhere(ds: Dataset) -> None:
    source = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "1.2.3"


def unpreserved(ds: Dataset) -> None:
    source = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.SpatialLocationsPreserved = "NO"


def measured(ds: Dataset) -> None:
    item = Dataset()
    item.PixelSpacing = [0.2, 0.25]
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [item]


def reclassed(ds: Dataset) -> None:
    source = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"


def framed(ds: Dataset) -> None:
    ds.FrameOfReferenceUID = "1.2.3"


def turned(ds: Dataset) -> None:
    ds.Rows, ds.Columns = ds.Columns, ds.Rows


DAMAGES: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "a place": (place, "claim a place or a size"),
    "another image": (elsewhere, "names another source image"),
    "not pixel on pixel": (unpreserved, "pixel on pixel"),
    "a size": (measured, "claim a place or a size"),
    "another class": (reclassed, "by another class"),
    "a frame of reference": (framed, "FrameOfReferenceUID is not the source's"),
    "turned": (turned, "84 x 62 pixels, the mask has 62 x 84"),
}


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_gate_catches(damage: str, kind: str, tmp_path: Path) -> None:
    context, found = case(planar.dx(), tmp_path / "source")
    results.make_results(context, found, (kind,), tmp_path)
    ds = dcmread(tmp_path / f"{kind}.dcm")
    verify.check(written(ds, tmp_path), kind, context, found, ())
    change, words = DAMAGES[damage]
    change(ds)
    with pytest.raises(GateError, match=words):
        verify.check(written(ds, tmp_path), kind, context, found, ())


def written(ds: Dataset, folder: Path) -> bytes:
    """The object as it would be on disk."""
    files.write(ds, folder / "changed.dcm")
    return (folder / "changed.dcm").read_bytes()


@pytest.mark.parametrize("kind", ["seg", "labelmap", "key-images"])
@pytest.mark.parametrize("axis", [1, 2])
def test_the_gate_catches_a_flipped_mask(kind: str, axis: int, tmp_path: Path) -> None:
    context, found = case(planar.us(), tmp_path / "source")
    results.make_results(context, found, (kind,), tmp_path)
    other = cases.findings(context.source, mask=np.flip(mask(), axis), impossible=IMPOSSIBLE)
    with pytest.raises(GateError):
        verify.check((tmp_path / f"{kind}.dcm").read_bytes(), kind, context, other, ())


def test_the_objects_read_back_without_their_files(tmp_path: Path) -> None:
    make("SC", tmp_path)
    raw = (tmp_path / "seg.dcm").read_bytes()
    assert dcmread(BytesIO(raw)).NumberOfFrames == 3


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_specks_of_an_image_larger_than_its_picture_are_shown(factor: int, tmp_path: Path) -> None:
    rows, columns = 700 * factor, 500 * factor
    pixels = np.zeros((rows, columns), np.uint8)
    pixels[::7] = 90
    labels = np.zeros((1, rows, columns), np.uint8)
    # Single pixels are what reaches furthest
    labels[0, 300, 11] = labels[0, 61, 255] = labels[0, rows - 13, 300] = labels[0, 400, columns - 9] = 1
    context, found = case(planar.grey(planar.sc(), pixels, bits=8), tmp_path / "source", labels)
    [made] = results.make_results(context, found, ("key-images",), tmp_path)
    assert made.verified, made.problem
    picture = dcmread(made.path).pixel_array[:, :-288]
    assert max(picture.shape[:2]) == min(max(700 * factor, 512), 1024)
    colour = np.array(found.segments[0].colour)
    assert np.count_nonzero((picture == colour).all(axis=2)) >= 4
