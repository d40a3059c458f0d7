"""The sender that only remembers, and which sender a destination gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import errors
from dicom_node.senders import Destination, Outcome, Verdict, open_sender
from dicom_node.senders.cstore import CStoreSender
from dicom_node.senders.files import FileToSend
from dicom_node.senders.memory import MemorySender
from dicom_node.senders.stow import StowSender
from tests.support import phantoms


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(2, 16, 16))), tmp_path)


def test_it_remembers_and_delivers(images: list[Path]) -> None:
    sender = MemorySender()
    outcomes: list[Outcome] = []
    sender.send(images, outcomes.append)
    assert [file.path for file in sender.sent] == images
    assert [(each.path, each.verdict) for each in outcomes] == [(path, Verdict.DELIVERED) for path in images]


def test_it_answers_what_it_is_told(images: list[Path]) -> None:
    def answer(file: FileToSend) -> int:
        return 0xA700 if file.path == images[0] else 0x0122

    outcomes: list[Outcome] = []
    MemorySender(answer).send(images, outcomes.append)
    assert [each.verdict for each in outcomes] == [Verdict.RETRY, Verdict.REFUSED]


def test_it_can_be_unreachable(images: list[Path]) -> None:
    sender = MemorySender(unreachable="nobody there")
    with pytest.raises(errors.Unreachable, match="nobody there"):
        sender.send(images, lambda outcome: None)
    assert sender.sent == []


def test_each_kind_has_its_sender() -> None:
    assert isinstance(open_sender(Destination(name="a", kind="cstore")), CStoreSender)
    assert isinstance(open_sender(Destination(name="b", kind="stow")), StowSender)
    first = open_sender(Destination(name="test-each-kind", kind="memory"))
    assert isinstance(first, MemorySender)
    assert open_sender(Destination(name="test-each-kind", kind="memory")) is first
    assert open_sender(Destination(name="test-each-kind-2", kind="memory")) is not first


def test_a_destination_does_not_print_its_secret() -> None:
    assert "s3cr3t" not in repr(Destination(name="web", kind="stow", authorization="s3cr3t"))
