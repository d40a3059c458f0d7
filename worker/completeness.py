"""When a study is complete, by evidence, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from db import counts, naming, refusals, studies
from db.base import Database
from db.models import Association, Study
from db.states import StudyState
from worker import evidence
from worker.evidence import Count, Patience, Scope

__all__ = ["Facts", "Looks", "Patience", "Settled", "gather", "problem", "ripe", "settle", "waiting_for"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a study that receives."""

    study: Study
    #: By series id, of these series.
    tallies: Mapping[int, list[counts.Tally]]
    #: By id.
    carriers: Mapping[str, Association]
    refused: refusals.Missing
    named: naming.Named
    count: Count | None
    #: Series id -> Series Instance UID, without results, ours or another AI's.
    series: Mapping[int, str]

    @property
    def whole(self) -> Scope:
        """The study."""
        return self._scope(list(self.tallies), whole=True, refused=self.refused)

    def by_series(self, session: Session) -> dict[int, Scope]:
        """Its series that have images and were not complete before, by id."""
        found = {}
        for series in self.study.series:
            if (
                series.id not in self.tallies
                or series.id not in self.series
                or series.complete_at is not None
            ):
                continue
            scope = self._scope([series.id], whole=False, refused=self.refused)
            if self.refused.count:
                scope = replace(scope, refused=refusals.missing(session, [row.id for row in scope.carriers]))
            if scope.images:
                found[series.id] = scope
        return found

    def _scope(self, series_ids: Collection[int], *, whole: bool, refused: refusals.Missing) -> Scope:
        own = [tally for series_id in series_ids for tally in self.tallies[series_id]]
        ids = dict.fromkeys(tally.association_id for tally in own)
        carriers = [row for row in self.carriers.values() if row.id in ids]
        arrived = {
            self.series[series_id]: sum(tally.images for tally in self.tallies[series_id])
            for series_id in series_ids
        }
        heard = [tally.last_at for tally in own] + [
            row.closed_at for row in carriers if row.closed_at is not None
        ]
        return Scope(
            whole=whole,
            revision=self.study.revision,
            arrived=arrived,
            last_sign=max([self.study.last_instance_at, *heard] if whole else heard),
            carriers=carriers,
            all_carriers_known=bool(ids) and all(each in self.carriers for each in ids),
            refused=refused,
            named=sum(self.named.here.get(series_id, 0) for series_id in series_ids),
            absent=self.named.absent_with(series_ids),
            count=self.count,
        )


def gather(session: Session, study: Study) -> Facts:
    """Read what is known of a study."""
    carriers = {row.id: row for row in studies.carriers(session, study.id)}
    results = counts.own_series(session, study.id)
    results |= {row.series_instance_uid for row in study.series if row.guarded}
    uids = {row.id: row.series_instance_uid for row in study.series}
    series = {series_id: uid for series_id, uid in uids.items() if uid not in results} or uids
    tallies: dict[int, list[counts.Tally]] = {}
    for tally in counts.tallies(session, study.id):
        if tally.series_id in series:
            tallies.setdefault(tally.series_id, []).append(tally)
    return Facts(
        study=study,
        tallies=tallies,
        carriers=carriers,
        refused=refusals.missing(session, list(carriers)),
        named=naming.named(session, study.id),
        count=_without(Count.of(study.counted), results),
        series=series,
    )


def _without(said: Count | None, results: set[str]) -> Count | None:
    """A sender's count without results, ours or another AI's: it may have got them from us."""
    if said is None or said.total is None or not results:
        return said
    if not said.series:
        return replace(said, total=None)
    others = {uid: images for uid, images in said.series.items() if uid not in results}
    return replace(said, series=others, total=said.total - sum(said.series.values()) + sum(others.values()))


class Looks:
    """When each study that receives is worth a look.

    Whatever happens next to one, nothing but a request or a count makes it complete before a quiet time
    has passed since: so a look at each, every quiet time, finds when exactly it will be.
    """

    def __init__(self) -> None:
        self._next: dict[int, datetime] = {}
        self._counted_at: dict[int, datetime | None] = {}

    def due(
        self, rows: Iterable[counts.Receiving], *, named: set[int], quiet: timedelta, now: datetime
    ) -> list[int]:
        """Ids of the studies to look at now; those that receive no more are forgotten."""
        known = {row.id: row for row in rows}
        self._next = {
            study_id: self._next.get(study_id, row.last_instance_at + quiet)
            for study_id, row in known.items()
        }
        due = [
            study_id
            for study_id, row in known.items()
            if study_id in named
            or self._next[study_id] <= now
            or row.counted_at != self._counted_at.get(study_id)
        ]
        self._counted_at = {study_id: row.counted_at for study_id, row in known.items()}
        return due

    def again(self, study_id: int, at: datetime) -> None:
        """Look at a study again, at the latest then."""
        self._next[study_id] = at


#: What is complete and could not be said so is tried again after this.
_AGAIN = timedelta(seconds=1)


def ripe(database: Database, patience: Patience, now: datetime, looks: Looks) -> list[int]:
    """Ids of studies that are complete, or have series that are; nothing is locked to find them."""
    found = []
    with database.read() as session:
        named = naming.lately(session, now - patience.quiet)
        for study_id in looks.due(counts.receiving(session), named=named, quiet=patience.quiet, now=now):
            facts = gather(session, session.get_one(Study, study_id))
            scopes = [facts.whole, *facts.by_series(session).values()]
            again = now + patience.quiet
            if any(evidence.judge(scope, patience, now) for scope in scopes):
                found.append(study_id)
                again = now + _AGAIN
            times = (evidence.due_at(scope, patience) for scope in scopes)
            looks.again(study_id, min([again, *(at for at in times if at is not None and at > now)]))
    return found


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What has become complete: a study, or series of one that still receives."""

    study: Study
    series_ids: Collection[int]
    #: Why no model may have it; "" where nothing is wrong with it.
    problem: str
    #: For the log.
    in_words: str


def settle(session: Session, study_id: int, patience: Patience, now: datetime) -> Settled | None:
    """Close the study if it is complete, else say which of its series are; None where neither is.

    Its row is locked: nothing of it arrives until the transaction ends.
    """
    studies.lock(session, study_id)
    study = session.get_one(Study, study_id)
    if study.state != StudyState.RECEIVING:
        return None
    facts = gather(session, study)
    wrong = problem(session, study) or _deleted(study, facts.whole)
    proof = evidence.judge(facts.whole, patience, now)
    if proof is not None:
        if not studies.close(session, study, evidence=proof, problem=wrong, at=now):
            return None
        words = f"{proof['instances']} images"
        return Settled(
            study=study, series_ids=[series.id for series in study.series], problem=wrong, in_words=words
        )
    early = {} if wrong else _early(session, facts, patience, now)
    for series_id, own in early.items():
        counts.complete_series(session, series_id, evidence=own, at=now)
    words = f"{len(early)} series of it"
    return Settled(study=study, series_ids=list(early), problem="", in_words=words) if early else None


def _early(session: Session, facts: Facts, patience: Patience, now: datetime) -> dict[int, dict[str, Any]]:
    """The evidence of each series that has become complete by itself."""
    judged = {
        series_id: evidence.judge(scope, patience, now)
        for series_id, scope in facts.by_series(session).items()
    }
    return {series_id: proof for series_id, proof in judged.items() if proof is not None}


#: For words only: nothing is ever complete.
_ENDLESS = Patience(quiet=timedelta.max, long_quiet=timedelta.max)


def waiting_for(session: Session, study: Study, now: datetime) -> list[str]:
    """What a study that still receives is waiting for, in words."""
    scope = gather(session, study).whole
    decided = evidence.claim(scope, _ENDLESS)
    waits = [
        f"the association of {row.peer or row.calling_ae_title}, open since "
        f"{row.opened_at.astimezone():%Y-%m-%d %H:%M:%S}"
        for row in decided.open
    ]
    heard = max(0.0, (now - scope.last_sign).total_seconds())
    asked = scope.count
    if asked is not None and scope.awaits_count(frozenset()):
        waits.append(f"the answer of {asked.source}, how many images it has")
    if waits:
        return [*waits, *(f"what is missing: {each}" for each in decided.lacking)]
    if decided.lacking or decided.unsure:
        why = "; ".join([*decided.lacking, *decided.unsure])
        return [f"the long quiet time (node.long_quiet_seconds), for {why}: quiet for {heard:.0f} s"]
    return [f"the quiet time (node.quiet_seconds): quiet for {heard:.0f} s"]


def _deleted(study: Study, whole: Scope) -> str:
    """Why a part of a study whose files were deleted is not taken for the whole; "" where it is no part."""
    if study.purged_at is None or whole.counted == whole.images:
        return ""
    if whole.images == 0 or whole.images >= study.purged_instances:
        return ""
    return (
        f"its files were deleted after their retention time, and only {whole.images} of its "
        f"{study.purged_instances} images came again: send the whole study again"
    )


def problem(session: Session, study: Study) -> str:
    """Why no model may have this study; "" where nothing is wrong with it."""
    patients = studies.patient_ids(session, study.id)
    if len(patients) > 1:
        return (
            f"the images under this Study Instance UID carry {len(patients)} different Patient IDs: "
            f"correct the study at its source, run `secondread studies purge --study "
            f"{study.study_instance_uid}` here, and send all of it again"
        )
    return ""
