"""Asking senders for their own number of images, beside the sweep: one that never answers delays nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom.uid import generate_uid

from db import counts
from db.models import Study
from dicom_node import errors, query
from dicom_node.senders import Destination
from worker import completeness, station
from worker.completeness import Facts
from worker.evidence import Count, Scope
from worker.sections import Peer
from worker.settings import Settings
from worker.station import Station

logger = logging.getLogger(__name__)

#: How often is looked for studies to ask about.
TICK_SECONDS = 0.25
#: A sender that takes longer to answer is not waited for, whatever its `timeout_seconds`.
MOST_SECONDS = 10.0
#: The pause before the same question is asked again, doubling.
_FIRST, _LONGEST = timedelta(seconds=5), timedelta(minutes=10)
#: An asker that is silent for so long has died.
_DEAD = timedelta(seconds=60)


@contextmanager
def running(here: Station) -> Iterator[None]:
    """While the block runs, the peers with a `count` setting are asked, each by a thread of its own."""
    ended = threading.Event()
    askers = [Asker(here, peer) for peer in here.settings.peers if peer.count != "none"]
    for asker in askers:
        threading.Thread(
            target=asker.run, args=(ended,), name=f"count {asker.peer.name}", daemon=True
        ).start()
    try:
        yield
    finally:
        # A question that hangs is not waited for: its answer would only be dropped.
        ended.set()


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A question that is to be asked: of which study, and what the row said before."""

    study_id: int
    study_instance_uid: str
    seen: datetime | None
    claim: Count


class Asker:
    """Asks one peer about the studies that it sends, one at a time."""

    def __init__(self, here: Station, peer: Peer) -> None:
        self.peer = peer
        self._database = here.database
        self._destination = destination(peer, here.settings)
        self._quiet = timedelta(seconds=here.settings.node.quiet_seconds)
        #: Study id -> its count of arrivals when it was looked at, and when to look again.
        self._looked: dict[int, tuple[int, datetime]] = {}
        #: A peer that cannot be asked is left alone for a while; its studies go on without its count.
        self._rests_until = datetime.min.replace(tzinfo=UTC)
        self._failures = 0
        self._problem = ""

    def run(self, ended: threading.Event) -> None:
        """Ask until `ended` is set."""
        while not ended.wait(TICK_SECONDS):
            try:
                for row in self.due(datetime.now(UTC)):
                    if ended.is_set():
                        return
                    self.consider(row, datetime.now(UTC))
            except Exception:
                # The database may be away; nobody is asked meanwhile, and studies close on other evidence.
                logger.exception("%s was not asked for its number of images; trying again", self.peer.name)
                ended.wait(MOST_SECONDS)

    def due(self, now: datetime) -> list[counts.Receiving]:
        """Studies that are worth a look: new, or with new images, or asked about long ago."""
        with self._database.read() as session:
            rows = counts.receiving(session)
        self._looked = {row.id: self._looked[row.id] for row in rows if row.id in self._looked}
        return [row for row in rows if self._is_due(row, now)]

    def _is_due(self, row: counts.Receiving, now: datetime) -> bool:
        # One that still streams is looked at now and then: a series of it may be complete.
        arrivals, again = self._looked.setdefault(row.id, (-1, now + self._quiet))
        return now >= again or (arrivals != row.arrivals and self._is_silent(row.last_instance_at, now))

    def _is_silent(self, since: datetime, now: datetime) -> bool:
        """Whether an answer would be there by the end of the quiet time, and not long before."""
        return now - since >= self._quiet / 2

    def consider(self, row: counts.Receiving, now: datetime) -> None:
        """Ask about one study, if there is something to ask."""
        with self._database.read() as session:
            study = session.get(Study, row.id)
            if study is None:
                return
            facts = completeness.gather(session, study)
            again, question = self._question(facts, facts.by_series(session).values(), now)
        self._looked[row.id] = (row.arrivals, again)
        if question is not None:
            self._ask(question, now)

    def _question(
        self, facts: Facts, series: Iterable[Scope], now: datetime
    ) -> tuple[datetime, _Question | None]:
        """What to ask, and when to look again."""
        study, whole, said = facts.study, facts.whole, Count.of(facts.study.counted)
        if not any(row.peer == self.peer.name for row in whole.carriers):
            return now + _LONGEST, None
        again, tries = now, 1
        asked_at = study.counted_at or study.received_at
        if said is not None and not said.answered and now < asked_at + _DEAD:
            return asked_at + _DEAD, None  # another sweep is asking
        if said is not None and whole.is_current(said):
            again = asked_at + min(_FIRST * 2 ** min(said.tries - 1, 10), _LONGEST)
            tries = said.tries + 1
        elif said is not None:
            again = asked_at + self._quiet
        if now < again:
            return again, None
        waiting = [scope.last_sign for scope in series if scope.counted is None]
        if not any(self._is_silent(since, now) for since in [study.last_instance_at, *waiting]):
            return now + self._quiet, None
        arrived = dict(whole.arrived)
        claim = Count(peer=self.peer.name, by=self.peer.count, arrived=arrived, series={}, tries=tries)
        if said is not None and tries > 1 and said.answered:
            claim = replace(said, tries=tries)  # what is known stays until there is a better answer
        return now + _FIRST, _Question(
            study_id=study.id, study_instance_uid=study.study_instance_uid, seen=study.counted_at, claim=claim
        )

    def _ask(self, question: _Question, now: datetime) -> None:
        """Claim the question, ask, and write the answer down; somebody else's claim goes before."""
        if not self._put(question, question.seen, now, question.claim):
            return
        answer = self._answer(question, now)
        said = replace(
            question.claim,
            peer=self.peer.name,
            by=self.peer.count,
            answered=True,
            series={},
            total=None,
            problem="",
        )
        # A moment later, whatever the clock says: who looks for a new answer compares it.
        at = max(datetime.now(UTC), now + timedelta(microseconds=1))
        self._put(question, now, at, replace(said, **answer))

    def _put(self, question: _Question, seen: datetime | None, at: datetime, count: Count) -> bool:
        with self._database.write() as session:
            return counts.put(session, question.study_id, seen=seen, at=at, counted=count.as_dict())

    def _answer(self, question: _Question, now: datetime) -> dict[str, Any]:
        """What the peer says, or why it does not."""
        if now < self._rests_until:
            return {"problem": self._problem}
        began = time.monotonic()
        try:
            found = query.count(self._destination, question.study_instance_uid, by=_protocol(self.peer))
        except (errors.SendError, errors.QueryError) as error:
            slow = time.monotonic() - began >= self._destination.timeout_seconds / 2
            logger.warning("no number of images: %s", error)
            if slow or isinstance(error, errors.SendError):
                self._rest(str(error), now)
            return {"problem": str(error)}
        self._failures = 0
        if found is None:
            return {"problem": f"{self.peer.name}: does not know the study"}
        return {"series": dict(found.series), "total": found.total}

    def _rest(self, problem: str, now: datetime) -> None:
        """Leave the peer alone for a while, longer each time."""
        self._problem = problem
        self._rests_until = max(datetime.now(UTC), now) + min(_FIRST * 2 ** min(self._failures, 10), _LONGEST)
        self._failures += 1


def check(peer: Peer, settings: Settings) -> str:
    """What is wrong with asking a peer; "" where it answers. It is asked about a study that nobody has."""
    try:
        query.count(destination(peer, settings), str(generate_uid()), by=_protocol(peer))
    except (errors.SendError, errors.QueryError) as error:
        return str(error)
    return ""


def destination(peer: Peer, settings: Settings) -> Destination:
    """A peer as one that is asked."""
    known = station.destination(peer, settings)
    patience = min(peer.timeout_seconds, MOST_SECONDS)
    return replace(known, url=peer.qido_url or known.url, timeout_seconds=patience)


def _protocol(peer: Peer) -> query.Protocol:
    return "qido" if peer.count == "qido" else "cfind"
