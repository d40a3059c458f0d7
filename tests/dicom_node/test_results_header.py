"""What every result object says of its patient, its study, its maker and itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.results import header
from tests.support import phantoms
from tests.support import results as cases

BOTH = ("seg", "sr")


def write(folder: Path, headers: list[Dataset] | None = None, **changes: Any) -> list[Dataset]:
    """Write both kinds for the axial phantom and read them back."""
    source = cases.series(cases.LIES["axial"], headers)
    made = results.make_results(cases.context(source, **changes), cases.findings(source), BOTH, folder)
    assert [item.problem for item in made] == ["", ""]
    return [dcmread(item.path) for item in made]


def changed(**values: Any) -> list[Dataset]:
    """The axial phantom's headers with other values; None removes the attribute."""
    headers = phantoms.datasets(cases.LIES["axial"])
    for ds in headers:
        for keyword, value in values.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
    return headers


def test_the_same_job_makes_the_same_bytes(tmp_path: Path) -> None:
    headers = changed()
    digests = []
    for attempt in ("first", "second"):
        source = cases.series(cases.LIES["axial"], headers)
        made = results.make_results(cases.context(source), cases.findings(source), BOTH, tmp_path / attempt)
        digests.append([item.sha256 for item in made])
        assert digests[-1] == [hashlib.sha256(item.path.read_bytes()).hexdigest() for item in made]
    assert digests[0] == digests[1]


def test_another_job_makes_other_objects(tmp_path: Path) -> None:
    headers = changed()
    uids = [
        {
            str(ds[keyword].value)
            for ds in write(tmp_path / job, headers, job_identity=job)
            for keyword in keywords
        }
        for job in ("one", "two")
        for keywords in [("SOPInstanceUID", "SeriesInstanceUID")]
    ]
    assert len(uids[0]) == len(uids[1]) == 4
    assert not uids[0] & uids[1]


def test_uids_are_valid_and_their_parts_do_not_run_together() -> None:
    context = cases.context(cases.series(cases.LIES["axial"]))
    assert context.uid("a", "bc") != context.uid("ab", "c")
    for uid in (context.uid("seg", "series"), context.device_uid):
        assert uid.startswith("2.25.") and len(uid) <= 64
        number = int(uid.removeprefix("2.25."))
        assert (number >> 76) & 0xF == 8 and (number >> 62) & 0x3 == 2


def test_a_retrained_model_is_another_device() -> None:
    source = cases.series(cases.LIES["axial"])
    retrained = replace(cases.MODEL, digest="f" * 64)
    assert cases.context(source).device_uid == cases.context(source, job_identity="job-2").device_uid
    assert cases.context(source).device_uid != cases.context(source, model=retrained).device_uid


def test_patient_and_study_are_the_source_s(tmp_path: Path) -> None:
    for ds in write(tmp_path, changed(InstitutionName="St. Elsewhere", PatientAge="066Y")):
        assert (ds.PatientID, ds.AccessionNumber, ds.StudyID) == ("PHANTOM-1", "ACC-1", "1")
        assert (ds.StudyDate, ds.StudyTime, ds.StudyDescription) == ("20261101", "101500", "Phantom study")
        assert (ds.InstitutionName, ds.PatientAge) == ("St. Elsewhere", "066Y")


def test_what_the_source_lacks_is_written_empty(tmp_path: Path) -> None:
    missing = ("AccessionNumber", "PatientID", "StudyID", "PatientBirthDate", "PatientSex", "SeriesNumber")
    for ds in write(tmp_path, changed(**dict.fromkeys(missing))):
        for keyword in ("AccessionNumber", "PatientID", "StudyID", "PatientBirthDate", "PatientSex"):
            assert keyword in ds
            assert not ds.get(keyword)


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_identity_is_copied_to_the_letter_even_where_it_breaks_the_rules(tmp_path: Path) -> None:
    # Given values that real modalities send and that no writer should send
    for ds in write(tmp_path, changed(PatientSex="X", PatientBirthDate="1960.01.01", StudyTime="")):
        assert (ds.PatientSex, ds.PatientBirthDate) == ("X", "1960.01.01")


def test_any_other_value_that_breaks_the_rules_is_left_out(tmp_path: Path) -> None:
    # Given a study whose header has bytes that are not what their VR says
    paths = phantoms.write(changed(PatientWeight="70"), tmp_path / "source")
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"DS\x02\x0070", b"DS\x02\x00k?"))
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    # Then results are made without it
    for ds in write(tmp_path / "out", headers):
        assert "PatientWeight" not in ds
        assert ds.PatientID == "PHANTOM-1"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Иванов^Иван"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("GBK", "Zhang^San=张^三"),
    ],
)
def test_names_beyond_ascii_are_written_in_utf_8(charset: Any, name: str, tmp_path: Path) -> None:
    # Given a series on disk in its own character set, with text inside a sequence too
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "P1", "99LOCAL"
    code.CodeMeaning = name.split("=")[-1].split("^")[0]
    headers = changed(SpecificCharacterSet=charset, PatientName=name, ProcedureCodeSequence=[code])
    paths = phantoms.write(headers, tmp_path / "source")
    # When results are made of what a reader reads
    made = write(tmp_path / "out", [dcmread(path, stop_before_pixels=True) for path in paths])
    # Then the name is the same, its bytes are UTF-8, and the object says so
    for ds in made:
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert str(ds.PatientName) == name
        assert ds.ProcedureCodeSequence[0].CodeMeaning == code.CodeMeaning
        assert name.encode() in Path(ds.filename).read_bytes()


def test_the_algorithm_is_contributing_equipment(tmp_path: Path) -> None:
    for ds in write(tmp_path):
        scanner, algorithm, writer = ds.ContributingEquipmentSequence
        assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        assert (algorithm.Manufacturer, algorithm.ManufacturerModelName) == ("secondread project", "chest-ct")
        assert algorithm.SoftwareVersions == "1.0.0"
        assert algorithm.DeviceUID.startswith("2.25.")
        assert algorithm.ContributionDateTime == "20261120100000.123456+0000"
        assert writer.SoftwareVersions[0] == "0.1.0"
        assert (ds.Manufacturer, ds.ManufacturerModelName) == ("secondread project", "chest-ct")
        assert list(ds.SoftwareVersions) == ["1.0.0", "secondread 0.1.0"]


def test_dates_are_on_the_study_s_clock(tmp_path: Path) -> None:
    # Given a study whose dates have an offset, then ours have the same, and say so
    for ds in write(tmp_path / "named", changed(TimezoneOffsetFromUTC="+0530")):
        assert (ds.ContentDate, ds.ContentTime) == ("20261120", "153000.123456")
        assert ds.TimezoneOffsetFromUTC == "+0530"
    # Given a study without one, then they are local and claim none: it would hold for the study's dates too
    zone = timezone(timedelta(hours=-8))
    for ds in write(tmp_path / "unnamed", zone=zone):
        assert (ds.ContentDate, ds.SeriesTime) == ("20261120", "020000.123456")
        assert "TimezoneOffsetFromUTC" not in ds


@pytest.mark.parametrize(
    ("number", "seg", "sr"),
    [(3, 3901, 3902), (30026, 30026901, 30026902), (None, 901, 902), (2**31 - 1, 99901, 99902)],
)
def test_series_numbers_sort_behind_their_source(number: Any, seg: int, sr: int) -> None:
    context = cases.context(cases.series(cases.LIES["axial"], changed(SeriesNumber=number)))
    assert (context.series_number("seg"), context.series_number("sr")) == (seg, sr)


@pytest.mark.parametrize(
    ("labels", "research", "expected"),
    [
        (["lungs"], True, "AI unverified (research): lungs, chest-ct 1.0.0"),
        (["lungs"], False, "AI unverified: lungs, chest-ct 1.0.0"),
        (
            [f"Part {number}" for number in range(300)],
            False,
            "AI unverified: Part 0, Part 1, Part 2 +297, chest-ct 1.0.0",
        ),
        (
            ["Segmental bronchopulmonary vein"],
            True,
            "AI unverified (research): Segmental bronchopulmonary vein",
        ),
        (["A label that fills all of the 64 characters"], True, "AI unverified (research): chest-ct 1.0.0"),
        (["a\\b"], True, "AI unverified (research): a/b, chest-ct 1.0.0"),
    ],
)
def test_a_description_says_what_fits_in_64_characters(
    labels: list[str], research: bool, expected: str
) -> None:
    context = cases.context(
        cases.series(cases.LIES["axial"]), model=replace(cases.MODEL, research_only=research)
    )
    assert header.describe(context, labels) == expected
    assert len(expected) <= 64


def test_a_naive_date_is_refused() -> None:
    source = cases.series(cases.LIES["axial"])
    with pytest.raises(ValueError, match="aware"):
        cases.context(source, created_at=datetime(2026, 11, 20, tzinfo=UTC).replace(tzinfo=None))


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    source = cases.series(cases.LIES["axial"])
    with pytest.raises(ValueError, match="docx"):
        results.make_results(cases.context(source), cases.findings(source), ("seg", "docx"), tmp_path)


def test_a_file_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a disk that fills while the object is written
    def full(self: Dataset, file: Any, **options: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dataset, "save_as", full)
    source = cases.series(cases.LIES["axial"])
    with pytest.raises(OSError, match="No space"):
        results.make_results(cases.context(source), cases.findings(source), BOTH, tmp_path)
    assert list(tmp_path.iterdir()) == []
