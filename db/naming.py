"""Storage commitment requests as evidence: which of a study's images their senders named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import CommitmentReference, CommitmentRequest, Instance, Series, Study
from db.states import StudyState

#: Of so many requests it is known at once that they came; of others when their study is looked at anyway.
_NEWEST = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """What the requests that name any image of a study say of it."""

    #: Series id -> ids of the requests that name images of it.
    requests: Mapping[int, frozenset[int]]
    #: Series id -> images of it that are here and named.
    here: Mapping[int, int]
    #: Request id -> images that it names and that no study here has.
    absent: Mapping[int, int]

    def absent_with(self, series_ids: Collection[int]) -> int:
        """Images that never came, of the requests that name images of these series."""
        asked = {request for series_id in series_ids for request in self.requests.get(series_id, ())}
        return sum(self.absent.get(request, 0) for request in asked)


def named(session: Session, study_id: int) -> Named:
    """What was named of a study."""
    requests: dict[int, set[int]] = {}
    here: dict[int, set[str]] = {}
    found = session.execute(
        select(CommitmentReference.request_id, Instance.series_id, Instance.sop_instance_uid)
        .join(Instance, Instance.sop_instance_uid == CommitmentReference.sop_instance_uid)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id, Instance.conflicting.is_(False))
    )
    for request_id, series_id, uid in found:
        requests.setdefault(series_id, set()).add(request_id)
        here.setdefault(series_id, set()).add(uid)
    asked = set().union(*requests.values())
    return Named(
        requests={series_id: frozenset(ids) for series_id, ids in requests.items()},
        here={series_id: len(uids) for series_id, uids in here.items()},
        absent=_absent(session, asked) if asked else {},
    )


def _absent(session: Session, request_ids: Collection[int]) -> dict[int, int]:
    """Images per request that are not here."""
    arrived = select(Instance.id).where(Instance.sop_instance_uid == CommitmentReference.sop_instance_uid)
    return dict(
        session.execute(
            select(
                CommitmentReference.request_id,
                func.count(CommitmentReference.sop_instance_uid.distinct()),
            )
            .where(CommitmentReference.request_id.in_(request_ids), ~arrived.exists())
            .group_by(CommitmentReference.request_id)
        ).all()
    )


def lately(session: Session, since: datetime) -> set[int]:
    """Ids of studies that still receive and of which requests name images that came since a time."""
    newest = (
        select(CommitmentRequest.id, CommitmentRequest.received_at)
        .order_by(CommitmentRequest.id.desc())
        .limit(_NEWEST)
        .subquery()
    )
    fresh = session.scalars(select(newest.c.id).where(newest.c.received_at >= since)).all()
    if not fresh:
        return set()
    return set(
        session.scalars(
            select(Study.id)
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .join(
                CommitmentReference,
                CommitmentReference.sop_instance_uid == Instance.sop_instance_uid,
            )
            .where(
                CommitmentReference.request_id.in_(fresh),
                Study.state == StudyState.RECEIVING.value,
            )
            .distinct()
        )
    )
