"""What one process holds open: the configuration, the database, the models; made once, closed once."""

from __future__ import annotations

import gc
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from db.base import Database
from dicom_node import senders
from dicom_node.results import rehearsal
from dicom_node.senders import Destination, commitment
from engines.errors import EngineError
from engines.runner import usable_cores
from worker import child, criteria, device, logs, machine, profiles, routing
from worker import settings as configuration
from worker.bench import Bench, Post
from worker.errors import WorkerError
from worker.lightbox import LightBox
from worker.sections import Peer, Work
from worker.settings import Settings
from worker.shelf import Shelf

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Station:
    """A process' collaborators."""

    settings: Settings
    database: Database
    shelf: Shelf
    lightbox: LightBox
    #: As `machine.process_id` names it, unique among all processes of all hosts.
    process_id: str
    started_at: datetime

    @property
    def bench(self) -> Bench:
        """What an analysis needs."""
        return Bench(
            database=self.database,
            shelf=self.shelf,
            lightbox=self.lightbox,
            spool_root=self.settings.spool,
            results_root=self.settings.results,
            owner=self.process_id,
            lease=timedelta(seconds=self.settings.work.lease_seconds),
            work=self.settings.work,
            language=self.settings.reports.language,
            end_process=child.end,
        )

    @property
    def post(self) -> Post:
        """What a delivery needs."""
        return Post(
            database=self.database,
            results_root=self.settings.results,
            destinations={peer.name: destination(peer, self.settings) for peer in self.settings.peers},
            open_sender=senders.open_sender,
            ask_commitment=commitment.ask,
            owner=self.process_id,
        )

    @property
    def routes(self) -> list[routing.RouteRule]:
        """The configured routes, understood."""
        return route_rules(self.settings)

    def close(self) -> None:
        """Give everything back."""
        self.lightbox.close()
        self.shelf.close()
        self.database.close()


def open_station(settings: Settings) -> Station:
    """Open the collaborators that the configuration describes."""
    settings.storage.mkdir(parents=True, exist_ok=True)
    settings.results.mkdir(parents=True, exist_ok=True)
    return Station(
        settings=settings,
        database=Database(settings.database_url),
        shelf=Shelf(
            settings.models,
            engine=settings.work.cpu_engine,
            device=device.of(settings),
            threads=settings.work.threads or max(1, usable_cores() // settings.work.jobs_at_once),
            megabytes=_room_for_models(settings.work),
        ),
        lightbox=LightBox(settings.work.volumes_megabytes),
        process_id=machine.process_id(),
        started_at=datetime.now(UTC),
    )


def _room_for_models(work: Work) -> float:
    """Megabytes that the open models of one process may take: together, half of the memory."""
    if work.models_megabytes is not None:
        return work.models_megabytes
    return machine.memory_bytes() / 2**20 / 2 / work.jobs_at_once


def route_rules(settings: Settings) -> list[routing.RouteRule]:
    """The configured routes, understood."""
    terms = {
        peer.name: profiles.Terms(profile=peer.profile, max_megabytes=peer.max_megabytes)
        for peer in settings.peers
    }
    return [
        routing.RouteRule(
            name=route.name,
            when=criteria.parse(route.when, f"routes.{route.name}.when"),
            run=route.run,
            send_to=route.send_to,
            announce_to=route.send_to if route.announce_failures else (),
            parameters=route.parameters,
            terms={name: terms[name] for name in route.send_to},
            priority=route.priority,
        )
        for route in settings.routes
    ]


def destination(peer: Peer, settings: Settings) -> Destination:
    """A peer as a place that results go to."""
    return Destination(
        name=peer.name,
        kind="stow" if peer.stow_url else "cstore",
        ae_title=peer.ae_title,
        host=peer.host,
        port=peer.port,
        calling_ae_title=settings.node.ae_title,
        url=peer.stow_url or "",
        authorization=peer.authorization.get_secret_value() if peer.authorization else None,
        timeout_seconds=peer.timeout_seconds,
        commitment=peer.commitment and not peer.stow_url,
    )


_here: Station | None = None


def here() -> Station:
    """This process' station. Raises WorkerError where `open_here` was not called."""
    if _here is None:
        raise WorkerError("this process has no station; it must be a worker started by Celery")
    return _here


def open_here() -> Station:
    """Open this process' station from the environment, and load the models that the routes name."""
    global _here
    logs.set_up(os.environ.get(logs.ROLE_VARIABLE, "work"))
    _here = open_station(configuration.load())
    if os.environ.get(logs.ROLE_VARIABLE) != "deliver":
        _warm(_here)
    return _here


def close_here() -> None:
    """Close this process' station."""
    global _here
    if _here is not None:
        _here.close()
        _here = None


def _warm(opened: Station) -> None:
    """Load everything now rather than under the first study; a broken model only fails its jobs."""
    wanted = {name for route in opened.settings.routes for name in route.run}
    for name in sorted(wanted & set(opened.shelf.packages)):
        if opened.shelf.is_full:
            logger.info("model %s is loaded when it is first needed: work.models_megabytes is all used", name)
            continue
        try:
            opened.shelf.stage(name)
        except EngineError as error:
            logger.warning("model %s cannot be loaded, its jobs will fail: %s", name, error)
    try:
        rehearsal.rehearse()
    except OSError:
        logger.warning("no rehearsal of results; the first study's will take longer", exc_info=True)
    # What is loaded stays: otherwise the collector walks it under every study, a tenth of a second each.
    gc.collect()
    gc.freeze()
