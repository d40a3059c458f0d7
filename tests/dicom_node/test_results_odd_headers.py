"""Headers that real senders send and no rule allows: results land in the study all the same, or an error says why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from highdicom import _standard_utils as tables
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from dicom_node import results
from dicom_node.errors import SeriesError
from dicom_node.results import references
from dicom_node.series import read_series
from tests.support import phantoms
from tests.support import results as cases

KINDS = ("seg", "sr", "pdf", "key-images", "key-objects", "sr-display")
SMALL = phantoms.Phantom(shape=(4, 16, 16), spacing=(5.0, 3.0, 3.0))

#: As in real data: a component of a UID that begins with a zero (PS3.5 9.1 forbids it).
STUDY, SERIES = "1.2.826.0.1.3680043.9.007.1", "1.2.826.0.1.3680043.9.007.2"

#: Retired ultrasound, ultrasound multi-frame and nuclear medicine, a private class, and no UID at all.
CLASSES = (
    "1.2.840.10008.5.1.4.1.1.6",
    "1.2.840.10008.5.1.4.1.1.3",
    "1.2.840.10008.5.1.4.1.1.5",
    "1.2.826.0.1.3680043.2.1143.9999",
    "1.2.03.4",
)

#: Two values; an empty and an other; nothing; too long; letters where no letters belong; out of range; other bytes.
ODD = (b"1\\2 ", b"a\\\\b", b"", b"9" * 2000, b"abc^=<& ", b"-99999999999999 ", b"NaN ", b"\xff\xfe\x1b$")

#: Without them there is no volume, or no image.
NEEDED = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPClassUID",
    "FrameOfReferenceUID",
)


def odd(ds: Dataset, keyword: str, value: bytes, vr: str | None = None) -> None:
    """Give the data set bytes as they come from a file, which pydicom would not take from a caller."""
    tag = Tag(keyword)
    known = dictionary_VR(tag).split(" ")[0]
    value += b" " * (len(value) % 2)
    ds[tag] = RawDataElement(tag, vr or known, len(value), value, 0, False, True)


def changed(**values: str) -> list[Dataset]:
    """The headers of a small series, whose images have other values."""
    headers = phantoms.datasets(SMALL)
    for ds in headers:
        for keyword, value in values.items():
            odd(ds, keyword, value.encode())
    return headers


def make(headers: list[Dataset], folder: Path, kinds: Sequence[str] = KINDS) -> dict[str, Dataset]:
    """Results that say much of their source, and the document of a missing answer, as they are on disk."""
    source = cases.series(SMALL, headers)
    made = results.make_results(cases.context(source), cases.findings(source), kinds, folder)
    made.append(results.make_failure(failure(headers), folder))
    assert [(item.kind, item.problem) for item in made if item.problem] == []
    assert {item.kind for item in made} == {*kinds, results.NOT_PERFORMED}
    return {item.kind: dcmread(item.path) for item in made}


def failure(headers: list[Dataset]) -> results.Failure:
    return results.Failure(
        headers=tuple(headers),
        job_identity="job-1",
        model=cases.MODEL,
        created_at=datetime(2026, 11, 20, tzinfo=UTC),
        secondread_version="0.1.0",
        zone=UTC,
        reason="missing-slice",
        error="Slice 4 of 12 is missing.",
    )


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_uids_that_break_the_rules_are_taken_over_to_the_letter(tmp_path: Path) -> None:
    headers = changed(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES)
    for number, ds in enumerate(headers, start=1):
        odd(ds, "SOPInstanceUID", f"1.2.03.{number}".encode())
    made = make(headers, tmp_path)
    assert {str(ds.StudyInstanceUID) for ds in made.values()} == {STUDY}
    uids = [f"1.2.03.{number}" for number in range(1, 5)]
    [series] = made["seg"].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == SERIES
    assert sorted(str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence) == uids
    listed = references.read(made["sr"], "CurrentRequestedProcedureEvidenceSequence")
    assert sorted(uid[-1] for uid in listed if uid[:2] == (STUDY, SERIES)) == uids
    assert references.read(made["not-performed"], "CurrentRequestedProcedureEvidenceSequence") == [
        (STUDY, SERIES, str(CTImageStorage), "1.2.03.1")
    ]


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
@pytest.mark.parametrize("sop_class", CLASSES)
def test_classes_that_no_table_knows_are_referred_to_as_they_are(sop_class: str, tmp_path: Path) -> None:
    made = make(changed(SOPClassUID=sop_class, PatientAge="066Y"), tmp_path)
    for ds in made.values():
        assert (ds.PatientID, ds.PatientAge, ds.StudyDescription) == ("PHANTOM-1", "066Y", "Phantom study")
    for kind in ("sr", "sr-display", "not-performed"):
        listed = references.read(made[kind], "CurrentRequestedProcedureEvidenceSequence")
        assert sop_class in {reference[2] for reference in listed}
    pointed = [item for item in _items(made["sr-display"]) if item.ValueType == "IMAGE"]
    assert pointed and {item.ReferencedSOPSequence[0].ReferencedSOPClassUID for item in pointed} == {
        sop_class
    }


@pytest.mark.parametrize(
    ("number", "expected"),
    [("1\\2", 901), ("-7", 99901), ("99999999999999", 901), ("2147483647", 99901), ("abc", 901), ("", 901)],
)
def test_a_series_number_that_is_none_counts_as_none(number: str, expected: int, tmp_path: Path) -> None:
    assert make(changed(SeriesNumber=number), tmp_path, ["seg"])["seg"].SeriesNumber == expected


@pytest.mark.parametrize("offset", ["+01:00", "UTC", "+9999", "+0199", "+0100\\+0200", "+01²0"])
def test_what_names_no_time_zone_is_left_out(offset: str, tmp_path: Path) -> None:
    headers = changed(TimezoneOffsetFromUTC=offset, SpecificCharacterSet="ISO_IR 192")
    for ds in make(headers, tmp_path, ["seg", "sr"]).values():
        assert "TimezoneOffsetFromUTC" not in ds


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
@pytest.mark.parametrize("value", ["", "1.2\\1.3"])
def test_images_that_cannot_be_referred_to_are_refused(keyword: str, value: str, tmp_path: Path) -> None:
    headers = changed(**{keyword: value})
    with pytest.raises(SeriesError, match=keyword) as refused:
        cases.context(cases.series(SMALL, headers))
    assert refused.value.reason == "no-identity"


def test_two_frames_of_reference_in_one_image_are_none(tmp_path: Path) -> None:
    source = read_series(phantoms.write(changed(FrameOfReferenceUID="1.2\\1.3"), tmp_path / "in"))
    context = cases.context(source)
    assert context.frame_of_reference_uid == ""
    made = results.make_results(context, cases.findings(source), ("seg", "sr"), tmp_path / "out")
    assert [(item.kind, item.verified) for item in made] == [("sr", True)]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("value", "vr"), [*((value, None) for value in ODD), (b"1\\2 ", "LO"), (b"\xff\xfe\x1b$", "LO")]
)
def test_whatever_a_header_holds_results_are_made(value: bytes, vr: str | None, tmp_path: Path) -> None:
    # Given a series on disk with one odd value in every attribute at once
    headers = phantoms.datasets(SMALL)
    for ds in headers:
        for keyword in _attributes():
            if vr or dictionary_VR(Tag(keyword)) != "SQ":
                odd(ds, keyword, value, vr)
    # Then everything that says much of its source is made, and passes the gate
    make(headers, tmp_path)


def _items(item: Dataset) -> Iterator[Dataset]:
    """Every content item below one."""
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _items(child)


def _attributes() -> list[str]:
    """What PS3.3 has for a CT image of patient, study, series, equipment and image, pixels aside."""
    modules = tables.get_iod_module_map()[tables.get_sop_class_iod_map()[CTImageStorage]]
    rows = [row for module in modules for row in tables.get_module_attribute_map()[module["key"]]]
    keywords = dict.fromkeys(row["keyword"] for row in rows if not row["path"])
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords if keyword not in NEEDED}
    return [keyword for keyword, tag in tags.items() if tag and 0x00080008 <= tag < 0x00280000]
