"""The listener's role: receives, and has rows written behind it."""

from __future__ import annotations

import logging
import threading

from dicom_node.listener import KnownPeer, Listener, ListenerConfig
from dicom_node.spool import Spool
from worker import heartbeat, loop_guard
from worker.indexer import FRESH_SECONDS, Indexer
from worker.settings import Settings
from worker.station import Station

logger = logging.getLogger(__name__)

#: For instances in hand when we stop; less than the supervisor's patience.
STOP_SECONDS = 20.0


def run(station: Station, stop: threading.Event) -> None:
    """Listen until `stop` is set; then finish the instance in hand and write the last rows."""
    settings = station.settings
    watermark = settings.node.min_free_mb * 1024 * 1024
    with (
        Spool(settings.spool, watermark_bytes=watermark) as spool,
        heartbeat.Heartbeat(station, "listen"),
        Indexer(station) as indexer,
    ):
        with Listener(listener_config(settings), spool, indexer) as listener:
            logger.info("listening as %s on port %s", settings.node.ae_title, listener.port)
            threading.Thread(target=_repair, args=(indexer, spool, stop), name="scan", daemon=True).start()
            stop.wait()
        logger.info("no longer listening")


def listener_config(settings: Settings) -> ListenerConfig:
    """The listener's part of the configuration."""
    return ListenerConfig(
        ae_title=settings.node.ae_title,
        host=settings.node.host,
        port=settings.node.port,
        peers=tuple(
            KnownPeer(name=peer.name, ae_title=peer.ae_title, host=peer.host) for peer in settings.peers
        ),
        require_known_peers=settings.node.require_known_peers,
        max_associations=settings.node.max_associations,
        stop_seconds=STOP_SECONDS,
        guard=loop_guard.at_the_door(settings.guard),
    )


def _repair(indexer: Indexer, spool: Spool, stop: threading.Event) -> None:
    """Give rows to files whose rows were never written, because their process died in between.

    A second look finds those that were too fresh for the first: who starts again at once after a death
    comes within seconds of the last file, whose sender was told that it is safe.
    """
    _scan(indexer, spool)
    if not stop.wait(FRESH_SECONDS + 1):
        _scan(indexer, spool)


def _scan(indexer: Indexer, spool: Spool) -> None:
    """One look through the spool; receiving goes on where it fails."""
    try:
        found = indexer.scan(spool)
    except Exception:
        # Receiving goes on without the repair; the next start tries it again.
        logger.exception("the start-up scan failed; files without rows stay without until the next start")
        return
    if found:
        logger.info("the start-up scan found %s files without rows and gives them some", found)
