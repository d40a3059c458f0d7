"""The table of statuses: every code the standard names for storage, and those it does not."""

from __future__ import annotations

import pytest
from pynetdicom.status import GENERAL_STATUS, STORAGE_SERVICE_CLASS_STATUS

from dicom_node.senders import Verdict
from dicom_node.senders.statuses import MEANINGS, comment, meaning, printable

#: pynetdicom's category of a status -> the verdicts that fit it.
FITTING = {
    "Success": {Verdict.DELIVERED},
    "Warning": {Verdict.WARNING},
    "Failure": {Verdict.RETRY, Verdict.REFUSED},
    "Cancel": {Verdict.RETRY},
}


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.DELIVERED),
        (0xB000, Verdict.WARNING),
        (0xB006, Verdict.WARNING),
        (0xB007, Verdict.WARNING),
        (0xB123, Verdict.WARNING),
        (0x0111, Verdict.WARNING),
        (0xA700, Verdict.RETRY),
        (0xA7FF, Verdict.RETRY),
        (0x0110, Verdict.RETRY),
        (0x0213, Verdict.RETRY),
        (0xA900, Verdict.REFUSED),
        (0xA9FF, Verdict.REFUSED),
        (0xC000, Verdict.REFUSED),
        (0xC210, Verdict.REFUSED),
        (0xCFFF, Verdict.REFUSED),
        (0x0117, Verdict.REFUSED),
        (0x0122, Verdict.REFUSED),
        (0x0124, Verdict.REFUSED),
        (0x0211, Verdict.REFUSED),
        (0x0212, Verdict.REFUSED),
        (0xFF00, Verdict.RETRY),
        (0x1234, Verdict.RETRY),
    ],
)
def test_a_status_comes_to_a_verdict(status: int, verdict: Verdict) -> None:
    assert meaning(status).verdict is verdict


def test_every_storage_status_fits_its_category() -> None:
    known = {**GENERAL_STATUS, **STORAGE_SERVICE_CLASS_STATUS}
    # 0x0111 is a failure by category; a result that is there already is delivered, see the table.
    wrong = [
        hex(status)
        for status, (category, *_) in known.items()
        if status != 0x0111 and meaning(status).verdict not in FITTING[category]
    ]
    assert len(known) > 4000
    assert wrong == []


def test_every_row_can_be_reached_and_no_code_falls_out() -> None:
    reached = {meaning(row.first) for row in MEANINGS} | {meaning(row.last) for row in MEANINGS}
    assert set(MEANINGS) <= reached
    assert all(meaning(status) for status in range(0x10000))


def test_the_comment_says_code_meaning_and_the_peers_words() -> None:
    assert comment(0x0000) == ""
    assert comment(0xA700, "disk full") == "0xA700 the peer is out of resources: disk full"
    assert comment(0x0122) == "0x0122 the peer does not support this SOP class; enable it there"


def test_a_peers_words_are_cut_and_printable() -> None:
    assert printable("a\x1b[31m\nb\0") == "a [31m b"
    assert len(printable("x" * 500)) == 64
    assert printable(None) == ""
