"""Processes that die, a disk that is full, and an end in mid-transfer: delayed perhaps, lost never."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.acceptance import installation
from tests.acceptance.installation import Installation, alive, children, descendants, until
from tests.support import phantoms
from tests.support.listening import CT, EXPLICIT, Wire, data_set_bytes, store_command, value
from tests.support.orthanc import Orthanc
from tests.support.phantoms import Phantom
from worker.supervise import GRACE_SECONDS

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]

#: Large enough for the network to be at it for some seconds.
LARGE = Phantom(shape=(120, 128, 128), spacing=(4.0, 3.0, 3.0), patient_id="CRASH-LARGE-1")


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[Installation]:
    """`secondread up` whose processes are killed; a silent worker's job is given away soon."""
    work = {"lease_seconds": 2, "max_attempts": 5}
    made = installation.configure(tmp_path_factory.mktemp("fragile"), pacs, work=work)
    with installation.running(made) as running:
        yield running


def uid_of(made: list[Dataset]) -> str:
    return str(made[0].StudyInstanceUID)


def one_set_of_results(pacs: Orthanc, why: dict[str, Any]) -> None:
    """Orthanc holds one segmentation and one report of the study, those that the job says it made."""
    (job,) = why["jobs"]
    assert job["state"] == "done", job["error"]
    uid = why["study"]["study_instance_uid"]
    body = {"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": uid}}
    held = pacs.rest("/tools/find", method="POST", body=body)
    assert sorted(each["MainDicomTags"]["SOPInstanceUID"] for each in held) == sorted(
        made["sop_instance_uid"] for made in job["objects"]
    )
    assert sorted(made["kind"] for made in job["objects"]) == ["seg", "sr"]


def running_job(node: Installation, uid: str, attempt: int) -> None:
    """Wait until a worker is at the study's job for this time."""

    def at_it() -> bool:
        jobs = node.why(uid).get("jobs", [])
        return bool(jobs) and (jobs[0]["state"], jobs[0]["attempts"]) == ("running", attempt)

    until(at_it, f"attempt {attempt} to run")


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_whoever_dies_every_study_gets_one_set_of_results(
    fragile: Installation, pacs: Orthanc, tmp_path: Path
) -> None:
    # Given a listener that is killed while it has half of a study
    halved = phantoms.datasets(Phantom(patient_id="CRASH-HALVED-1"))
    with Wire(fragile.dicom_port) as wire:
        wire.associate({1: (CT, [EXPLICIT])})
        for ds in halved[:6]:
            request = store_command(CT, ds.SOPInstanceUID)
            wire.send_values(value(1, 0x03, request), value(1, 0x02, data_set_bytes(ds)))
            assert wire.status() == 0
        opened = "SELECT process_id FROM associations WHERE outcome = 'open' AND calling_ae_title = 'RAW'"
        ((process_id,),) = until(lambda: fragile.rows(opened), "the association's row")
        kill(int(process_id.split(":")[1]))
        assert wire.receive_pdu() == b""
    # When its sender comes again with everything
    assert fragile.dcmsend(*phantoms.write(halved, tmp_path / "halved")).returncode == 0

    # And given a worker that is killed in mid-job: its child first, then all of it
    large = phantoms.datasets(LARGE)
    assert fragile.dcmsend(*phantoms.write(large, tmp_path / "large")).returncode == 0
    running_job(fragile, uid_of(large), 1)
    kill(*children(fragile.role("work --queue cpu")))
    running_job(fragile, uid_of(large), 2)
    worker = fragile.role("work --queue cpu")
    kill(worker, *descendants(worker))

    # And given a broker that is killed when a study arrives
    kill(fragile.role("redis-server"))
    late = phantoms.datasets(Phantom(patient_id="CRASH-LATE-1"))
    assert fragile.dcmsend(*phantoms.write(late, tmp_path / "late")).returncode == 0

    # Then each study ends as if nothing had been
    one_set_of_results(pacs, fragile.done(uid_of(late), seconds=90))
    why = fragile.done(uid_of(large), seconds=90)
    assert why["jobs"][0]["attempts"] >= 3
    assert [event["kind"] for event in why["events"]].count("worker-lost") >= 2
    one_set_of_results(pacs, why)
    why = fragile.done(uid_of(halved), seconds=90)
    assert why["study"]["instances"] == 12
    one_set_of_results(pacs, why)
    assert fragile.process is not None and fragile.process.poll() is None
    assert fragile.log.count("ended with signal SIGKILL") == 3


def test_a_listener_that_dies_right_after_its_answer_forgets_nothing(
    fragile: Installation, pacs: Orthanc, tmp_path: Path
) -> None:
    # Given images that were acknowledged by a listener which was killed before it wrote their rows
    made = phantoms.datasets(Phantom(patient_id="CRASH-ANSWERED-1"))
    with Wire(fragile.dicom_port) as wire:
        wire.associate({1: (CT, [EXPLICIT])})
        opened = "SELECT process_id FROM associations WHERE outcome = 'open' AND calling_ae_title = 'RAW'"
        ((process_id,),) = until(lambda: fragile.rows(opened), "the association's row")
        for ds in made[:6]:
            request = store_command(CT, ds.SOPInstanceUID)
            wire.send_values(value(1, 0x03, request), value(1, 0x02, data_set_bytes(ds)))
            assert wire.status() == 0
        kill(int(process_id.split(":")[1]))
        # Dead before the next connection is made: one that its port had taken would be broken off.
        assert wire.receive_pdu() == b""
    # When its sender comes again with what was not
    assert fragile.dcmsend(*phantoms.write(made[6:], tmp_path / "rest")).returncode == 0

    # Then the study is answered whole, once
    def whole() -> dict[str, Any]:
        why = fragile.why(uid_of(made))
        ended = why and why["study"]["state"] == "done" and why["study"]["instances"] == len(made)
        return why if ended else {}

    one_set_of_results(pacs, until(whole, "all images of the study to be answered", seconds=60))


def test_an_end_in_mid_transfer_loses_nothing(fragile: Installation, pacs: Orthanc, tmp_path: Path) -> None:
    # Given a dcmsend that is stopped in the middle by the end of `up`
    made = phantoms.datasets(
        Phantom(shape=(300, 64, 64), spacing=(1.0, 2.0, 2.0), patient_id="CRASH-STOPPED-1")
    )
    files = phantoms.write(made, tmp_path / "stopped")
    fragile.note(*files)
    said = tmp_path / "dcmsend.txt"
    with said.open("w") as output:
        sender = subprocess.Popen(
            [*fragile.sender("dcmsend", "-v", "-nuc"), *map(str, files)],
            stdout=output,
            stderr=output,
            env=installation.environment(),
        )
    try:
        acknowledged = "Received C-STORE Response (Success)"
        until(lambda: said.read_text().count(acknowledged) >= 20, "some images to be acknowledged")
        took = fragile.stop()
        assert sender.wait(60) != 0
    finally:
        sender.kill()
        sender.wait()
    # It ended in time and the sender knows that it is not done
    assert took < GRACE_SECONDS
    count = said.read_text().count(acknowledged)
    assert 20 <= count < len(files)

    # When it is started again on the same storage, what was acknowledged is there
    fragile.start()
    assert fragile.why(uid_of(made))["study"]["instances"] >= count
    # And when the sender comes again, the study is answered once
    assert fragile.dcmsend(*files).returncode == 0
    why = fragile.done(uid_of(made), seconds=90)
    assert why["study"]["instances"] == len(files)
    assert [job["state"] for job in why["jobs"]][-1] == "done"


@pytest.mark.peer("dcmtk")
def test_a_full_disk_tells_the_sender_to_come_again(tmp_path: Path) -> None:
    made = installation.configure(tmp_path, node={"min_free_mb": 10**9})
    assert made.run("db", "upgrade").returncode == 0
    with made.role_process("listen") as listener:
        until(lambda: "listening as" in made.log, "the listener")
        files = phantoms.write(phantoms.datasets(Phantom(shape=(1, 32, 40))), tmp_path / "files")
        sent = made.storescu(*files)
        # 0xA700, by its name
        assert sent.returncode != 0
        assert "OutOfResources" in sent.stderr + sent.stdout
        until(lambda: made.rows("SELECT message FROM events WHERE kind = 'refused-for-space'"), "the event")
        listener.send_signal(signal.SIGTERM)
        assert listener.wait(30) == 0
    ((message,),) = made.rows("SELECT message FROM events WHERE kind = 'refused-for-space'")
    assert message.startswith("0xA700 for ") and "watermark" in message
    assert not list(tmp_path.glob("data/spool/[0-9]*"))
    assert not alive(listener.pid)
    assert made.patients_in_log() == []
