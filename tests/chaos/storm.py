"""A storm from its first errand to the verdict: node, receiver, traffic, faults, calm, check."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests.acceptance import installation
from tests.acceptance.installation import Installation
from tests.chaos import checker, plan
from tests.chaos.checker import Report
from tests.chaos.disk import SmallDisk, small_disk
from tests.chaos.killer import Killer
from tests.chaos.ledger import Ledger
from tests.chaos.node import Node
from tests.chaos.plan import Storm
from tests.chaos.servers import DatabaseServer, Receiver, stoppable
from tests.chaos.traffic import Traffic
from tests.support import orthanc as orthanc_support
from tests.support.postgres import postgres_cluster
from tests.worker import journey

#: Space of the storage folder's own disk.
DISK_MIB = 2048
#: Below this the node refuses images.
WATERMARK_MIB = 64


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that a storm blows through."""

    storm: Storm
    node: Node
    receiver: Receiver
    disk: SmallDisk
    database: DatabaseServer | None
    #: Asks the node's database, by plain SQL.
    query: checker.Query

    @property
    def storage(self) -> Path:
        """The node's storage folder."""
        return self.disk.folder


@dataclass(kw_only=True)
class Outcome:
    """What came of a storm."""

    report: Report
    #: What happened to the senders.
    traffic: Counter[str]
    #: Faults, by name.
    faults: Counter[str]
    #: Seconds until what was killed ran again, by name.
    back: dict[str, list[float]]
    #: Seconds from start to ready, of each start of `up`.
    starts: list[float]
    #: Seconds of traffic and faults, and until all was quiet afterwards.
    seconds: float
    calm_seconds: float
    failures: list[BaseException] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether every promise was kept and the harness itself did what it should."""
        return self.report.kept and not self.failures


@contextmanager
def scene(
    storm: Storm, folder: Path, *, database: str = "sqlite", commitment: bool = False
) -> Iterator[Scene]:
    """A node that is ready, its receiver and its disk; `database` is sqlite, postgres or a URL."""
    with ExitStack() as stack:
        orthanc = stack.enter_context(orthanc_support.running(folder / "pacs"))
        receiver = stack.enter_context(stoppable(orthanc))
        disk = stack.enter_context(small_disk(folder / "data", mib=DISK_MIB))
        server, url = None, database
        if database == "postgres":
            cluster = stack.enter_context(postgres_cluster(folder, "fsync=on"))
            server, url = DatabaseServer(cluster), cluster.create("storm")
            stack.callback(server.stop)
        made = configure(folder, receiver, storm, database=url, commitment=commitment)
        receiver.know(name="secondread", ae_title="SECONDREAD", port=made.dicom_port)
        node = Node(made)
        stack.callback(node.end)
        node.start()
        query = asking(made.folder / "data" / "secondread.db" if url == "sqlite" else url)
        yield Scene(storm=storm, node=node, receiver=receiver, disk=disk, database=server, query=query)


def configure(
    folder: Path, receiver: Receiver, storm: Storm, *, database: str, commitment: bool
) -> Installation:
    """A node with a model that answers at once, short times and many attempts: each dies often here."""
    journey.write_model(folder / "models" / "tiny")
    orthanc = receiver.orthanc
    pacs = {"name": "pacs", "ae_title": orthanc.ae_title, "host": "127.0.0.1", "port": orthanc.dicom_port}
    pacs |= {"commitment": commitment, "timeout_seconds": 10}
    senders = [
        {"name": name, "ae_title": title, "host": "127.0.0.1"}
        for name, title in (("scanner", "SCANNER"), ("odd sender", "RAW"))
    ]
    return installation.configure(
        folder,
        node={
            "quiet_seconds": storm.quiet,
            "long_quiet_seconds": 4 * storm.quiet,
            "min_free_mb": WATERMARK_MIB,
        },
        database=database,
        models=[str(folder / "models")],
        peers=[*senders, pacs],
        routes=[{"name": "storm", "when": {"Modality": "CT"}, "run": ["tiny"], "send_to": ["pacs"]}],
        work={"lease_seconds": storm.lease, "max_attempts": 50, "threads": 1},
    )


def asking(database: Path | str) -> checker.Query:
    """Plain SQL to a SQLite file, or to the PostgreSQL of a SQLAlchemy URL."""

    def ask_file(query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def ask_server(query: str) -> list[tuple[Any, ...]]:
        url = make_url(str(database)).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url) as connection:
            return connection.execute(query).fetchall()

    return ask_file if isinstance(database, Path) else ask_server


def blow(
    scene: Scene, *, say: Callable[[str], None] = lambda line: None, calm_within: float = 300
) -> Outcome:
    """Traffic and faults side by side, then calm, then the check."""
    storm, ledger = scene.storm, Ledger()
    traffic = Traffic(storm, plan.errands(storm), scene.node.made.dicom_port, ledger)
    killer = Killer(
        node=scene.node,
        receiver=scene.receiver,
        disk=scene.disk,
        database=scene.database,
        seed=storm.seed,
        say=say,
    )
    began = time.monotonic()
    sending = threading.Thread(target=traffic.run, name="traffic", daemon=True)
    sending.start()
    try:
        killer.run(plan.faults(storm))
        sending.join(storm.seconds + calm_within)
    finally:
        traffic.stop()
        sending.join()
    seconds = time.monotonic() - began
    calm = _wait_for_calm(scene, ledger, calm_within)
    ledger.write(scene.node.made.folder / "ledger.jsonl")
    stopped, left = scene.node.stop(), scene.node.left()
    # What dies in the last moment is tidied up by the next start; then nothing may be left.
    scene.node.start()
    calm += _wait_for_calm(scene, ledger, calm_within)
    _wait_for_tidiness(scene)
    report = checker.check(
        ledger.entries(), storage=scene.storage, query=scene.query, held=scene.receiver.objects()
    )
    if stopped != 0:
        report.wrong("no orderly end", f"`up` ended with {stopped}")
    for command in left:
        report.wrong("process left", command)
    if missing := storm.studies * storm.slices - sum(not entry.other_bytes for entry in ledger.entries()):
        report.wrong("image never taken", f"{missing} images were not acknowledged in the end")
    return Outcome(
        report=report,
        traffic=ledger.counts,
        faults=killer.counts,
        back=dict(killer.back),
        starts=scene.node.starts,
        seconds=seconds,
        calm_seconds=calm,
        failures=[*killer.failures, *traffic.failures],
    )


def _wait_for_calm(scene: Scene, ledger: Ledger, within: float) -> float:
    """Until nothing is under way any more, or time is over; the seconds that took."""
    began = time.monotonic()
    studies = {entry.study_instance_uid for entry in ledger.entries()}
    busy = (
        "SELECT (SELECT COUNT(*) FROM studies WHERE state NOT IN ('done', 'purged')), "
        "(SELECT COUNT(*) FROM deliveries WHERE state = 'pending'), (SELECT COUNT(*) FROM studies)"
    )
    while time.monotonic() < began + within:
        [(open_studies, pending, known)] = scene.query(busy)
        if not open_studies and not pending and known >= len(studies):
            return time.monotonic() - began
        time.sleep(0.25)
    return within


def _wait_for_tidiness(scene: Scene, *, within: float = 30) -> None:
    """Until the sweep's first looks are over: the checker says whether they found everything."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        report = Report()
        checker.check_files(report, scene.storage, scene.query)
        if report.kept:
            return
        time.sleep(1)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder whose name is short enough for a unix socket below it."""
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        yield Path(name)
