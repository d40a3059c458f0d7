"""Whether the installation works: one check per thing it stands on, each with what to do where it fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from sqlalchemy.exc import SQLAlchemyError

from db import figures, migrate, troubles
from worker import broker, space, status, steps, views
from worker.errors import BrokerError
from worker.station import Station

#: What must live, the roles any of which will do, and the command that starts it.
_NEEDED_ROLES = (
    ("listener", ("listen",), "secondread listen"),
    ("analysis worker", ("work", "cpu", "gpu"), "secondread work"),
    ("delivery worker", ("work", "deliver"), "secondread work"),
    ("sweep", ("sweep",), "secondread sweep"),
)


def readiness(station: Station) -> views.Readiness:
    """Every check, in the order in which one would repair."""
    checks = [check(station) for check in _CHECKS]
    checks += _roles(station, database=checks[0])
    checks += _gpu(station, database=checks[0])
    return views.Readiness(ready=all(check.ok for check in checks), checks=checks)


def _database(station: Station) -> views.Check:
    """It answers, and its schema is the one that this version writes."""
    try:
        at = migrate.current(station.database)
    except SQLAlchemyError as error:
        return _fails(
            "database",
            f"does not answer ({type(error).__name__})",
            "start the database, or correct the setting `database`; received images are safe in the spool meanwhile",
        )
    if at != _newest():
        return _fails(
            "database",
            f"its schema is at revision {at or 'none'}, this version needs {_newest()}",
            "run `secondread db upgrade`",
        )
    return _holds("database", f"answers; schema at {at}")


@cache
def _newest() -> str:
    """The schema's newest revision; it cannot change while the process lives."""
    return migrate.newest()


def _broker(station: Station) -> views.Check:
    """It answers; without it jobs and deliveries wait, and nothing is lost."""
    try:
        broker.ping(station.settings)
    except BrokerError:
        embedded = station.settings.broker == "embedded"
        start = (
            "start `secondread up` on this storage"
            if embedded
            else "start it, or correct the setting `broker`"
        )
        return _fails("broker", "does not answer", f"{start}; the sweep sends again what waits")
    return _holds("broker", "answers")


def _disk(station: Station) -> views.Check:
    """The spool's disk has more free space than the listener needs to accept images."""
    free, needed = space.free_bytes(station.settings.storage), space.needed_bytes(station.settings)
    found = f"{space.megabytes(free)} free, {space.megabytes(needed)} needed{_shortage(station)}"
    if free < needed:
        return _fails(
            "disk",
            found,
            f"make room on the disk of {station.settings.storage}; until then senders are answered 0xA700",
        )
    return _holds("disk", found)


def _shortage(station: Station) -> str:
    """Since when images are refused for want of space; "" where none is, or nobody knows."""
    try:
        short = space.shortage(station.database)
    except SQLAlchemyError:
        return ""
    if short is None:
        return ""
    since, count = short
    return f"; images are refused since {since.astimezone():%Y-%m-%d %H:%M:%S}, {count} so far"


def _models(station: Station) -> views.Check:
    """Every model that a route names can be used."""
    wanted = {name for route in station.settings.routes for name in route.run}
    missing = sorted(wanted - set(station.shelf.packages))
    if missing:
        return _fails(
            "models",
            f"routes name {', '.join(missing)}, which cannot be used",
            "see `secondread models list`",
        )
    return _holds("models", f"{len(wanted)} of {len(wanted)} that routes name can be used")


_CHECKS: tuple[Callable[[Station], views.Check], ...] = (_database, _broker, _disk, _models)


def _roles(station: Station, *, database: views.Check) -> list[views.Check]:
    """Somebody lives in each role that the journey needs; signs of life are in the database."""
    if not database.ok:
        return [
            _fails(name, "not known without the database", "repair the database first")
            for name, _, _ in _NEEDED_ROLES
        ]
    with station.database.read() as session:
        living = [process.role for process in status.process_lines(session)]
        failing = troubles.failing(session)
    checks = []
    for name, roles, command in _NEEDED_ROLES:
        count = sum(role in roles for role in living)
        if not count:
            start = f"start `{command}`, or `secondread up` for everything on one machine"
            checks.append(_fails(name, "no sign of life", start))
        elif name == "sweep" and failing:
            checks.append(_fails(name, f"{count} alive; {steps.in_words(failing)}", steps.REMEDY))
        else:
            checks.append(_holds(name, f"{count} alive"))
    return checks


def _gpu(station: Station, *, database: views.Check) -> list[views.Check]:
    """Where a GPU is configured: whether jobs run on it. They are done all the same, so that this is no failure."""
    work = station.settings.work
    if not work.on_gpu or not database.ok:
        return []
    with station.database.read() as session:
        found = figures.on_fallback(session)
    if found is None:
        return [_holds("device", f"jobs run on {work.engine}")]
    count = "the last job" if found.count == 1 else f"the last {found.count} jobs"
    since = f"{found.since.astimezone():%Y-%m-%d %H:%M:%S}"
    said = f"{count} ran on the fallback, since {since}: {found.sentence}"
    return [
        views.Check(
            name="device", ok=True, found=said, remedy="run `secondread doctor`; nothing is lost meanwhile"
        )
    ]


def _holds(name: str, found: str) -> views.Check:
    return views.Check(name=name, ok=True, found=found, remedy="")


def _fails(name: str, found: str, remedy: str) -> views.Check:
    return views.Check(name=name, ok=False, found=found, remedy=remedy)
