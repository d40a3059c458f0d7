"""The sweep's steps, each by itself: one that fails is told of, and holds up none of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db import troubles
from db.base import Database

logger = logging.getLogger(__name__)

#: Wait before a step is taken again that has failed.
REST = timedelta(seconds=2)
#: So many failures in a row are more than a database or a broker that was away for a moment.
KEEPS_FAILING = 3
REMEDY = "see the sweep's log; its other steps go on, and nothing is lost"


class Steps:
    """Takes steps by name, and counts for each how often it has failed since it last worked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: One that was not taken yet may have failed in an earlier process.
        self._failures: dict[str, int] = {}
        self._rests_until: dict[str, datetime] = {}

    def take(self, name: str, step: Callable[[], object], now: datetime) -> None:
        """Take a step, unless it has just failed. Whatever it raises is logged, and an event where it lasts."""
        if name in self._rests_until and now < self._rests_until[name]:
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other steps are still to be taken
            self._failed(name, error, now)
        else:
            self._worked(name)

    def _failed(self, name: str, error: Exception, now: datetime) -> None:
        count = self._failures[name] = self._failures.get(name, 0) + 1
        self._rests_until[name] = now + REST
        # Its stack trace says the same every time.
        logger.error(
            "the sweep failed at %s (%s), %s times in a row, and tries again",
            name,
            type(error).__name__,
            count,
            exc_info=error if count in (1, KEEPS_FAILING) else None,
        )
        if count >= KEEPS_FAILING:
            words = f"it fails again and again ({type(error).__name__}); the log of the sweep has the details"
            self._written(partial(troubles.begin, step=name, words=words))

    def _worked(self, name: str) -> None:
        if self._failures.get(name) != 0 and self._written(partial(troubles.end, step=name)):
            self._failures[name] = 0

    def _written(self, tell: Callable[[Session], None]) -> bool:
        """Write what is to be told; False where the database did not take it, and the log has it alone."""
        try:
            with self._database.write() as session:
                tell(session)
        except SQLAlchemyError as error:
            logger.warning("an event could not be written (%s); trying again", type(error).__name__)
            return False
        return True


def in_words(failing: Mapping[str, str]) -> str:
    """The steps that keep failing, for people."""
    return "; ".join(f"{step}: {words}" for step, words in failing.items())
