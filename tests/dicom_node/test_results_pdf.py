"""The printed report: the page says what the report says, whose it is, and is the same whenever it is made."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pypdf import PdfReader

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import fonts, pdf_frame, pdf_pages, report, verify
from dicom_node.series import SeriesImages, read_series
from engines.findings import Segment
from tests.dicom_node.test_results_words import CHINESE, EARLIER, HOSTILE, MODEL, RULED
from tests.support import enhanced, phantoms
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])


def make(folder: Path, source: SeriesImages = SOURCE, *, language: str = "en", **changes: Any) -> Dataset:
    """The printed report as it is on disk."""
    context = cases.context(source, model=MODEL, comparison=EARLIER, language=language)
    found = cases.findings(source, **{"findings": (RULED,), **changes})
    [made] = results.make_results(context, found, ("pdf",), folder)
    assert made.verified, made.problem
    return dcmread(made.path)


def pages(ds: Dataset) -> list[str]:
    """The text of each page, as another reader finds it, without spaces: lines break anywhere."""
    reader = PdfReader(BytesIO(ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]))
    return ["".join(page.extract_text().split()) for page in reader.pages]


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_says_every_line_of_the_report(language: str, tmp_path: Path) -> None:
    ds = make(tmp_path, language=language)
    text = "".join(pages(ds))
    context = cases.context(SOURCE, model=MODEL, comparison=EARLIER, language=language)
    words = report.worded(context, cases.findings(SOURCE, findings=(RULED,)))
    said = [words.title, words.standing, words.about, *(item.text for item in words.conclusions)]
    said += [cell for table in (words.measurements, words.comparison) for row in table.rows for cell in row]
    said += [words.comparison.said, *words.limitations]
    assert [line for line in said if squeezed(line) not in text] == []


def test_each_page_bears_the_patient_and_that_it_is_not_verified(tmp_path: Path) -> None:
    segments = tuple(
        Segment(number=n, label=f"Part {n}", category=cases.STRUCTURE, type=cases.VOLUME)
        for n in range(1, 121)
    )
    measured = tuple(replace(cases.MEASUREMENTS[0], segment_number=n) for n in range(1, 121))
    ds = make(tmp_path, segments=segments, measurements=measured)
    texts = pages(ds)
    assert len(texts) >= 4
    for number, text in enumerate(texts, start=1):
        assert "Phantom,Asymmetric" in text and "PHANTOM-1" in text and "1960-01-01" in text
        assert "notverifiedbyaphysician" in text
        assert f"Page{number}of{len(texts)}" in text
    assert all(squeezed(f"Part {n}") in "".join(texts) for n in range(1, 121))


def test_a_usual_report_is_one_page_with_its_key_images_and_all_letters_embedded(tmp_path: Path) -> None:
    for language in ("en", "zh"):
        ds = make(tmp_path / language, language=language)
        reader = PdfReader(BytesIO(ds.EncapsulatedDocument))
        assert len(reader.pages) == 1
        assert len(reader.pages[0].images) == 2
        for font in reader.pages[0]["/Resources"]["/Font"].values():
            assert "/FontFile2" in font.get_object()["/FontDescriptor"]


def test_the_object_says_what_it_holds(tmp_path: Path) -> None:
    ds = make(tmp_path)
    assert ds.SOPClassUID.name == "Encapsulated PDF Storage"
    assert (ds.Modality, ds.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert (ds.BurnedInAnnotation, ds.VerificationFlag) == ("YES", "UNVERIFIED")
    assert ds.DocumentTitle == "AI report: chest-ct 1.0.0"
    assert len(ds.EncapsulatedDocument) % 2 == 0 and ds.EncapsulatedDocument.startswith(b"%PDF-")
    assert len(ds.SourceInstanceSequence) == 12
    assert ds.SeriesDescription.startswith("AI unverified (research): report")


def test_the_documents_own_metadata_names_nobody(tmp_path: Path) -> None:
    reader = PdfReader(BytesIO(make(tmp_path).EncapsulatedDocument))
    assert "Phantom" not in str(reader.metadata) and "PHANTOM-1" not in str(reader.metadata)


SCRIPT = """
import hashlib
from tests.dicom_node import test_results_pdf as t
from tests.support import phantoms, results as cases
source = cases.series(phantoms.Phantom(study_uid="2.25.1", series_uid="2.25.2"))
context = cases.context(source, model=t.MODEL, comparison=t.EARLIER, language="zh")
print(hashlib.sha256(t.pdf_pages.render(context, cases.findings(source, findings=(t.RULED,)))).hexdigest())
"""


def test_another_process_makes_the_same_bytes() -> None:
    root = Path(__file__).resolve().parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_hostile_words_are_shown_and_do_nothing(tmp_path: Path) -> None:
    segments = (replace(cases.SEGMENTS[0], label=HOSTILE), *cases.SEGMENTS[1:])
    ds = make(tmp_path, segments=segments)
    text = "".join(pages(ds))
    assert "evil[31m<bonload=x>&amp;xxx" in text
    assert b"/JavaScript" not in ds.EncapsulatedDocument and b"/URI" not in ds.EncapsulatedDocument


def test_the_longest_lines_still_fit(tmp_path: Path) -> None:
    # Given a finding that many numbers decide, all under names as long as they may be
    long = replace(RULED, code=replace(RULED.code, meaning="W" * 64), deciding=cases.MEASUREMENTS * 20)
    segments = tuple(replace(segment, label="W" * 64) for segment in cases.SEGMENTS)
    assert pages(make(tmp_path, findings=(long,) * 30, segments=segments))


def test_where_nothing_was_found_there_is_a_page_without_pictures(tmp_path: Path) -> None:
    empty = np.zeros(cases.LIES["axial"].shape, np.uint8)
    ds = make(tmp_path, mask=empty, measurements=(), findings=())
    [text] = pages(ds)
    assert "Notfoundintheimages:Leftlung,Rightlung,Nodule." in text
    assert "Keyimages" not in text


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_frames_of_one_image_are_its_slices_and_it_is_named_once(tmp_path: Path) -> None:
    image = enhanced.image(phantoms.datasets(phantoms.Phantom()))
    source = read_series(phantoms.write([image], tmp_path / "source"))
    ds = make(tmp_path, source)
    assert len(ds.SourceInstanceSequence) == 1
    [text] = pages(ds)
    assert "Analysed:12images" in text and "slice3of12" in text


def test_an_image_alone_has_no_slices(tmp_path: Path) -> None:
    phantom = phantoms.Phantom(shape=(1, 32, 40))
    source = read_series(phantoms.write(phantoms.datasets(phantom), tmp_path / "source"), planar=True)
    mask = np.zeros((1, 32, 40), np.uint8)
    mask[0, 4:9, 5:20] = 1
    [text] = pages(make(tmp_path, source, mask=mask))
    assert "Analysed:1image," in text
    assert "Image1■Leftlung" in text and "slice" not in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Phantom^Asymmetric", "Phantom, Asymmetric"),
        ("Müller^Jörg^^Dr.", "Müller, Jörg Dr."),
        ("Wang^XiaoDong=王^小东", "Wang, XiaoDong / 王小东"),
        ("Люкceмбypг", "Люкceмбypг"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "Hong, Gildong / 洪吉洞"),
        ("قباني^لنزار", "قباني, لنزار"),
        ("", ""),
    ],
)
def test_a_name_is_printed_in_the_scripts_that_can_be_shown(name: str, shown: str) -> None:
    assert pdf_frame.person(name) == shown


def test_letters_that_cannot_be_shown_are_said_to_be_missing(tmp_path: Path) -> None:
    phantom = phantoms.Phantom(patient_name="قباني^لنزار")
    images = phantoms.write(phantoms.datasets(phantom), tmp_path / "source")
    [text] = pages(make(tmp_path, cases.series(phantom, [dcmread(path) for path in images])))
    assert "?????,?????" in text and "Lettersthatthispagecannotshowarewrittenas?." in text
    assert not any(unicodedata.bidirectional(letter) == "AL" for letter in text)


def test_all_words_of_both_languages_can_be_shown() -> None:
    for language in ("en", "zh"):
        context = cases.context(SOURCE, model=MODEL, comparison=EARLIER, language=language)
        assert fonts.is_complete(
            report.text(report.worded(context, cases.findings(SOURCE))).replace("\n", "")
        )
    assert fonts.is_complete("".join(CHINESE.segments.values()) + "−³²µ·±°≥…■")


def other_pages(ds: Dataset) -> None:
    context = cases.context(SOURCE, model=MODEL, language="zh")
    ds.EncapsulatedDocument = pdf_pages.render(context, cases.findings(SOURCE))
    ds.EncapsulatedDocumentLength = len(ds.EncapsulatedDocument)


def a_byte(ds: Dataset) -> None:
    half = len(ds.EncapsulatedDocument) // 2
    ds.EncapsulatedDocument = ds.EncapsulatedDocument[:half] + b"?" + ds.EncapsulatedDocument[half + 1 :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_pages, "not those of the findings"),
        (a_byte, "not those of the findings"),
        (lambda ds: setattr(ds, "MIMETypeOfEncapsulatedDocument", "text/XML"), "names its patient"),
        (lambda ds: setattr(ds, "BurnedInAnnotation", "NO"), "names its patient"),
        (lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "unverified"),
        (lambda ds: setattr(ds, "DocumentTitle", "Report"), "title"),
        (lambda ds: setattr(ds, "SourceInstanceSequence", ds.SourceInstanceSequence[1:]), "source"),
        (lambda ds: delattr(ds, "ConversionType"), "ConversionType is absent"),
        (lambda ds: setattr(ds, "PatientID", "SOMEBODY"), "PatientID"),
    ],
)
def test_a_wrong_page_is_caught(damage: Callable[[Dataset], None], says: str, tmp_path: Path) -> None:
    ds = make(tmp_path)
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    context = cases.context(SOURCE, model=MODEL, comparison=EARLIER)
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), "pdf", context, cases.findings(SOURCE, findings=(RULED,)), ())
