"""The loop guard's verdicts: which series are results that came back, and must not be analysed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import events
from db.models import Instance, Series, Study
from db.new_instance import NewInstance


def mark(
    session: Session,
    instances: Sequence[NewInstance],
    studies: Mapping[str, Study],
    series: Mapping[tuple[int, str], int],
) -> set[int]:
    """Keep the verdicts of a batch; return which of its series, by id, are guarded, by this batch or before.

    One object speaks for its series, and what was said of a series holds while there are files of it.
    Said once as an event. `series` has the ids by (study id, Series Instance UID).
    """
    told = {
        series[studies[instance.study_instance_uid].id, instance.series_instance_uid]: instance
        for instance in reversed(instances)
        if instance.guarded
    }
    _forget_emptied(session, series)
    known = set(
        session.scalars(select(Series.id).where(Series.id.in_(series.values()), Series.guarded != ""))
    )
    for series_id, instance in sorted(told.items()):
        if series_id not in known:
            _keep(session, series_id, instance, studies[instance.study_instance_uid].id)
    return known | told.keys()


def _forget_emptied(session: Session, series: Mapping[tuple[int, str], int]) -> None:
    """What was said of files that were purged says nothing of those that come now."""
    files = select(Instance.id).where(Instance.series_id == Series.id)
    session.execute(
        update(Series)
        .where(Series.id.in_(series.values()), Series.guarded != "", ~files.exists())
        .values(guarded="")
        .execution_options(synchronize_session=False)
    )


def _keep(session: Session, series_id: int, instance: NewInstance, study_id: int) -> None:
    session.execute(
        update(Series)
        .where(Series.id == series_id)
        .values(guarded=instance.guarded)
        .execution_options(synchronize_session=False)
    )
    events.note(
        session,
        "guarded",
        f"series {instance.series_instance_uid} is not analysed: {instance.guarded}",
        study_id=study_id,
        association_id=instance.association_id,
    )
