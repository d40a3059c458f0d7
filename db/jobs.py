"""Jobs: made once per identity, waiting, cancelled, retried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import or_, select, text, update
from sqlalchemy.orm import Session, selectinload

from db import job_series, states, studies, supersession
from db.base import insert_missing
from db.errors import NotFound
from db.models import Delivery, Instance, Job, ResultObject
from db.models.answers import ANNOUNCEMENT
from db.states import JOB_ENDED, UNDELIVERED, DeliveryState, JobState


def create(session: Session, values: dict[str, Any], roles: Mapping[str, int] = MappingProxyType({})) -> Job:
    """The job with this identity, made unless it exists: one study, one answer.

    One that an earlier revision made goes over to the newer one, for late images did not change its own;
    where it had been superseded in between, or skipped for what is put right since, it waits again. So does
    one that failed, where files of its series were replaced since: its identity names all images, so a newer
    row is one of the same image. And so does one whose model had made way to another, and is back.

    `roles` are the ids of its series by role, where they are several.
    """
    insert_missing(session, Job, [values], ["identity"])
    job = session.scalar(select(Job).where(Job.identity == values["identity"]))
    assert job is not None
    job_series.record(session, job.id, roles)
    newer = job.revision < values["revision"]
    again = values["state"] == JobState.QUEUED and _waits_again(session, job, newer=newer)
    if newer:
        job.revision = values["revision"]
    _hasten(job, values.get("priority", job.priority))
    if again:
        _begin_anew(session, job.id, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED)
        return get(session, job.id)
    return job


def _hasten(job: Job, priority: int) -> None:
    """What is asked for again, and more urgently, waits in front; its message is sent anew."""
    if priority < job.priority:
        job.priority = priority
        if job.state == JobState.QUEUED:
            job.nudged_at = None


def _waits_again(session: Session, job: Job, *, newer: bool) -> bool:
    """Whether a job that is wanted, by a `newer` revision or the same, begins anew."""
    if (job.state, job.reason) == (JobState.CANCELLED, "model-changed"):
        return True
    superseded = (job.state, job.reason) == (JobState.CANCELLED, "superseded")
    return newer and (
        superseded
        or job.state == JobState.SKIPPED
        or (job.state == JobState.FAILED and _has_replaced_files(session, job))
    )


def _has_replaced_files(session: Session, job: Job) -> bool:
    """Whether a file of the job's series is newer than the job's revision."""
    own = [series.id for series in job_series.of(session, job).values()]
    newer = select(Instance.id).where(
        Instance.series_id.in_(own),
        Instance.revision > job.revision,
        Instance.conflicting.is_(False),
    )
    return session.scalar(newer.limit(1)) is not None


def unheard(session: Session, *, now: datetime, nudged_before: datetime, limit: int = 1000) -> list[int]:
    """Ids of due, queued jobs whose message was never sent, or long ago: it may be lost. In the order of their turn."""
    return list(
        session.scalars(
            select(Job.id)
            .where(
                # In the words of the index of those that wait.
                text("jobs.state = 'queued'"),
                or_(Job.not_before.is_(None), Job.not_before <= now),
                or_(Job.nudged_at.is_(None), Job.nudged_at < nudged_before),
            )
            .order_by(Job.priority, Job.id)
            .limit(limit)
        )
    )


def mark_nudged(session: Session, job_ids: Sequence[int], at: datetime) -> None:
    """Remember that messages for these jobs were sent."""
    session.execute(
        update(Job)
        .where(Job.id.in_(job_ids))
        .values(nudged_at=at)
        .execution_options(synchronize_session=False)
    )


def settle_delivering(session: Session, job_id: int, at: datetime) -> JobState | None:
    """DELIVERING -> DONE or FAILED once all its deliveries ended; None while some are on their way.

    One that was sent has ended where nobody has to commit to it. One that comes back to a job which was
    cancelled in between is DEAD: nobody would ever send it.
    """
    # Of two workers that end the last two deliveries at once, the second must see the first one's end.
    lock_study(session, job_id)
    if session.scalar(select(Job.state).where(Job.id == job_id)) == JobState.CANCELLED:
        drop_deliveries(session, job_id, at)
        return None
    found = session.execute(
        select(Delivery.state, Delivery.awaits_commitment)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        # What says that there is no answer is no part of one.
        .where(ResultObject.job_id == job_id, ResultObject.kind != ANNOUNCEMENT)
    ).all()
    if any(
        state == DeliveryState.PENDING or (state == DeliveryState.SENT and awaits) for state, awaits in found
    ):
        return None
    dead = sum(state == DeliveryState.DEAD for state, _ in found)
    values: dict[str, Any] = {"finished_at": at}
    if dead:
        values |= {
            "reason": UNDELIVERED,
            "error": f"{'1 delivery is' if dead == 1 else f'{dead} deliveries are'} dead; "
            "see `secondread deliveries list --state dead`",
        }
    to = JobState.FAILED if dead else JobState.DONE
    return to if states.advance(session, Job, job_id, JobState.DELIVERING, to, **values) else None


def retry(session: Session, job_id: int) -> bool:
    """FAILED or CANCELLED -> QUEUED by a person's wish, with a fresh count of attempts.

    Its study is READY again where it was DONE. Raises NotRevivable where a newer job answers in
    its place, FilesGone where its images were deleted.
    """
    job = locked(session, job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        return False
    supersession.require_newest(session, job)
    return _begin_anew(session, job_id, JobState.FAILED, JobState.CANCELLED)


def _begin_anew(session: Session, job_id: int, *from_states: JobState) -> bool:
    """One of these states -> QUEUED, and the study with it. Raises FilesGone."""
    job = locked(session, job_id)
    if job.state not in from_states:
        return False
    studies.require_files(session, job.study_id)
    studies.reopen(session, job.study_id)
    return states.advance(
        session,
        Job,
        job_id,
        JobState(job.state),
        JobState.QUEUED,
        attempts=0,
        unannounced=bool(job.announce_to),
        notes=None,
        nudged_at=None,
        not_before=None,
        finished_at=None,
        reason="",
        error="",
    )


def cancel(session: Session, job_id: int, at: datetime) -> bool:
    """Stop a job that has not ended, or give up one that failed.

    A running one is dropped when it next renews its lease. Of its deliveries, those that nobody is sending
    just now die with it.
    """
    job = locked(session, job_id)
    if job.state != JobState.FAILED and JobState(job.state) in JOB_ENDED:
        return False
    before = f", after: {job.error}" if job.state == JobState.FAILED else ""
    drop_deliveries(session, job_id, at)
    return states.advance(
        session,
        Job,
        job_id,
        JobState(job.state),
        JobState.CANCELLED,
        lease_owner="",
        lease_until=None,
        deadline_at=None,
        finished_at=at,
        reason="cancelled",
        error=f"cancelled by a person{before}",
    )


def drop_deliveries(session: Session, job_id: int, at: datetime) -> None:
    """PENDING -> DEAD for the deliveries of a job that nobody is sending just now."""
    idle = session.scalars(
        select(Delivery.id)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        .where(
            ResultObject.job_id == job_id,
            Delivery.state == DeliveryState.PENDING.value,
            or_(Delivery.lease_until.is_(None), Delivery.lease_until < at),
        )
        # Never waits: the job is locked already, and a sender locks the other way round.
        .with_for_update(of=Delivery, key_share=True, skip_locked=True)
    ).all()
    for delivery_id in idle:
        states.advance(
            session,
            Delivery,
            delivery_id,
            DeliveryState.PENDING,
            DeliveryState.DEAD,
            comment="its job was cancelled",
            next_attempt_at=None,
        )


def locked(session: Session, job_id: int) -> Job:
    """One job as it is now, which nobody else moves until this transaction ends. Raises NotFound."""
    lock_study(session, job_id)
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update(key_share=True))
    return get(session, job_id)


def lock_study(session: Session, job_id: int) -> None:
    """Lock the study of a job (see `studies.lock`); nothing where there is no such job."""
    study_id = session.scalar(select(Job.study_id).where(Job.id == job_id))
    if study_id is not None:
        studies.lock(session, study_id)


def get(session: Session, job_id: int) -> Job:
    """One job with its study and results. Raises NotFound."""
    job = session.scalar(
        select(Job)
        .where(Job.id == job_id)
        .options(
            selectinload(Job.study),
            selectinload(Job.results).selectinload(ResultObject.deliveries).selectinload(Delivery.commitment),
        )
        .execution_options(populate_existing=True)
    )
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def newest(
    session: Session,
    *,
    state: str | None = None,
    study_id: int | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[Job]:
    """Jobs, newest first."""
    statement = select(Job).options(selectinload(Job.study))
    if state is not None:
        statement = statement.where(Job.state == state)
    if study_id is not None:
        statement = statement.where(Job.study_id == study_id)
    return list(session.scalars(statement.order_by(Job.id.desc()).limit(limit).offset(offset)))


def count_by_state(session: Session) -> dict[str, int]:
    """Jobs per state."""
    return states.count(session, Job)
