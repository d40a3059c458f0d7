"""The Celery app, and what a worker process opens once.

Start it as `celery -A worker.app worker`, or with `secondread work`.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import Any

from celery import Celery
from celery.signals import task_failure, worker_process_init, worker_process_shutdown

from worker import child, heartbeat, logs, station

logger = logging.getLogger(__name__)

app = Celery("secondread", include=["worker.tasks"])
app.config_from_object("worker.queueing")

#: What this worker process holds open.
_held = ExitStack()


@worker_process_init.connect
def _open_station(**_: Any) -> None:
    """Each worker process opens its own database connections and loads its models before its first job."""
    child.set_apart()
    opened = station.open_here()
    _held.callback(station.close_here)
    _held.enter_context(heartbeat.Heartbeat(opened, os.environ.get(logs.ROLE_VARIABLE, "work")))
    logger.info("the worker is ready")


@worker_process_shutdown.connect
def _close_station(**_: Any) -> None:
    _held.close()


@task_failure.connect
def _log_failure(exception: BaseException, sender: Any, args: Any, **_: Any) -> None:
    """A task that fails is repeated by the sweep; Celery's own line would quote the error's words."""
    logger.error("task %s%s failed; the sweep repeats it", sender.name, tuple(args), exc_info=exception)
