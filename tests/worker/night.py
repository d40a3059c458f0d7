"""A night at a hospital, written through the functions that the product uses, for what shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import associations, deliveries, events, intake, jobs, leases, migrate, results, studies
from db.base import Database
from db.models import Delivery
from db.states import JobState
from tests.db import rows
from tests.engines import build
from tests.worker import answer, compiled
from worker import broker, completeness, pipeline, sections, settings, station
from worker.station import Station

#: The chest CT that went well.
CHEST = "1.2.826.0.1.3680043.8.498.1001"
#: Slices are missing.
GAPPED = "1.2.826.0.1.3680043.8.498.1002"
#: Its results were refused by the PACS.
UNDELIVERED = "1.2.826.0.1.3680043.8.498.1003"
#: No route wants it.
BRAIN = "1.2.826.0.1.3680043.8.498.1004"
#: Two patients.
MIXED = "1.2.826.0.1.3680043.8.498.1005"
#: It runs just now.
RUNNING = "1.2.826.0.1.3680043.8.498.1006"
#: It is still arriving.
ARRIVING = "1.2.826.0.1.3680043.8.498.1007"


def open_station(storage: Path, **values: Any) -> Station:
    """A station on SQLite with one tiny model "chest-ct", one peer and one route; no row yet."""
    folder = storage / "models" / "chest-ct"
    if not folder.exists():
        build.write(
            folder,
            build.network(classes=4),
            name="chest-ct",
            version="0.4.1",
            intended_use="Segments lungs and body on CT. For research, not for diagnosis.",
            outputs=[{"name": "logits", "labels": answer.LABELS}],
        )
    opened = station.open_station(
        settings.Settings(
            storage=storage,
            models=(storage / "models",),
            peers=(sections.Peer(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=4242),),
            routes=(
                sections.Route(
                    name="chest ct",
                    when={
                        "Modality": "CT",
                        "any": [{"BodyPartExamined": "CHEST"}, {"SeriesDescription": "*thor*"}],
                    },
                    run=("chest-ct",),
                    send_to=("pacs",),
                ),
            ),
            **values,
        )
    )
    migrate.upgrade(opened.database)
    return opened


def tell(here: Station, *, until: datetime | None = None) -> None:
    """Write the whole night; it ends `until`, by default now."""
    now = until or datetime.now(UTC)
    ago = lambda **time: now - timedelta(**time)  # noqa: E731
    send(here, BRAIN, ago(hours=5), modality="MR", count=24, study="MR brain", series="t1 mprage sag")
    send(here, CHEST, ago(hours=3, minutes=12), count=40, accession="A10023", patient="PAT-0042")
    send(here, UNDELIVERED, ago(hours=2), count=12, study="CT chest follow-up", patient="PAT-0077")
    send(
        here, MIXED, ago(minutes=55, seconds=2), count=2, study="CT thorax", patient="PAT-0101", settle=False
    )
    send(here, MIXED, ago(minutes=55), count=2, first=3, patient="PAT-0102")
    send(here, GAPPED, ago(minutes=40), count=18, patient="PAT-0103")
    send(here, RUNNING, ago(seconds=48), count=30, patient="PAT-0104", study="CT Thorax mit KM")
    made = queued(here)
    compiled.keep(here)
    compiled.keep_refusals(here)
    finish(here, made[CHEST], ago(hours=3, minutes=11, seconds=53), engine=compiled.ENGINE)
    refused = ago(hours=1, minutes=59, seconds=53)
    finish(here, made[UNDELIVERED], refused, status=0xA900, engine=compiled.FALLBACK)
    fail(here, made[GAPPED], ago(minutes=39, seconds=53))
    with here.database.write() as session:
        claimed = leases.claim(session, made[RUNNING], owner="w", now=ago(seconds=31), lease=rows.LEASE)
        assert claimed is not None
    send(here, ARRIVING, ago(seconds=2), count=7, patient="PAT-0105", ended=False)
    with here.database.write() as session:
        message = "MOD17 at 10.20.3.9 was rejected: the calling AE title is not a configured peer"
        events.note(session, "rejected", message)
    beat(here)


def send(
    here: Station,
    uid: str,
    at: datetime,
    *,
    count: int,
    first: int = 1,
    modality: str = "CT",
    study: str = "CT Thorax nativ",
    series: str = "Thorax 2.0 B70f",
    patient: str = "PAT-0001",
    accession: str = "",
    ended: bool = True,
    settle: bool = True,
) -> None:
    """An association that carries `count` images of a study, and the sweep after it."""
    association = f"a{uid[-4:]}-{first}"
    attributes = {"Modality": modality, "StudyDescription": study, "SeriesDescription": series}
    attributes |= {"StudyDate": f"{at:%Y%m%d}", "SliceThickness": 2.0, "AccessionNumber": accession}
    with here.database.write() as session:
        associations.record(session, _association(association, at, here.process_id))
        intake.record_instances(
            session,
            [
                rows.new_instance(
                    number,
                    study=uid,
                    patient_id=patient,
                    modality=modality,
                    received_at=at,
                    association_id=association,
                    attributes=attributes if number == first else None,
                )
                for number in range(first, first + count)
            ],
        )
        if ended:
            associations.close(session, association, outcome="released", at=at)
    if ended and settle:
        close(here, at + timedelta(seconds=6))


def _association(uid: str, at: datetime, process_id: str) -> dict[str, Any]:
    return {
        "id": uid,
        "process_id": process_id,
        "peer": "pacs",
        "calling_ae_title": "ORTHANC",
        "called_ae_title": "SECONDREAD",
        "address": "127.0.0.1",
        "opened_at": at,
        "outcome": "open",
        "reason": "",
    }


def close(here: Station, now: datetime) -> None:
    """Close what is complete, as the sweep does."""
    node = here.settings.node
    pipeline.close(
        here.database,
        routes=here.routes,
        models=here.shelf.rules,
        patience=completeness.Patience(
            quiet=timedelta(seconds=node.quiet_seconds),
            long_quiet=timedelta(seconds=node.long_quiet_seconds),
        ),
        now=now,
    )


def queued(here: Station) -> dict[str, int]:
    """Ids of the queued jobs by Study Instance UID."""
    with here.database.read() as session:
        found = jobs.newest(session, state=JobState.QUEUED)
        return {job.study.study_instance_uid: job.id for job in found}


def finish(
    here: Station, job_id: int, at: datetime, *, status: int = 0, engine: str = "openvino 2026.4 CPU float32"
) -> None:
    """A job that ends with objects, and what the PACS answers to them."""
    end = at + timedelta(seconds=22)
    with here.database.write() as session:
        job = leases.claim(session, job_id, owner="w", now=at, lease=rows.LEASE)
        assert job is not None
        results.replace_findings(session, job_id, **answer.found())
        made = [answer.result_object(job, "seg", 66_4), answer.result_object(job, "sr", 88_34)]
        ids = results.replace_objects(session, job_id, made, destinations=["pacs"], at=end)
        leases.leave_running(
            session,
            job_id,
            JobState.DELIVERING,
            owner="w",
            engine=engine,
            seconds={"load": 0.02, "read": 1.31, "preprocess": 0.88, "infer": 11.42}
            | {"postprocess": 2.13, "measure": 0.47, "encode": 3.9, "pictures": 1.02},
            report=answer.report(),
            notes=["slice spacing varies by 0.02 mm; the mean is used"],
        )
        deliveries.claim(session, ids[0], owner="d", now=end, lease=rows.LEASE)
        for delivery_id in ids:
            if status:
                deliveries.dead(
                    session,
                    delivery_id,
                    owner="d",
                    status=status,
                    comment="Data set does not match SOP class",
                )
            else:
                deliveries.sent(session, delivery_id, owner="d", at=end, status=0, comment="")
        if status:
            events.note(session, "dead-delivery", "seg to pacs is dead", study_id=job.study_id, job_id=job_id)
        jobs.settle_delivering(session, job_id, end)
        studies.finish_if_ended(session, job.study_id, end)
    answer.draw(here.settings.results / job.identity)


def fail(here: Station, job_id: int, at: datetime) -> None:
    """A job that ends without a result."""
    with here.database.write() as session:
        leases.claim(session, job_id, owner="w", now=at, lease=rows.LEASE)
        leases.leave_running(
            session,
            job_id,
            JobState.FAILED,
            owner="w",
            reason="missing-slice",
            error="2 slices are missing: the gaps at 144.0 mm and 152.0 mm are twice the slice spacing (2.0 mm)",
            seconds={"read": 0.21},
            finished_at=at + timedelta(seconds=1),
        )
        studies.finish_if_ended(session, jobs.get(session, job_id).study_id, at + timedelta(seconds=1))


def beat(here: Station, *roles: str) -> None:
    """Signs of life, by default from every role."""
    now = datetime.now(UTC)
    with here.database.write() as session:
        for index, role in enumerate(roles or ("listen", "listen", "cpu", "deliver", "sweep", "web")):
            associations.heartbeat(
                session, process_id=f"ward-3:{4100 + index}:{index}", role=role, started_at=now, at=now
            )


def queue(here: Station) -> Celery:
    """An app whose broker is the embedded one of the station's storage, whether it runs or not."""
    app = Celery("test", set_as_current=False)
    app.config_from_object("worker.queueing")
    app.conf.broker_url = broker.url(here.settings)
    return app


def job_of(database: Database, uid: str) -> int:
    """The id of a study's newest job."""
    with database.read() as session:
        return studies.by_uid(session, uid).jobs[-1].id


def overtake(database: Database, job_id: int) -> int:
    """The id of a newer revision's job of the same model about the same series, which takes its place."""
    with database.write() as session:
        old = jobs.get(session, job_id)
        old.study.revision += 1
        newer = rows.make_job(
            session,
            old.study,
            "overtakes",
            series_id=old.series_id,
            model=old.model,
            supersedes_id=old.id,
        )
        return newer.id


def study_of(session: Session, uid: str) -> int:
    """A study's row id."""
    return studies.by_uid(session, uid).id


def dead_delivery(session: Session) -> int:
    """The id of a dead delivery."""
    found = session.scalar(select(Delivery.id).where(Delivery.state == "dead").order_by(Delivery.id))
    assert found is not None
    return found
