"""The listener's role: receives, and has rows written behind it."""

from __future__ import annotations

import logging
import threading

from dicom_node.listener import KnownPeer, Listener, ListenerConfig
from dicom_node.spool import Spool
from worker import heartbeat, loop_guard
from worker.commitment_desk import CommitmentDesk
from worker.indexer import Indexer
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
        CommitmentDesk(station) as desk,
    ):
        with Listener(listener_config(settings), spool, indexer, desk) as listener:
            logger.info("listening as %s on port %s", settings.node.ae_title, listener.port)
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
