"""The web process: status pages, REST API, health, metrics, over the same read model as the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from db.errors import NotFound, NotRevivable
from worker import metrics, readiness, version, views, web_api, web_guard, web_pages
from worker.station import Station
from worker.web_api import Here

_ABOUT = (
    "Studies, jobs, results and deliveries of this secondread. Everything is read-only except what is marked "
    "POST, which needs the header `X-Secondread: 1` (or content type application/json). Lists are newest "
    "first, in slices of `limit` from `offset`; the header X-Total-Count says how many there are. "
    "Answers hold patient data: keep them where patient data may be."
)


def create_app(station: Station) -> FastAPI:
    """The web application over a station; the caller closes the station after the server has ended."""
    app = FastAPI(
        title="secondread",
        summary="What happened to every study.",
        description=_ABOUT,
        version=version.VERSION,
        openapi_url="/api/openapi.json",
        # Their pages load scripts from the internet, which a hospital's network does not reach.
        docs_url=None,
        redoc_url=None,
        # Nothing of ours leaves by an exporter that somebody's environment happens to configure: addresses
        # hold Study Instance UIDs.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.station = station
    app.state.metrics = metrics.registry(station)
    app.state.pages = web_pages.environment()
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=web_guard.allowed_hosts(station.settings.web), www_redirect=False
    )
    app.add_middleware(web_guard.SecurityHeaders)
    _add_probes(app)
    app.include_router(web_api.router)
    app.include_router(web_pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    _explain_errors(app)
    return app


def _add_probes(app: FastAPI) -> None:
    """What an orchestrator and Prometheus ask."""

    @app.get("/healthz", tags=["probes"], summary="Whether this process is alive")
    def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/readyz",
        tags=["probes"],
        summary="Whether the installation works, check by check",
        responses={
            503: {"model": views.Readiness, "description": "A check fails; its remedy says what to do."}
        },
    )
    def readyz(here: Here, response: Response) -> views.Readiness:
        state = readiness.readiness(here)
        response.status_code = 200 if state.ready else 503
        return state

    @app.get("/metrics", tags=["probes"], summary="Metrics for Prometheus", response_class=PlainTextResponse)
    def prometheus(request: Request, accept: Annotated[str, Header()] = "") -> Response:
        encode, content_type = choose_encoder(accept)
        return Response(encode(request.app.state.metrics), headers={"Content-Type": content_type})


def _explain_errors(app: FastAPI) -> None:
    """Every error is an answer with a sentence: JSON for programs, a page for people."""

    @app.exception_handler(NotFound)
    def not_found(request: Request, error: Exception) -> Response:
        return _answer(request, 404, str(error))

    @app.exception_handler(NotRevivable)
    def not_revivable(request: Request, error: Exception) -> Response:
        return _answer(request, 409, str(error))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: Exception) -> Response:
        problem = cast("HTTPException", error)
        sentence = "there is nothing at this address" if problem.detail == "Not Found" else problem.detail
        return _answer(request, problem.status_code, sentence, headers=problem.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: Exception) -> Response:
        problems = cast("RequestValidationError", error).errors()
        sentence = "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in problems)
        return _answer(request, 422, sentence)

    @app.exception_handler(SQLAlchemyError)
    def database(request: Request, error: Exception) -> Response:
        sentence = f"the database does not answer ({type(error).__name__}); /readyz says more"
        return _answer(request, 503, sentence)


def _answer(
    request: Request, status_code: int, sentence: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """An error in the form that the asker understands."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.url.path.startswith("/api/"):
        return web_pages.error_page(request, status_code, sentence)
    return JSONResponse({"detail": sentence}, status_code=status_code, headers=headers)
