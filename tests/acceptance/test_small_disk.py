"""`secondread up` on a real small disk: it refuses in time, says so, makes room by itself, and goes on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest

from tests.acceptance import installation
from tests.acceptance.installation import DEMO_CT, Installation, until
from tests.support import disks, phantoms
from tests.support.disks import MEGABYTE
from tests.support.phantoms import Phantom

pytestmark = [pytest.mark.peer("dcmtk")]

#: MB. What is kept of the disk, and what retention makes room for.
DISK, KEPT, WANTED = 192, 48, 100
HOURS = timedelta(hours=3)
#: What storescu says of each image.
STORED = "Received Store Response (Success)"
REFUSED = "Received Store Response (Refused: OutOfResources)"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Images, results and database on one disk of 192 MB."""
    folder = tmp_path_factory.mktemp("small")
    with disks.small_disk(folder / "data", DISK):
        made = installation.configure(
            folder, node={"min_free_mb": KEPT}, retention={"free_mb": WANTED}, work={"threads": 1}
        )
        with installation.running(made) as running:
            yield running


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four studies of 50 MB that no model wants."""
    folders = []
    for number in range(4):
        folder = tmp_path_factory.mktemp(f"mr{number}")
        phantom = Phantom(shape=(25, 1024, 1024), modality="MR", patient_id=f"LARGE-PATIENT-{number}")
        for index, ds in enumerate(phantoms.datasets(phantom)):
            ds.save_as(folder / f"{index:03}.dcm", enforce_file_format=True)
        folders.append(folder)
    return folders


def uid_of(folder: Path) -> str:
    return str(
        pydicom.dcmread(next(iter(sorted(folder.iterdir()))), stop_before_pixels=True).StudyInstanceUID
    )


def send_all(node: Installation, folders: list[Path]) -> str:
    """Send folders at the same time, each image whatever became of the one before; what the senders said."""
    node.note(*(path for folder in folders for path in folder.iterdir()))
    senders = [
        subprocess.Popen(
            [*node.sender("storescu", "-v", "-nh", "+sd"), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=installation.environment(),
        )
        for folder in folders
    ]
    return "".join(sender.communicate(timeout=120)[0] for sender in senders)


def backdate(node: Installation, uid: str) -> None:
    """Let a study have come, and ended, three hours ago."""
    with closing(sqlite3.connect(node.folder / "data" / "secondread.db", timeout=30)) as database:
        then = (datetime.now(UTC) - HOURS).strftime("%Y-%m-%d %H:%M:%S.%f")
        database.execute(
            "UPDATE studies SET last_instance_at = ?, done_at = ? WHERE study_instance_uid = ?",
            (then, then, uid),
        )
        database.commit()
    old = time.time() - HOURS.total_seconds()
    for path in (node.folder / "data" / "spool" / uid).rglob("*.dcm"):
        os.utime(path, (old, old))


def images(node: Installation, folder: Path) -> int:
    """How many images of a study are on disk."""
    return len(list((node.folder / "data" / "spool" / uid_of(folder)).rglob("*.dcm")))


def rows_and_files_agree(node: Installation) -> bool:
    """Every row has its file, every file its row."""
    spool = node.folder / "data" / "spool"
    rows = {row[0] for row in node.rows("SELECT path FROM instances")}
    return rows == {str(path.relative_to(spool)) for path in spool.glob("[0-9]*/*/*.dcm")}


def it_is_said_once(node: Installation) -> None:
    """Since when images are refused: events, page, metrics, doctor."""
    until(lambda: node.events("space-short"), "the event that tells of it")
    assert len(node.events("space-short")) == 1
    assert node.events("refused") == node.events("refused-for-space") == []
    assert "images are refused since" in str(node.get("/"))
    metrics = str(node.get("/metrics"))
    (short,) = [line for line in metrics.splitlines() if line.startswith("secondread_space_short_seconds ")]
    assert float(short.split()[1]) > 0
    assert "every image is refused now" in str(node.run("doctor", "--json").stdout)


def test_a_disk_that_fills(small: Installation, studies: list[Path]) -> None:
    data, chest = small.folder / "data", uid_of(DEMO_CT)
    # Given a chest CT, and then more images than the disk can hold
    assert small.dcmsend(DEMO_CT).returncode == 0
    said = send_all(small, studies)
    stored, refused = said.count(STORED), said.count(REFUSED)
    assert stored + refused == 100 and refused > 10, said[-2000:]

    # Then the reserve is left to what is at work: the CT gets its answer
    assert disks.free(data) > (KEPT - 16) * MEGABYTE
    assert small.done(chest)["jobs"][0]["state"] == "done"
    held = {uid_of(folder): images(small, folder) for folder in studies}
    assert sum(held.values()) == stored
    # What was refused in its middle takes no space
    assert list((data / "spool" / "partial").glob("*.part")) == []
    it_is_said_once(small)

    # When even the last byte is taken by somebody else
    disks.fill(data / "somebody-else")
    assert REFUSED in send_all(small, studies[:1])
    time.sleep(3)
    (data / "somebody-else").unlink()
    # Then all of what was acknowledged is done by itself
    for uid in [uid for uid, count in held.items() if count]:
        small.done(uid, seconds=90)
    assert rows_and_files_agree(small)

    # When studies are old enough, the oldest go until there is room
    oldest = max(held, key=lambda uid: held[uid])
    backdate(small, oldest)
    until(lambda: small.why(oldest)["study"]["state"] == "purged", "the oldest study to be purged")
    until(lambda: not (data / "spool" / oldest).exists(), "its files to be gone")
    assert small.why(oldest)["study"]["instances"] == held[oldest]
    assert small.why(chest)["study"]["state"] == "done"
    until(lambda: small.events("space-again"), "the event that it is over")

    # And what was refused is taken when it comes again
    lacking = next(folder for folder in studies if uid_of(folder) != oldest and images(small, folder) < 25)
    before = images(small, lacking)
    send_all(small, [lacking])
    assert images(small, lacking) > before
    until(lambda: rows_and_files_agree(small), "a row for each file")
    assert small.rows("PRAGMA integrity_check") == [("ok",)]
    assert small.rows("SELECT count(*) FROM doomed_files") == [(0,)]
