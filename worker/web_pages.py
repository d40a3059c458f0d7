"""The pages: for a person who wants to know, in the middle of the night, what happened to a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import jinja2
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.responses import Response as AnyResponse

from db import deliveries as delivery_rows
from db import events as event_rows
from db import studies as study_rows
from db.states import DeliveryState
from worker import engine_lines, gathered, readiness, status, version, views, web_words
from worker.web_api import Here, RowID, StudyUID, engines, shelf

#: Rows of a list on one page.
PAGE_ROWS = 50
_EVENTS = 12

PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
Show = Literal["all", "attention", "receiving", "ready", "done", "purged"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


def environment() -> jinja2.Environment:
    """The templates: everything escaped, a misspelt variable an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(web_words.FILTERS)
    made.filters |= {"objects_gathered": gathered.objects, "deliveries_gathered": gathered.deliveries}
    made.globals["version"] = version.VERSION
    return made


def _page(request: Request, template: str, *, status_code: int = 200, **values: object) -> HTMLResponse:
    """A rendered page."""
    pages: jinja2.Environment = request.app.state.pages
    text = pages.get_template(template).render(path=request.url.path, **values)
    return HTMLResponse(text, status_code=status_code)


def error_page(request: Request, status_code: int, sentence: str) -> HTMLResponse:
    """A page that says what is wrong."""
    return _page(request, "error.html", status_code=status_code, code=status_code, sentence=sentence)


@router.get("/")
def studies(request: Request, here: Here, show: Show = "all", page: PageNumber = 1) -> HTMLResponse:
    """Studies and their jobs, newest first."""
    state = None if show in ("all", "attention") else show
    with here.database.read() as session:
        snapshot = status.snapshot(session)
        attention = study_rows.count(session, attention=True)
        rows = study_rows.newest(
            session,
            state=state,
            attention=show == "attention",
            limit=PAGE_ROWS,
            offset=(page - 1) * PAGE_ROWS,
        )
        lines = status.study_lines(session, rows)
        present = [[job for job in row.jobs if job.revision == row.revision] for row in rows]
        listed = [
            (line, [status.job_line(job) for job in jobs]) for line, jobs in zip(lines, present, strict=True)
        ]
        events = status.event_lines(session, event_rows.newest(session, _EVENTS))
    counts = {"all": sum(snapshot.studies.values()), "attention": attention, **snapshot.studies}
    return _page(
        request,
        "studies.html",
        listed=listed,
        show=show,
        counts=counts,
        snapshot=snapshot,
        events=events,
        readiness=readiness.readiness(here),
        page=page,
        pages=_pages(counts.get(show, 0)),
    )


@router.get("/studies/{uid}")
def study(request: Request, here: Here, uid: StudyUID) -> HTMLResponse:
    """Everything that is known of a study."""
    with here.database.read() as session:
        why = status.why(session, uid)
    return _page(request, "study.html", why=why)


@router.get("/jobs/{id}")
def job(request: Request, here: Here, id: RowID) -> HTMLResponse:
    """Everything about a job, with its pictures."""
    with here.database.read() as session:
        detail = engine_lines.with_plan(status.job_detail(session, id), here.settings.plans)
        line = status.study_lines(session, [study_rows.by_uid(session, detail.study_instance_uid)])[0]
    package = here.shelf.packages.get(detail.model)
    if package is not None and package.digest == detail.model_digest:
        colours = {segment.number: web_words.colour(segment.colour) for segment in package.segments}
        for segment in detail.segments:
            segment.colour = colours.get(segment.number, "")
    names = [path.name for path in _pictures(here.settings.results / detail.identity)]
    return _page(request, "job.html", job=detail, study=line, pictures=names)


@router.get("/jobs/{id}/pictures/{name}")
def picture(here: Here, id: RowID, name: str) -> AnyResponse:
    """One picture of a job; only what the job's own folder lists can be asked for."""
    with here.database.read() as session:
        detail = status.job_detail(session, id)
    for path in _pictures(here.settings.results / detail.identity):
        if path.name == name:
            return FileResponse(path, media_type="image/png")
    if any(made.purged_at for made in detail.objects):
        raise HTTPException(410, f"the pictures of job {id} were deleted with its study's files")
    raise HTTPException(404, f"job {id} has no such picture")


def _pictures(folder: Path) -> list[Path]:
    """A job's pictures: plain PNG files directly in its folder, no links."""
    return sorted(path for path in folder.glob("*.png") if path.is_file() and not path.is_symlink())


@router.get("/deliveries")
def deliveries(
    request: Request, here: Here, state: DeliveryState | None = None, page: PageNumber = 1
) -> HTMLResponse:
    """What left, what waits, what is dead."""
    with here.database.read() as session:
        counts = delivery_rows.count_by_state(session)
        rows = delivery_rows.newest(session, state=state, limit=PAGE_ROWS, offset=(page - 1) * PAGE_ROWS)
        lines = [status.delivery_line(row) for row in rows]
    total = sum(counts.values())
    counts = {"all": total, **{each.value: counts.get(each.value, 0) for each in DeliveryState}}
    show = state.value if state else "all"
    return _page(
        request,
        "deliveries.html",
        deliveries=lines,
        counts=counts,
        show=show,
        page=page,
        pages=_pages(counts[show]),
    )


@router.get("/system")
def system(request: Request, here: Here) -> HTMLResponse:
    """What must work, who lives, which models there are."""
    checked = readiness.readiness(here)
    processes: list[views.ProcessLine] = []
    if checked.checks[0].ok:
        with here.database.read() as session:
            processes = status.process_lines(session)
    return _page(
        request,
        "system.html",
        readiness=checked,
        processes=processes,
        shelf=shelf(here),
        engines=engines(here),
        settings=here.settings,
    )


@router.get("/api/docs")
def reference(request: Request) -> HTMLResponse:
    """The API's reference, rendered here: no script from anywhere is needed to read it."""
    schema = request.app.openapi()
    operations: dict[str, list[dict[str, object]]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            entry = {"method": method.upper(), "path": path, **web_words.operation(operation)}
            operations.setdefault(cast("str", operation["tags"][0]), []).append(entry)
    return _page(
        request,
        "reference.html",
        about=schema["info"]["description"],
        operations=operations,
        models=web_words.models(schema["components"]["schemas"]),
    )


def _pages(rows: int) -> int:
    """How many pages so many rows fill."""
    return max(1, -(-rows // PAGE_ROWS))
