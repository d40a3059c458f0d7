"""The listener against pynetdicom as a sender: contexts, answers, events, stopping."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom.association import Association

from dicom_node.instance import StoredInstance
from dicom_node.listener import KnownPeer, ListenerConfig
from dicom_node.statuses import StoreStatus
from tests.support.entity import Entity
from tests.support.listening import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Listening,
    Wire,
    data_set_bytes,
    listening,
    resident_bytes,
    store_command,
    until,
    value,
)
from tests.support.phantoms import Phantom, datasets

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
PRIVATE = "1.3.12.2.1107.5.9.1"
NEWER_THAN_US = "1.2.840.10008.5.1.4.1.1.999.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def associate(
    node: Listening, contexts: list[tuple[str, list[str]]], *, title: str = "SENDER"
) -> Association:
    ae = Entity(ae_title=title)
    for abstract, transfers in contexts:
        ae.add_requested_context(abstract, transfers)
    return ae.associate("127.0.0.1", node.port, ae_title="SECONDREAD")


def images(count: int) -> list[Dataset]:
    return datasets(Phantom(shape=(count, 16, 16)))


def test_an_association_is_told_from_beginning_to_end(tmp_path: Path) -> None:
    peers = (KnownPeer(name="scanner", ae_title="SENDER", host="127.0.0.0/8"),)
    with listening(tmp_path, peers=peers, require_known_peers=True) as node:
        association = associate(node, [(CT, [EXPLICIT])])
        for ds in images(3):
            assert association.send_c_store(ds).Status == StoreStatus.SUCCESS
        association.release()

        released = node.events.wait("released")

        assert node.events.kinds == ["opened", "released"]
        assert (released.calling_ae_title, released.called_ae_title) == ("SENDER", "SECONDREAD")
        assert (released.address, released.peer) == ("127.0.0.1", "scanner")
        assert {stored.association_id for stored in node.events.stored} == {released.association_id}
        assert len(node.events.stored) == 3
        assert [node.spool.root / stored.path for stored in node.events.stored] != []
        assert sorted(node.spool.root / stored.path for stored in node.events.stored) == node.dicom_files()


def test_bytes_are_durable_before_anyone_is_told(tmp_path: Path) -> None:
    seen: list[bool] = []
    with listening(tmp_path) as node:
        node.events.before = lambda stored: seen.append((node.spool.root / stored.path).exists())
        association = associate(node, [(CT, [EXPLICIT])])
        association.send_c_store(images(1)[0])
        association.release()

    assert seen == [True]


@pytest.mark.parametrize("sop_class", [CT, LABEL_MAP, PRIVATE, NEWER_THAN_US])
def test_accepts_every_storage_class(tmp_path: Path, sop_class: str) -> None:
    with listening(tmp_path) as node:
        association = associate(node, [(sop_class, [EXPLICIT])])
        ds = images(1)[0]
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        assert association.send_c_store(ds).Status == StoreStatus.SUCCESS
        association.release()

    assert node.events.stored[0].sop_class_uid == sop_class


def test_takes_only_storage_and_verification(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        association = associate(
            node, [(STUDY_ROOT_FIND, [EXPLICIT]), (VERIFICATION, [IMPLICIT]), (CT, [EXPLICIT])]
        )
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        association.release()

    assert accepted == {VERIFICATION, CT}


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([JPEG2000Lossless, EXPLICIT, IMPLICIT], JPEG2000Lossless),
        ([IMPLICIT, EXPLICIT], EXPLICIT),
        ([IMPLICIT], IMPLICIT),
        (["1.2.3.4.5", EXPLICIT], EXPLICIT),
        (["1.2.3.4.5"], "1.2.3.4.5"),
    ],
)
def test_which_transfer_syntax_is_chosen(tmp_path: Path, proposed: list[str], chosen: str) -> None:
    with listening(tmp_path) as node:
        association = associate(node, [(CT, proposed)])
        (context,) = association.accepted_contexts
        association.release()

    assert context.transfer_syntax == [chosen]


def test_echo_between_instances_on_one_association(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        association = associate(node, [(CT, [EXPLICIT]), (VERIFICATION, [IMPLICIT])])
        for ds in images(3):
            assert association.send_c_echo().Status == 0x0000
            assert association.send_c_store(ds).Status == StoreStatus.SUCCESS
        assert association.send_c_echo().Status == 0x0000
        association.release()
        node.events.wait("released")

    assert len(node.events.stored) == 3


def test_an_event_that_fails_makes_the_sender_try_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a consumer whose database is away for a moment
    failures = [RuntimeError("secret of PHANTOM-1")]

    def before(stored: StoredInstance) -> None:
        if failures:
            raise failures.pop()

    with listening(tmp_path) as node, caplog.at_level(logging.INFO):
        node.events.before = before
        association = associate(node, [(CT, [EXPLICIT])])
        ds = images(1)[0]
        assert association.send_c_store(ds).Status == StoreStatus.OUT_OF_RESOURCES
        assert association.send_c_store(ds).Status == StoreStatus.SUCCESS
        association.release()

    # Then it is told of the instance in the end, and the log holds nobody's identity
    assert [stored.duplicate for stored in node.events.stored] == [True]
    assert "PHANTOM" not in caplog.text


def test_nothing_of_the_patient_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), listening(tmp_path) as node:
        association = associate(node, [(CT, [EXPLICIT])])
        good, bad = images(2)
        del bad.StudyInstanceUID
        association.send_c_store(good)
        association.send_c_store(bad)
        association.release()

    ours = [record.getMessage() for record in caplog.records if record.name.startswith("dicom_node")]
    assert ours
    assert not [text for text in ours if "PHANTOM" in text.upper() or "ACC-1" in text]


def test_refusals_are_told_and_the_association_goes_on(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        association = associate(node, [(CT, [EXPLICIT])])
        bad, good = images(2)
        uid = bad.SOPInstanceUID
        del bad.SeriesInstanceUID
        answer = association.send_c_store(bad)
        assert association.send_c_store(good).Status == StoreStatus.SUCCESS
        association.release()
        node.events.wait("released")

    (refused,) = node.events.refusals
    assert answer.Status == refused.status == StoreStatus.NOT_A_DATA_SET
    assert refused.sop_instance_uid == uid
    assert "Series Instance UID" in refused.reason
    assert answer.ErrorComment in refused.reason
    assert len(node.dicom_files()) == 1


def test_one_association_more_than_allowed_is_rejected(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations=2) as node:
        first, second = (associate(node, [(CT, [EXPLICIT])]) for _ in range(2))
        third = associate(node, [(CT, [EXPLICIT])])

        # PS3.8 table 9-21: transient, presentation related, local limit exceeded
        assert third.is_rejected
        answer = third.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        assert "too many" in node.events.wait("rejected").reason
        first.release()
        second.release()
        node.events.wait("released", count=2)
        until(lambda: not node.listener._server.active_associations, "their threads to end")
        assert associate(node, [(CT, [EXPLICIT])]).is_established


def test_an_aborted_association_is_told(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        association = associate(node, [(CT, [EXPLICIT])])
        association.send_c_store(images(1)[0])
        association.abort()
        assert node.events.wait("aborted").reason == "the peer aborted it"

    assert node.events.kinds == ["opened", "aborted"]
    assert len(node.dicom_files()) == 1


def test_a_silent_association_is_aborted(tmp_path: Path) -> None:
    with listening(tmp_path, network_timeout=0.5) as node:
        association = associate(node, [(CT, [EXPLICIT])])
        association.send_c_store(images(1)[0])
        assert "silent for 0.5 s" in node.events.wait("aborted", seconds=10).reason
        until(lambda: association.is_aborted, "the sender to notice")


def test_stop_releases_an_idle_association(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        association = associate(node, [(CT, [EXPLICIT])])
        association.send_c_store(images(1)[0])
        node.listener.stop()

        # Its sender may have had more: only what it releases itself speaks for a study being complete
        assert node.events.kinds == ["opened", "aborted"]
        assert node.events.wait("aborted").reason == "the listener stopped"
        until(lambda: association.is_released, "the sender to be released")


def test_stop_finishes_the_instance_in_hand(tmp_path: Path) -> None:
    # Given an instance that is being recorded while the listener is told to stop
    entered, stopping = threading.Event(), threading.Event()

    def before(stored: StoredInstance) -> None:
        entered.set()
        assert stopping.wait(10)

    with listening(tmp_path) as node:
        node.events.before = before
        association = associate(node, [(CT, [EXPLICIT])])
        answers: list[Dataset] = []
        sender = threading.Thread(target=lambda: answers.append(association.send_c_store(images(1)[0])))
        sender.start()
        assert entered.wait(10)
        stopper = threading.Thread(target=node.listener.stop)
        stopper.start()
        until(lambda: association.acceptor is not None and node.listener._stopped, "the stop to begin")
        stopping.set()
        sender.join(10)
        stopper.join(10)

    # Then it is stored and acknowledged, and the association ends
    assert answers[0].Status == StoreStatus.SUCCESS
    assert len(node.dicom_files()) == 1
    assert node.events.kinds[0] == "opened" and len(node.events.kinds) == 2


def test_many_short_associations_leave_no_memory_behind(tmp_path: Path) -> None:
    # Given a sender that opens an association for each image, as many do
    made = datasets(Phantom(shape=(60, 512, 512)))
    with listening(tmp_path) as node:

        def one(ds: Dataset) -> None:
            with Wire(node.port) as wire:
                wire.associate({1: (CT, [EXPLICIT])})
                sent = data_set_bytes(ds)
                wire.send_values(value(1, 0x03, store_command(CT, ds.SOPInstanceUID)))
                for at in range(0, len(sent), 100_000):
                    last = at + 100_000 >= len(sent)
                    wire.send_values(value(1, 0x02 if last else 0x00, sent[at : at + 100_000]))
                assert wire.status() == StoreStatus.SUCCESS

        for ds in made[:10]:
            one(ds)
        before = resident_bytes()
        for ds in made[10:]:
            one(ds)

        assert resident_bytes() - before < 16 << 20
        node.events.wait("aborted", count=60)
        until(lambda: not node.listener._callers, "the listener to forget them")


@pytest.mark.parametrize("settings", [{"max_pdu": 0}, {"max_pdu": 1 << 30}, {"network_timeout": 0.0}])
def test_settings_without_bounds_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ListenerConfig(ae_title="SECONDREAD", port=0, **settings)  # type: ignore[arg-type]


def test_stop_twice_is_harmless(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        node.listener.stop()
        node.listener.stop()


def test_the_port_is_free_after_stop(tmp_path: Path) -> None:
    with listening(tmp_path / "a") as node:
        port = node.port
    with listening(tmp_path / "b", port=port) as node:
        association = associate(node, [(CT, [str(ExplicitVRLittleEndian)])])
        assert association.is_established
        association.release()
