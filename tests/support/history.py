"""Years of work in a database at once: what the queries have to cope with, written past the product's functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Column, Connection, Table, text
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from db.base import Base, Database
from db.models import (
    Association,
    Decision,
    Delivery,
    Event,
    Finding,
    Instance,
    Job,
    Measurement,
    ResultObject,
    Segment,
    Series,
    Study,
)

_ROOT = "1.2.826.0.1.3680043.10.1234.20260101"
_CHUNK = 20_000
_Row = dict[str, Any]

#: The tables that grow with every study.
TABLES = (
    "associations",
    "studies",
    "series",
    "instances",
    "jobs",
    "decisions",
    "segments",
    "measurements",
    "findings",
    "result_objects",
    "deliveries",
    "events",
)


@dataclass(frozen=True, kw_only=True)
class History:
    """A hospital's studies, oldest first by id: three series, three jobs, six objects and deliveries each.

    The newest 20 still arrive, 60 more are being worked on. Of the others the oldest tenth is purged; one in
    a hundred failed, one in two hundred misses images, one in five hundred has a dead delivery.
    """

    studies: int
    #: When the newest study began to arrive; the oldest did so a year before.
    now: datetime
    #: So many of the newest have series of 300 images and long headers; the others' are short, to be quick.
    whole: int = 200
    receiving: int = 20
    working: int = 60
    #: What the tables were given, by name.
    counts: dict[str, int] = field(default_factory=dict)

    def write(self, database: Database) -> None:
        """Fill an empty, migrated database."""
        tables: tuple[tuple[type[Base], Callable[[int], Iterable[_Row]]], ...] = (
            (Association, self._association),
            (Study, self._study),
            (Series, self._series),
            (Instance, self._instances),
            (Job, self._jobs),
            (Decision, self._decisions),
            (Segment, self._segments),
            (Measurement, self._measurements),
            (Finding, self._findings),
            (ResultObject, self._objects),
            (Delivery, self._deliveries),
            (Event, self._events),
        )
        with database.engine.connect() as connection, connection.begin():
            for table, make in tables:
                rows = (row for number in range(1, self.studies + 1) for row in make(number))
                self.counts[table.__tablename__] = _insert(
                    connection, table.metadata.tables[table.__tablename__], rows
                )
        if database.engine.dialect.name == "postgresql":
            # As its autovacuum does; nothing ever does for SQLite, so it must do without.
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))

    def uid(self, number: int) -> str:
        """Study Instance UID of the study with this id."""
        return f"{_ROOT}.{number:08d}"

    # What a study is like, by its id

    def _age(self, number: int) -> int:
        """0 for the newest."""
        return self.studies - number

    def _at(self, number: int, seconds: float = 0) -> datetime:
        return (
            self.now - timedelta(days=365) * (self._age(number) / self.studies) + timedelta(seconds=seconds)
        )

    def _state(self, number: int) -> str:
        age = self._age(number)
        if age < self.receiving:
            return "receiving"
        if age < self.receiving + self.working:
            return "ready"
        return "purged" if number <= self.studies // 10 else "done"

    def _job_ids(self, number: int) -> range:
        """The ids of a study's jobs; one that still arrives has none."""
        return range(3 * number - 2, 3 * number + 1) if self._state(number) != "receiving" else range(0)

    def _job_state(self, job: int) -> str:
        number = (job + 2) // 3
        if self._state(number) == "ready":
            return ("queued", "running", "delivering")[job % 3] if self._age(number) % 2 else "delivering"
        if job % 300 == 0:
            return "failed"
        return "skipped" if job % 150 == 1 else "done"

    def _has_results(self, job: int) -> bool:
        return self._job_state(job) in ("done", "delivering")

    def _answered(self, number: int) -> Iterator[int]:
        return (job for job in self._job_ids(number) if self._has_results(job))

    # Rows

    def _association(self, number: int) -> Iterator[_Row]:
        is_open = self._age(number) < 3
        yield {
            "id": f"a{number:035d}",
            "process_id": "node:4711:1767225600.000",
            "peer": "modality",
            "calling_ae_title": "CT1",
            "called_ae_title": "SECONDREAD",
            "address": "10.1.2.3",
            "opened_at": self._at(number),
            "closed_at": None if is_open else self._at(number, 30),
            "outcome": "open" if is_open else "released",
        }

    def _study(self, number: int) -> Iterator[_Row]:
        state = self._state(number)
        evidence: _Row = {"signal": "associations released", "needed_seconds": 5.0, "quiet_seconds": 5.1}
        evidence |= {
            "instances": 900,
            "series": 3,
            "associations": [{"id": f"a{number:035d}", "peer": "modality", "outcome": "released"}],
        }
        if number % 200 == 0:
            evidence |= {"refused": 3, "refused_with": "0xA700"}
        yield {
            "id": number,
            "study_instance_uid": self.uid(number),
            "state": state,
            "patient_id": f"P{number % 40_000:07d}",
            "accession_number": f"ACC{number:09d}",
            "study_date": f"{self._at(number):%Y%m%d}",
            "study_description": "CT Thorax nativ",
            "received_at": self._at(number),
            "last_instance_at": self._at(number, 30),
            "arrivals": 900,
            "ready_at": None if state == "receiving" else self._at(number, 36),
            "done_at": self._at(number, 90) if state in ("done", "purged") else None,
            "evidence": None if state == "receiving" else evidence,
            "problem": "the images carry 2 different Patient IDs" if number % 1000 == 0 else "",
        }

    def _series(self, number: int) -> Iterator[_Row]:
        whole = self._age(number) < self.whole
        attributes: _Row = {f"Attribute{n}": "x" * 20 for n in range(80 if whole else 5)}
        for series in range(3 * number - 2, 3 * number + 1):
            yield {
                "id": series,
                "study_id": number,
                "series_instance_uid": f"{self.uid(number)}.{series}",
                "modality": "CT",
                "series_description": "Thorax 1.0 B70f",
                "attributes": {**attributes, "Modality": "CT"},
            }

    def _instances(self, number: int) -> Iterator[_Row]:
        count = 300 if self._age(number) < self.whole else 2
        if self._state(number) == "purged":
            return
        for series in range(3 * number - 2, 3 * number + 1):
            folder = f"{self.uid(number)}/{self.uid(number)}.{series}"
            for image in range(1, count + 1):
                uid = f"{self.uid(number)}.{series}.{image}"
                yield {
                    "series_id": series,
                    "sop_instance_uid": uid,
                    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
                    "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                    "path": f"{folder}/{uid}.dcm",
                    "size": 526_000,
                    "sha256": _digest(series * 1000 + image),
                    "patient_id": f"P{number % 40_000:07d}",
                    "association_id": f"a{number:035d}",
                    "received_at": self._at(number, image / 10),
                    "revision": 1,
                }

    def _jobs(self, number: int) -> Iterator[_Row]:
        for job in self._job_ids(number):
            state = self._job_state(job)
            ended = state in ("done", "failed", "skipped")
            running = state == "running"
            yield {
                "id": job,
                "study_id": number,
                "series_id": job,
                "revision": 1,
                "route": "chest ct",
                "model": ("chest-ct", "nodules", "emphysema")[job % 3],
                "model_version": "1.0.0",
                "model_digest": _digest(job % 3),
                "identity": _digest(job),
                "destinations": ["pacs"],
                "sends": {"pacs": {"profile": "default", "kinds": ["seg", "sr"], "max_megabytes": None}},
                "announce_to": ["pacs"],
                "unannounced": True,
                "state": state,
                "attempts": 0 if state in ("queued", "skipped") else 1,
                "created_at": self._at(number, 36),
                "nudged_at": self._at(number, 36),
                "started_at": None if state in ("queued", "skipped") else self._at(number, 37),
                "finished_at": self._at(number, 90) if ended else None,
                "lease_owner": "node:4712:1767225600.000" if running else "",
                "lease_until": self.now + timedelta(days=1) if running else None,
                "reason": {"failed": "missing-slice", "skipped": "study-problem"}.get(state, ""),
                "error": "2 slices are missing of 300" if state == "failed" else "",
                "engine": "openvino 2026.4 CPU float32",
                "seconds": {"read": 1.5, "infer": 20.1, "encode": 0.7} if ended else None,
                "notes": [],
            }

    def _decisions(self, number: int) -> Iterator[_Row]:
        leaf = {"subject": "Modality", "verdict": True, "test": "CT", "value": "CT", "note": "matches"}
        trace = {"subject": "all", "verdict": True, "children": [leaf, leaf, leaf]}
        for job in self._job_ids(number):
            yield {
                "study_id": number,
                "revision": 1,
                "series_id": job,
                "route": "chest ct",
                "model": "chest-ct",
                "matched": True,
                "reason": "the route and the model match",
                "trace": trace,
                "decided_at": self._at(number, 36),
            }

    def _segments(self, number: int) -> Iterator[_Row]:
        code = {"code_value": "39607008", "code_scheme": "SCT", "code_meaning": "Lung"}
        for job in self._answered(number):
            for segment, label in enumerate(("Left lung", "Right lung"), start=1):
                yield {"job_id": job, "number": segment, "label": label, "voxels": 1_000_000, **code}

    def _measurements(self, number: int) -> Iterator[_Row]:
        code = {"code_value": "118565006", "code_scheme": "SCT", "code_meaning": "Volume", "unit": "mL"}
        for job in self._answered(number):
            for measured in range(4):
                place = {"segment_number": measured % 2 + 1, "segment_label": "Lung"}
                key = ("volume", "laa950")[measured // 2]
                yield {"job_id": job, "key": key, "value": float(job % 1000), **place, **code}

    def _findings(self, number: int) -> Iterator[_Row]:
        code = {"code_value": "87433001", "code_scheme": "SCT", "code_meaning": "Emphysema"}
        for job in self._answered(number):
            finding = {"present": job % 10 == 0, "urgency": "routine", "explanation": "laa950 4.0 > 6.0"}
            yield {"job_id": job, "key": "emphysema", **finding, **code}

    def _objects(self, number: int) -> Iterator[_Row]:
        for job in self._answered(number):
            for result, kind in ((2 * job - 1, "seg"), (2 * job, "sr")):
                yield {
                    "id": result,
                    "job_id": job,
                    "kind": kind,
                    "path": f"{_digest(job)}/{kind}.dcm",
                    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4",
                    "sop_instance_uid": f"2.25.67035{result:033d}",
                    "series_instance_uid": f"2.25.67036{result:033d}",
                    "size": 500_000,
                    "sha256": _digest(result),
                    "verified": True,
                }

    def _deliveries(self, number: int) -> Iterator[_Row]:
        for job in self._answered(number):
            for result in (2 * job - 1, 2 * job):
                state = "pending" if self._job_state(job) == "delivering" else "sent"
                if state == "sent" and result % 3000 == 1:
                    state = "dead"
                elif state == "sent" and result % 2:
                    state = "committed"
                waits = state == "pending"
                yield {
                    "id": result,
                    "result_id": result,
                    "destination": "pacs",
                    "state": state,
                    "attempts": 1,
                    "created_at": self._at(number, 80),
                    "nudged_at": self._at(number, 80),
                    "first_attempt_at": self._at(number, 81),
                    "next_attempt_at": self.now + timedelta(minutes=15) if waits else None,
                    "sent_at": None if waits or state == "dead" else self._at(number, 82),
                    "status": 0xA900 if state == "dead" else 0,
                    "comment": "not today" if state == "dead" else "",
                }

    def _events(self, number: int) -> Iterator[_Row]:
        if number % 5 == 0:
            yield {
                "at": self._at(number, 40),
                "study_id": number,
                "kind": "late-images",
                "message": "images came",
            }
        if number % 50 == 0:
            message = f"0xA700 for {self.uid(number)}.1.1: the disk is below its watermark"
            refused = {"kind": "refused", "message": message, "association_id": f"a{number:035d}"}
            yield {"at": self._at(number, 10), "study_id": None, **refused}


def _digest(number: int) -> str:
    return f"{number:064x}"


def _insert(connection: Connection, table: Table, rows: Iterator[_Row]) -> int:
    """Write rows in bulk; columns that they do not name get the model's defaults. Returns how many."""
    defaults = {column.name: _default(column) for column in table.columns}
    names = [name for name in defaults if name != "id" or table.name in _WITH_IDS]
    tuples = (tuple({**defaults, **row}[name] for name in names) for row in rows)
    write = _copy if connection.dialect.name == "postgresql" else _execute_many
    return write(connection, table.name, names, tuples)


def _default(column: Column[Any]) -> Any:
    return column.default.arg if isinstance(column.default, ScalarElementColumnDefault) else None


#: Tables whose rows others refer to.
_WITH_IDS = ("associations", "studies", "series", "jobs", "result_objects", "deliveries")


def _copy(connection: Connection, table: str, names: list[str], rows: Iterator[tuple[Any, ...]]) -> int:
    count = 0
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([json.dumps(value) if isinstance(value, dict | list) else value for value in row])
            count += 1
    return count


def _execute_many(
    connection: Connection, table: str, names: list[str], rows: Iterator[tuple[Any, ...]]
) -> int:
    count = 0
    places = ", ".join("?" * len(names))
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"
    cursor = connection.connection.cursor()
    while chunk := [tuple(map(_sqlite, row)) for row in islice(rows, _CHUNK)]:
        cursor.executemany(statement, chunk)
        count += len(chunk)
    return count


def _sqlite(value: Any) -> Any:
    """A value as SQLAlchemy writes it to SQLite."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return json.dumps(value) if isinstance(value, dict | list) else value
