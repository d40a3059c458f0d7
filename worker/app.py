"""The Celery app, and what a worker process opens once.

Start it as `celery -A worker.app worker`, or with `secondread work`.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown, worker_ready

from worker import station

logger = logging.getLogger(__name__)

app = Celery("secondread", include=["worker.tasks"])
app.config_from_object("worker.queueing")


@worker_process_init.connect
def _open_station(**_: Any) -> None:
    """Each worker process opens its own database connections and loads its models before its first job."""
    station.open_here()


@worker_process_shutdown.connect
def _close_station(**_: Any) -> None:
    station.close_here()


@worker_ready.connect
def _say_ready(**_: Any) -> None:
    logger.info("the worker is ready")
