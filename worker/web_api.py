"""The REST API: the read model as JSON, and the few changes that a person may ask for."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException, Path, Query, Request, Response

from db import dead_letters, found
from db import deliveries as delivery_rows
from db import events as event_rows
from db import jobs as job_rows
from db import studies as study_rows
from db.errors import NotRevivable
from db.states import DeliveryState, JobState, StudyState
from worker import engine_lines, enqueue, model_views, status, views, web_guard
from worker.station import Station


def station(request: Request) -> Station:
    """The station that the application was made over."""
    opened: Station = request.app.state.station
    return opened


Here = Annotated[Station, Depends(station)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000, description="How many to pass over.")]
#: PS3.5 9.1 allows digits and dots; a little more is let through for senders that do not know it.
StudyUID = Annotated[str, Path(pattern=r"^[0-9A-Za-z._-]{1,64}$", description="Study Instance UID.")]
RowID = Annotated[int, Path(ge=1, le=2_147_483_647)]
_Answers = dict[int | str, dict[str, Any]]
_SENTENCE: dict[str, Any] = {"model": views.Problem}
_MISSING: _Answers = {404: {"description": "There is no such thing.", **_SENTENCE}}

router = APIRouter(prefix="/api", responses={422: {"description": "A value is wrong.", **_SENTENCE}})


@router.get("/studies", tags=["studies"], summary="Studies, newest first")
def list_studies(
    here: Here,
    response: Response,
    state: StudyState | None = None,
    attention: Annotated[bool, Query(description="Only those that need a person.")] = False,
    limit: Limit = 100,
    offset: Offset = 0,
) -> list[views.StudyLine]:
    """Each with the states of its jobs and, where something is wrong, the sentence that says what."""
    with here.database.read() as session:
        rows = study_rows.newest(session, state=state, attention=attention, limit=limit, offset=offset)
        _say_total(response, study_rows.count(session, state=state, attention=attention))
        return status.study_lines(session, rows)


@router.get("/studies/{uid}", tags=["studies"], summary="One study", responses=_MISSING)
def show_study(here: Here, uid: StudyUID) -> views.StudyLine:
    """One line of the list."""
    with here.database.read() as session:
        return status.study_lines(session, [study_rows.by_uid(session, uid)])[0]


@router.get("/studies/{uid}/why", tags=["studies"], summary="What happened to a study", responses=_MISSING)
def explain_study(here: Here, uid: StudyUID) -> views.Why:
    """What was seen, why it was taken for complete, which rules matched, what ran, what left."""
    with here.database.read() as session:
        return status.why(session, uid)


@router.get("/jobs", tags=["jobs"], summary="Jobs, newest first")
def list_jobs(
    here: Here, response: Response, state: JobState | None = None, limit: Limit = 100, offset: Offset = 0
) -> list[views.JobLine]:
    """A job is one model on one series of one revision of a study, or on one series for each of its roles."""
    with here.database.read() as session:
        _say_total(response, _total(job_rows.count_by_state(session), state))
        rows = job_rows.newest(session, state=state, limit=limit, offset=offset)
        return [status.job_line(row) for row in rows]


@router.get("/jobs/{id}", tags=["jobs"], summary="One job with all it found and made", responses=_MISSING)
def show_job(here: Here, id: RowID) -> views.JobDetail:
    """Measurements, findings, objects, deliveries, seconds per stage."""
    with here.database.read() as session:
        return engine_lines.with_plan(status.job_detail(session, id), here.settings.plans)


@router.get("/deliveries", tags=["deliveries"], summary="Deliveries, newest first")
def list_deliveries(
    here: Here, response: Response, state: DeliveryState | None = None, limit: Limit = 100, offset: Offset = 0
) -> list[views.DeliveryLine]:
    """A delivery is one result object on its way to one destination."""
    with here.database.read() as session:
        _say_total(response, _total(delivery_rows.count_by_state(session), state))
        rows = delivery_rows.newest(session, state=state, limit=limit, offset=offset)
        return [status.delivery_line(row) for row in rows]


@router.get("/findings", tags=["findings"], summary="What the models measured and found")
def list_findings(
    here: Here,
    model: Annotated[str | None, Query(max_length=64, description="A model's name.")] = None,
    code: Annotated[str | None, Query(max_length=64, description="A code value or a manifest's key.")] = None,
    since: Annotated[str | None, Query(max_length=40, description="7d, 12h, or a date YYYY-MM-DD.")] = None,
    above: Annotated[float | None, Query(allow_inf_nan=False, description="Only greater values.")] = None,
    limit: Limit = 1000,
) -> list[found.FoundValue]:
    """The newest answer about each series, newest job first; a finding's value is 1 (present) or 0.

    An answer of an earlier revision is not current: images came since, and their answer did not.
    """
    try:
        start = status.since(since, datetime.now(UTC)) if since else None
    except (ValueError, OverflowError):
        raise HTTPException(422, "since: write 7d, 12h, 30m, 2w or a date YYYY-MM-DD") from None
    with here.database.read() as session:
        return found.search(session, model=model, code=code, since=start, above=above, limit=limit)


@router.get("/models", tags=["models"], summary="The model packages of this installation")
def list_models(here: Here) -> model_views.ShelfView:
    """Those that can be used, and why others cannot."""
    return shelf(here)


def shelf(here: Station) -> model_views.ShelfView:
    """The model packages as they are shown."""
    return model_views.ShelfView(
        models=[
            model_views.ModelLine(
                name=package.manifest.name,
                version=package.manifest.version,
                manufacturer=package.manifest.manufacturer,
                licence=package.manifest.licence,
                intended_use=package.manifest.intended_use,
                research_only=package.manifest.research_only,
                digest=package.digest,
                folder=str(package.folder),
            )
            for _, package in sorted(here.shelf.packages.items())
        ],
        problems=[str(problem) for problem in here.shelf.problems],
    )


@router.get("/engines", tags=["models"], summary="Models compiled for GPUs, and whether they may serve")
def list_engines(here: Here) -> model_views.EnginesView:
    """Each plan with what the parity gate said of it; the web process looks at no GPU itself."""
    return engines(here)


def engines(here: Station) -> model_views.EnginesView:
    """The compiled plans as they are shown."""
    return engine_lines.view(here.settings, here.shelf.packages)


@router.get("/events", tags=["events"], summary="What happened lately, newest first")
def list_events(here: Here, limit: Limit = 100) -> list[views.EventLine]:
    """Rejected associations, refused images, lost workers, dead deliveries, late images."""
    with here.database.read() as session:
        return status.event_lines(session, event_rows.newest(session, limit))


def _total(counts: dict[str, int], state: str | None) -> int:
    """How many rows there are in a state, or in all."""
    return sum(counts.values()) if state is None else counts.get(state, 0)


def _say_total(response: Response, total: int) -> None:
    response.headers["X-Total-Count"] = str(total)


# What a person may ask for: all POST, all guarded --------------------------------------------------

_guarded = APIRouter(dependencies=[Depends(web_guard.same_origin_only)])
_CHANGES: _Answers = {
    403: {"description": "The header X-Secondread: 1 is missing.", **_SENTENCE},
    404: {"description": "There is no such thing.", **_SENTENCE},
    409: {
        "description": "It is in a state that cannot be changed so; nothing was changed.",
        "model": views.Changed,
    },
}


@_guarded.post("/jobs/{id}/retry", tags=["jobs"], summary="Run a job again", responses=_CHANGES)
def retry_job(here: Here, response: Response, after: BackgroundTasks, id: RowID) -> views.Changed:
    """FAILED or CANCELLED -> QUEUED; its study is open again until the job has ended."""
    with here.database.write() as session:
        done = job_rows.retry(session, id)
        state = job_rows.get(session, id).state
    if done:
        # After the answer: a broker that is away takes seconds to say so, and nobody needs to wait for it.
        after.add_task(enqueue.jobs, here.database, [id], here.settings.work)
    return _changed(response, id, state, done=done, words="waits for a worker", verb="retried")


@_guarded.post("/jobs/{id}/cancel", tags=["jobs"], summary="Stop a job", responses=_CHANGES)
def cancel_job(here: Here, response: Response, id: RowID) -> views.Changed:
    """One that runs is dropped when its worker next renews its lease."""
    now = datetime.now(UTC)
    with here.database.write() as session:
        done = job_rows.cancel(session, id, now)
        job = job_rows.get(session, id)
        study_rows.finish_if_ended(session, job.study_id, now)
    return _changed(response, id, job.state, done=done, words="is cancelled", verb="cancelled")


@_guarded.post("/deliveries/{id}/retry", tags=["deliveries"], summary="Send again", responses=_CHANGES)
def retry_delivery(here: Here, response: Response, after: BackgroundTasks, id: RowID) -> views.Changed:
    """DEAD -> PENDING, with a fresh schedule."""
    with here.database.write() as session:
        done = dead_letters.revive(session, id)
        session.expire_all()
        state = delivery_rows.get(session, id).state
    if done:
        after.add_task(enqueue.deliveries, here.database, [id])
    return _changed(response, id, state, done=done, words="will be sent again", verb="sent again")


class Revived(views.View):
    """How many dead deliveries are sent again."""

    count: int
    message: str


@_guarded.post("/deliveries/retry", tags=["deliveries"], summary="Send all dead ones again")
def retry_deliveries(
    here: Here,
    after: BackgroundTasks,
    destination: Annotated[str | None, Query(max_length=64, description="Only to this peer.")] = None,
) -> Revived:
    """DEAD -> PENDING for each that can be sent again, with a fresh schedule."""
    peers = [peer.name for peer in here.settings.peers]
    with here.database.read() as session:
        if destination and (problem := status.unknown_destination(session, peers, destination)):
            raise HTTPException(422, problem)
        dead = dead_letters.revivable(session, destination=destination)
    revived = []
    for delivery_id in dead:
        # Each locks its study: one per transaction. One may have become too old a moment ago.
        with contextlib.suppress(NotRevivable), here.database.write() as session:
            if dead_letters.revive(session, delivery_id):
                revived.append(delivery_id)
    after.add_task(enqueue.deliveries, here.database, revived)
    return Revived(count=len(revived), message=f"{len(revived)} will be sent again")


def _changed(
    response: Response, row_id: int, state: str, *, done: bool, words: str, verb: str
) -> views.Changed:
    """The answer to a change."""
    response.status_code = 200 if done else 409
    message = f"it {words}" if done else f"it is {state} and cannot be {verb}; nothing was changed"
    return views.Changed(id=row_id, state=state, changed=done, message=message)


router.include_router(_guarded)
