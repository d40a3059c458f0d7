"""A study's journey, really run: phantoms through a real spool, a tiny real network, a PACS in memory."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from pydicom.dataset import Dataset
from sqlalchemy import select, update

from db import associations, commitments, deliveries, duplicates, jobs, leases, models, studies
from db.base import Database
from db.states import JobState
from dicom_node.commitment import CommitmentAsk, CommitmentReport, Failure, FailureReason
from dicom_node.instance import StoredInstance
from dicom_node.senders import Destination, Sender
from dicom_node.senders.files import FileToSend
from dicom_node.senders.memory import MemorySender
from dicom_node.spool import Spool
from tests.engines import build
from tests.support import phantoms
from tests.support.listening import data_set_bytes
from worker import announcing, commitment_ledger, completeness, criteria, pipeline, status, views
from worker.bench import Bench, Post
from worker.lightbox import LightBox
from worker.loop_guard import ConfiguredGuard
from worker.routing import RouteRule
from worker.sections import Guard
from worker.shelf import Shelf

#: The journeys' present: long after whatever the clock says, so that every quiet time is over.
NOW = datetime(2099, 3, 2, 9, 30, tzinfo=UTC)
QUIET, LONG_QUIET = timedelta(seconds=5), timedelta(seconds=60)
LEASE = timedelta(minutes=5)

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.71", "1.2.826.0.1.3680043.8.498.71.1"

#: Who the patient is, in words that nothing else would say: no log line and no message may hold one.
NAME, ID, ACCESSION = "Quolliper^Zyxwina", "PIDQQ7731", "ACCXJ9921"
TOKENS = ("Quolliper", "Zyxwina", ID, ACCESSION)

#: Voxels above 0 HU, and above 500 HU.
LOW, HIGH = 0.5, 0.75


class Crash(BaseException):
    """The process ends here: nothing may catch it."""


def write_model(folder: Path, **more: Any) -> Path:
    """A package that marks tissue above 0 HU as "body" and above 500 HU as "bone"; `more` is for its manifest."""
    network = build.thresholds((LOW, HIGH))
    changes: dict[str, Any] = {
        "outputs": [{"name": "logits", "labels": [build.label(1, "body"), build.label(2, "bone")]}],
        "inputs": [build.entry(series={"Modality": "CT"})],
        "measurements": [
            build.measurement("volume", "volume", of=["body", "bone"]),
            build.measurement("dense", "percent_above", of=["bone"], threshold=900),
        ],
        "findings": [
            {"key": "calcified", "code": build.code("36222008", "Calcification")}
            | {"measurement": "dense", "above": 20},
        ],
    }
    return build.write(folder, network, **changes | more)


def datasets(phantom: phantoms.Phantom | None = None, **changes: Any) -> list[Dataset]:
    """The images of a phantom under fixed UIDs, of the unusual patient."""
    values: dict[str, Any] = {"study_uid": STUDY, "series_uid": SERIES, "shape": (6, 32, 40)}
    values |= {"patient_name": NAME, "patient_id": ID}
    made = phantoms.datasets(replace(phantom or phantoms.Phantom(), **values | changes))
    for number, ds in enumerate(made, start=1):
        ds.AccessionNumber = ACCESSION
        ds.SOPInstanceUID = f"{ds.SeriesInstanceUID}.{number}"
        ds.FrameOfReferenceUID = f"{ds.SeriesInstanceUID}.0"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return made


def route(name: str = "chest ct", *, when: Any = None, **values: Any) -> RouteRule:
    """A route that sends CT to the tiny model and its results to the PACS."""
    rule = {"name": name, "run": ("tiny",), "send_to": ("pacs",)} | values
    return RouteRule(when=criteria.parse({"Modality": "CT"} if when is None else when), **rule)


@dataclass(kw_only=True)
class Journey:
    """Everything of one installation, and its steps by name."""

    database: Database
    storage: Path
    shelf: Shelf
    routes: list[RouteRule] = field(default_factory=lambda: [route()])
    pacs: dict[str, MemorySender] = field(default_factory=dict)
    destinations: dict[str, Destination] = field(
        default_factory=lambda: {
            name: Destination(name=name, kind="memory") for name in ("pacs", "workstation")
        }
    )
    open_sender: Callable[[Destination], Sender] | None = None
    ask_commitment: Callable[..., None] | None = None
    guard: ConfiguredGuard = field(default_factory=lambda: ConfiguredGuard.of(Guard()))
    #: Keeps nothing, unless a test says so.
    lightbox: LightBox = field(default_factory=LightBox)
    #: Of the reports in words.
    language: str = "en"
    #: Whether node.conflicts is keep-last.
    keep_last: bool = False
    #: Peers that are asked for their own number of images.
    counting: frozenset[str] = frozenset()
    #: Grows with each worker that died.
    owner: int = 1

    @property
    def bench(self) -> Bench:
        """An analysing worker's."""
        return Bench(
            database=self.database,
            shelf=self.shelf,
            lightbox=self.lightbox,
            spool_root=self.storage / "spool",
            results_root=self.storage / "results",
            owner=f"worker-{self.owner}",
            lease=LEASE,
            language=self.language,
        )

    @property
    def post(self) -> Post:
        """A sending worker's."""
        return Post(
            database=self.database,
            results_root=self.storage / "results",
            destinations=self.destinations,
            open_sender=self.open_sender or self._memory,
            ask_commitment=self.ask_commitment or self._promise,
            owner=f"worker-{self.owner}",
        )

    def _memory(self, destination: Destination) -> MemorySender:
        return self.pacs.setdefault(destination.name, MemorySender())

    def _promise(self, destination: Destination, ask: CommitmentAsk, *, on_report: Any, **_: Any) -> None:
        """A PACS in memory commits at once to what it has."""
        has = {file.sop_instance_uid for file in self._memory(destination).sent}
        missing = [each for each in ask.references if each.sop_instance_uid not in has]
        on_report(
            CommitmentReport(
                transaction_uid=ask.transaction_uid,
                committed=tuple(each for each in ask.references if each not in missing),
                failed=tuple(
                    Failure(reference=each, reason=FailureReason.NO_SUCH_INSTANCE) for each in missing
                ),
            )
        )

    def sent(self, name: str = "pacs") -> list[FileToSend]:
        """What a destination got, in order."""
        return self._memory(self.destinations[name]).sent

    # The steps

    def store(
        self, made: Sequence[Dataset], *, association: str | None = "a1", outcome: str = "released"
    ) -> list[StoredInstance]:
        """Make data sets durable, as the listener does; `outcome` "open" leaves the association open."""
        if association is not None:
            self.associate(association, outcome)
        with Spool(self.storage / "spool", watermark_bytes=0) as spool:
            return [
                spool.store(
                    data_set_bytes(ds),
                    sop_class_uid=str(ds.SOPClassUID),
                    sop_instance_uid=str(ds.SOPInstanceUID),
                    transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
                    association_id=association,
                )
                for ds in made
            ]

    def associate(self, association: str, outcome: str = "released") -> None:
        """The row of an association, and how it ended."""
        row = {"id": association, "process_id": "listener", "peer": "modality", "address": "127.0.0.1"}
        row |= {"calling_ae_title": "CT1", "called_ae_title": "SECONDREAD", "outcome": "open", "reason": ""}
        now = datetime.now(UTC)
        with self.database.write() as session:
            associations.record(session, {**row, "opened_at": now})
            if outcome != "open":
                associations.close(session, association, outcome=outcome, at=now)

    def receive(
        self, stored: Sequence[StoredInstance], read_series: set[tuple[str, str]] | None = None
    ) -> None:
        """Step 1."""
        pipeline.receive(
            self.database,
            self.storage / "spool",
            stored,
            guard=self.guard,
            keep_last=self.keep_last,
            read_series=set() if read_series is None else read_series,
        )

    def close(self, now: datetime = NOW) -> list[int]:
        """Step 2."""
        return pipeline.close(
            self.database,
            routes=self.routes,
            models=self.shelf.rules,
            patience=completeness.Patience(quiet=QUIET, long_quiet=LONG_QUIET, counting=self.counting),
            now=now,
        )

    def analyse(self, job_id: int) -> list[int]:
        """Step 3."""
        return pipeline.analyse(self.bench, job_id)

    def announce(self) -> None:
        """What the sweep does of a job that failed, and then the senders."""
        announcing.announce(self.bench, datetime.now(UTC))
        with self.database.read() as session:
            due = deliveries.due(session, now=datetime.now(UTC), nudged_before=datetime.now(UTC))
        for delivery_id in due:
            self.deliver(delivery_id)

    def deliver(self, delivery_id: int) -> None:
        """Step 4."""
        pipeline.deliver(self.post, delivery_id)

    def commit(self, delivery_id: int) -> None:
        """Step 5."""
        pipeline.commit(self.post, delivery_id)

    def arrive(self, made: Sequence[Dataset], **how: Any) -> list[int]:
        """Steps 1 and 2: the ids of the jobs to run."""
        self.receive(self.store(made, **how))
        return self.close()

    def follow(self, job_ids: Sequence[int]) -> None:
        """Steps 3, 4 and 5 of every job."""
        for delivery_id in [found for job_id in job_ids for found in self.analyse(job_id)]:
            self.deliver(delivery_id)
            self.commit(delivery_id)

    def run(self, made: Sequence[Dataset], **how: Any) -> None:
        """The whole journey."""
        self.follow(self.arrive(made, **how))

    # What goes wrong, and what puts it right

    def die(self, step: Callable[[], Any]) -> None:
        """Take a step in which the process may die; another process goes on."""
        with suppress(Crash):
            step()
        self.owner += 1

    def recover(self) -> None:
        """What the sweep finds to do once every lease is over, until there is nothing more."""
        self.expire()
        with self.database.write() as session:
            for job in leases.expired(session, datetime.now(UTC)):
                leases.leave_running(session, job.id, JobState.QUEUED, owner=job.lease_owner, nudged_at=None)
        commitment_ledger.look_after(self.post, datetime.now(UTC) + 2 * commitment_ledger.REPORT_WAIT)
        self.expire()
        self.close()
        while True:
            now = datetime.now(UTC)
            with self.database.read() as session:
                waiting = jobs.unheard(session, now=now, nudged_before=now)
                due = deliveries.due(session, now=now, nudged_before=now)
                unpromised = commitments.due(session, now=now, nudged_before=now)
            if not waiting and not due and not unpromised:
                return
            for job_id in waiting:
                self.analyse(job_id)
            for delivery_id in due:
                self.deliver(delivery_id)
            for delivery_id in [*due, *unpromised]:
                self.commit(delivery_id)

    def expire(self) -> None:
        """Let every lease and every wait be over."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        with self.database.write() as session:
            session.execute(
                update(models.Job).where(models.Job.lease_until.is_not(None)).values(lease_until=past)
            )
            session.execute(
                update(models.Delivery)
                .where(models.Delivery.lease_until.is_not(None))
                .values(lease_until=past)
            )
            session.execute(
                update(models.Delivery)
                .where(models.Delivery.next_attempt_at.is_not(None))
                .values(next_attempt_at=past)
            )

    # What is there

    def why(self, study: str = STUDY) -> views.Why:
        """What `secondread why` says."""
        with self.database.read() as session:
            return status.why(session, study)

    def job(self) -> views.JobDetail:
        """The study's one job."""
        (job,) = self.why().jobs
        return job

    def rows(self, table: type[Any]) -> list[Any]:
        """Every row of a table in the order of its ids."""
        with self.database.read() as session:
            return list(session.scalars(select(table).order_by(table.id)))

    def facts(self) -> dict[str, Any]:
        """Every row of the journey, without ids, clocks and counts of attempts."""
        with self.database.read() as session:
            study = studies.by_uid(session, STUDY)
            answer = status.why(session, STUDY)
            counts = duplicates.count(session, [study.id])
        found = answer.model_dump(exclude={"evidence": {"quiet_seconds"}, "events": True})
        _forget(found, "age_seconds", "received_at", "attempts", "started_at", "finished_at", "seconds")
        _forget(found, "sent_at", "committed_at", "id", "job_id", "replaced_by")
        for job in found["jobs"]:
            job["deliveries"].sort(key=lambda row: (row["destination"], row["kind"]))
        files = {
            str(path.relative_to(self.storage / "results")): path.read_bytes()
            for path in (self.storage / "results").rglob("*.dcm")
        }
        return found | {
            "instances": sum(held.images + held.set_aside for held in counts.values()),
            "files": files,
        }


def _forget(found: Any, *names: str) -> None:
    if isinstance(found, dict):
        for name in names:
            found.pop(name, None)
        for inner in found.values():
            _forget(inner, *names)
    elif isinstance(found, list):
        for inner in found:
            _forget(inner, *names)


@dataclass
class Crashing:
    """While the block runs, the process dies before `target` is called, or as its `calls`-th call ends."""

    target: str
    calls: int = 0

    def __enter__(self) -> None:
        original, made = pkgutil.resolve_name(self.target), 0

        def die(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            answer = original(*args, **kwargs) if self.calls else None
            if made >= self.calls:
                raise Crash
            return answer

        self._patch = mock.patch(self.target, side_effect=die)
        self._replaced = self._patch.start()

    def __exit__(self, *_: object) -> None:
        self._patch.stop()
        assert self._replaced.called, f"{self.target} was never reached: the test proves nothing"


def crash_before(target: str) -> Crashing:
    """The process dies as `target` is called."""
    return Crashing(target)


def crash_after(target: str, *, calls: int = 1) -> Crashing:
    """The process dies as `target` returns for the `calls`-th time."""
    return Crashing(target, calls)
