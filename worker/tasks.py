"""The messages' other end: each task takes a row id, does its part of the journey, nudges what follows."""

from __future__ import annotations

import logging
from functools import partial

from sqlalchemy.exc import OperationalError

from worker import child, commitment_answers, enqueue, outcomes, pipeline, station
from worker.app import app

logger = logging.getLogger(__name__)


@app.task(name="analyse")
def analyse(job_id: int) -> None:
    """Run a job and nudge its deliveries."""
    here = station.here()
    try:
        pipeline.analyse(here.bench, job_id, send=partial(enqueue.deliveries, here.database))
    except OperationalError:
        # Its stack trace would say no more than that the database is away, or its disk full.
        logger.warning("job %s: the database failed in the middle", job_id)
        outcomes.wait_for_database(here.bench, job_id)
    except Exception as error:
        # A job that nobody foresaw must end with a recorded reason, not with a worker.
        logger.exception("job %s ended in an unexpected error", job_id)
        outcomes.give_up(here.bench, job_id, error)
    if here.shelf.device_is_lost:
        child.leave("the GPU is lost to it, and a new process may have it")


@app.task(name="deliver")
def deliver(delivery_id: int) -> None:
    """Send what is due of a job at a destination; the sweep repeats it where this fails."""
    here = station.here()
    pipeline.deliver(here.post, delivery_id)
    pipeline.commit(here.post, delivery_id)
    enqueue.next_delivery(here.database, delivery_id)


@app.task(name="commit")
def commit(delivery_id: int) -> None:
    """Ask a destination to commit to what it took; the sweep repeats it where this fails."""
    here = station.here()
    pipeline.commit(here.post, delivery_id)
    enqueue.next_delivery(here.database, delivery_id)


@app.task(name="answer")
def answer(request_id: int) -> None:
    """Tell a peer that asked for storage commitment what we hold; the sweep repeats it where this fails."""
    commitment_answers.answer(commitment_answers.clerk(station.here()), request_id)
