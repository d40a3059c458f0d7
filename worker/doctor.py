"""`secondread doctor`: everything that must work, asked once, each answer with what to change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from db import migrate, troubles
from db.base import Database
from dicom_node import echo
from dicom_node.results.context import NOT_PERFORMED
from dicom_node.senders import commitment
from engines import plans
from engines.errors import EngineError
from engines.package import ModelPackage
from worker import broker, counting, edge, parameters, profiles, retention, space, steps
from worker import device as devices
from worker.device import Device
from worker.errors import WorkerError
from worker.sections import Peer
from worker.settings import CONFIG_VARIABLE, Settings
from worker.shelf import Shelf
from worker.station import destination


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    healthy: bool
    #: What was seen, and where it is not well, what to change.
    remark: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at storage, disk, database, broker, models, GPU, routes, loop guard and peers, one after the other."""
    yield Finding(subject="configuration", healthy=True, remark=_source(settings))
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _storage,
        _database,
        _broker,
        _models,
        _gpu,
        _routes,
        _guard,
        _peers,
    )
    for check in checks:
        yield from check(settings)


def _source(settings: Settings) -> str:
    """Which configuration this is, and what it makes of this machine."""
    file = os.environ.get(CONFIG_VARIABLE) or "no file, the defaults"
    return f"{file}; {settings.node.ae_title} at {settings.node.host}:{settings.node.port}"


def _storage(settings: Settings) -> Iterator[Finding]:
    """The storage folder and its disk."""
    folder = settings.storage
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        yield Finding(
            subject="storage",
            healthy=False,
            remark=f"{existing} cannot be written; change its owner or `storage`",
        )
        return
    free = shutil.disk_usage(existing).free // 2**20
    enough = free > settings.node.min_free_mb
    remark = f"{folder}, {free} MiB free, 0xA700 below {settings.node.min_free_mb} MiB"
    if not enough:
        remark += ": every image is refused now; free space or lower node.min_free_mb"
    yield Finding(subject="storage", healthy=enough, remark=remark)


def _database(settings: Settings) -> Iterator[Finding]:
    """The database and its schema."""
    if settings.database == "sqlite" and not (settings.storage / "secondread.db").exists():
        yield Finding(subject="database", healthy=True, remark="SQLite; `up` makes it on its first start")
        return
    try:
        with Database(settings.database_url) as database:
            at, newest, dialect = migrate.current(database), migrate.newest(), database.engine.dialect.name
    except SQLAlchemyError as error:
        remark = f"does not answer ({edge.cause(error)}); check `database`"
        yield Finding(subject="database", healthy=False, remark=remark)
        return
    remark = f"{dialect}, schema {at}"
    if at != newest:
        remark += f", this version needs {newest}; run `secondread db upgrade`"
    yield Finding(subject="database", healthy=at == newest, remark=remark)
    if at == newest:
        yield _kept(settings)
        yield from _sweep(settings)


def _kept(settings: Settings) -> Finding:
    """What images and results take, and what may go."""
    with Database(settings.database_url) as database:
        short, said = space.shortage(database), retention.in_words(database, settings)
    refused = f"; images are refused since {short[0].astimezone():%Y-%m-%d %H:%M:%S}" if short else ""
    return Finding(subject="retention", healthy=short is None, remark=f"{said}{refused}")


def _sweep(settings: Settings) -> Iterator[Finding]:
    """What the sweep fails at again and again."""
    with Database(settings.database_url) as database, database.read() as session:
        failing = troubles.failing(session)
    if failing:
        yield Finding(subject="sweep", healthy=False, remark=f"{steps.in_words(failing)}; {steps.REMEDY}")


def _broker(settings: Settings) -> Iterator[Finding]:
    """The broker, where it is one that must be there already."""
    try:
        broker.ping(settings)
        yield Finding(subject="broker", healthy=True, remark="answers")
    except WorkerError as error:
        embedded = settings.broker == "embedded"
        remark = "embedded; `up` starts and stops it, and does not run now" if embedded else str(error)
        yield Finding(subject="broker", healthy=embedded, remark=remark)


def _models(settings: Settings) -> Iterator[Finding]:
    """The model packages."""
    shelf = Shelf(settings.models)
    for problem in shelf.problems:
        yield Finding(subject="models", healthy=False, remark=str(problem))
    for package in shelf.packages.values():
        manifest = package.manifest
        yield Finding(
            subject=f"model {manifest.name}",
            healthy=True,
            remark=f"{manifest.version}, digest {package.digest[:12]}",
        )


def _gpu(settings: Settings) -> Iterator[Finding]:
    """Where a GPU is configured: whether it can be used, and what the routes' models run on there."""
    device = devices.of(settings)
    if device is None:
        return
    fallback = settings.work.cpu_engine
    meanwhile = f"; jobs run on {fallback} meanwhile" if fallback else "; jobs fail meanwhile (work.fallback)"
    try:
        yield Finding(subject="gpu", healthy=True, remark=device.in_words())
    except EngineError as error:
        yield Finding(subject="gpu", healthy=False, remark=f"{error}{meanwhile}")
        return
    for package in Shelf(settings.models).routed(settings):
        yield _plan(package, device, meanwhile)


def _plan(package: ModelPackage, device: Device, meanwhile: str) -> Finding:
    """A model's plan for this GPU."""
    name = package.manifest.name
    again = plans.REBUILD.format(model=name)
    try:
        record = device.plan(package)
        if record is not None and record.serves:
            device.kept.read(record)
    except EngineError as error:
        return Finding(subject=f"plan {name}", healthy=False, remark=f"{error}{meanwhile}")
    if record is not None and record.serves:
        megabytes = f", {record.megabytes:.0f} MB" if record.megabytes is not None else ""
        return Finding(subject=f"plan {name}", healthy=True, remark=f"{record.state}{megabytes}")
    said = record.state if record is not None else f"there is none: `up` builds it, or {again}"
    return Finding(subject=f"plan {name}", healthy=False, remark=f"{said}{meanwhile}")


def _routes(settings: Settings) -> Iterator[Finding]:
    """The routes' models and destinations."""
    shelf = Shelf(settings.models)
    for route in settings.routes:
        missing = [name for name in route.run if name not in shelf.packages]
        wrong = list(parameters.problems([route], shelf.manifests))
        if missing:
            remark = f"there is no usable model {', '.join(missing)}"
        elif wrong:
            remark = "; ".join(wrong)
        elif not route.send_to:
            remark = "sends its results nowhere: they are only on the page and in the storage; set send_to"
        else:
            told = "told" if route.announce_failures else "not told (announce_failures)"
            remark = f"{', '.join(route.run)} -> {', '.join(route.send_to)}; {told} where there is no answer"
        yield Finding(subject=f"route {route.name}", healthy=not (missing or wrong), remark=remark)


def _guard(settings: Settings) -> Iterator[Finding]:
    """The loop guard; without it a PACS that routes results back would have them analysed."""
    guard = settings.guard
    if not guard.enabled:
        remark = "off: results that come back are analysed as if they were images; set guard.enabled"
        yield Finding(subject="loop guard", healthy=False, remark=remark)
        return
    kept = "stored, never analysed" if guard.store else "refused with 0xC002"
    criteria = f", or meets {len(guard.also)} criteria of guard.also" if guard.also else ""
    remark = f"what is ours, or passed more than {guard.max_hops} processing devices{criteria}: {kept}"
    yield Finding(subject="loop guard", healthy=True, remark=remark)


def _peers(settings: Settings) -> Iterator[Finding]:
    """The peers that results go to, by C-ECHO and presentation contexts; others only send to us."""
    receivers = {name for route in settings.routes for name in route.send_to}
    shelf = Shelf(settings.models)
    for peer in settings.peers:
        if peer.name in receivers:
            yield _peer(peer, settings, shelf)
            if peer.commitment:
                yield _commitment(peer, settings)
        else:
            yield Finding(
                subject=f"peer {peer.name}", healthy=True, remark="may send to us; no route sends to it"
            )
        if peer.count != "none":
            problem = counting.check(peer, settings)
            remark = problem or f"says how many images it has (count: {peer.count})"
            yield Finding(subject=f"peer {peer.name}", healthy=not problem, remark=remark)


def _commitment(peer: Peer, settings: Settings) -> Finding:
    """Whether a peer that is to commit to its results can be asked to."""
    if peer.stow_url:
        problem = "is not asked to commit: that goes over DICOM only, and results go there by STOW-RS"
    else:
        problem = commitment.check(destination(peer, settings))
    said = f"takes storage commitment requests; it must know us as {settings.node.ae_title} to report"
    return Finding(subject=f"commitment by {peer.name}", healthy=not problem, remark=problem or said)


def _peer(peer: Peer, settings: Settings, shelf: Shelf) -> Finding:
    """One peer's answer, asked for what its profile takes of the models whose results go there."""
    kinds = _sent(peer, settings, shelf)
    report = echo.verify(destination(peer, settings), echo.result_contexts(kinds))
    where = peer.stow_url or f"{peer.ae_title}@{peer.host}:{peer.port}"
    answer = report.problem or f"answers in {report.milliseconds:.0f} ms"
    taken = f"profile {peer.profile}: {_taken(kinds, report, asked=not peer.stow_url)}"
    remark = f"{where}: {answer}; {taken}"
    return Finding(subject=f"peer {peer.name}", healthy=report.healthy and bool(kinds), remark=remark)


def _sent(peer: Peer, settings: Settings, shelf: Shelf) -> tuple[str, ...]:
    """The kinds that may go to a peer, in the order in which they are made known."""
    routes = [route for route in settings.routes if peer.name in route.send_to]
    models = sorted({name for route in routes for name in route.run} & set(shelf.packages))
    lists: list[tuple[str, ...]] = [shelf.packages[name].manifest.results for name in models]
    lists = lists or [echo.USUAL_KINDS]
    found = [kind for listed in lists for kind in profiles.kinds(peer.profile, listed)]
    if any(route.announce_failures for route in routes):
        found.append(NOT_PERFORMED)
    return tuple(dict.fromkeys(found))


def _taken(kinds: tuple[str, ...], report: echo.EchoReport, *, asked: bool) -> str:
    """Which of the results that go to a peer it can take; over the Web there is no way to ask."""
    if not kinds:
        return "it takes nothing that the models of its routes list; change `profile`, or their manifests"
    if not report.associated or not asked:
        return f"would get {', '.join(kinds)}"
    taken = echo.kinds_taken(kinds, report.accepted)
    refused = [kind for kind in kinds if kind not in taken]
    parts = [f"takes {', '.join(taken)}"] if taken else []
    parts += [f"does not take {', '.join(refused)}"] if refused else []
    return ", ".join(parts)
