"""What a job is about: the series of its model's roles, and the very images that are its identity."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import job_series, studies
from db.models import Instance, Job, Series, Study
from worker import routing
from worker.series_files import Files


def series_views(
    session: Session, study: Study, asked: Collection[int], *, with_others: bool
) -> tuple[list[routing.SeriesView], list[routing.SeriesView]]:
    """A study's series with these ids, which are complete, and its others, as the routes see them.

    The others are read `with_others` only: they matter to models of several series.
    """
    views: tuple[list[routing.SeriesView], list[routing.SeriesView]] = ([], [])
    for series in study.series:
        if not with_others and series.id not in asked:
            continue
        instances = studies.instances_of(session, series.id)
        if not instances:
            # Its images were deleted, and did not come again with what else came.
            continue
        complete = series.id in asked or series.complete_at is not None
        views[series.id not in asked].append(series_view(series, instances, complete=complete))
    return views


def series_view(
    series: Series, instances: Sequence[Instance], *, complete: bool = True
) -> routing.SeriesView:
    """A series with these images, as the routes see it."""
    counted = {"NumberOfSeriesRelatedInstances": len(instances)}
    return routing.SeriesView(
        series_id=series.id,
        series_instance_uid=series.series_instance_uid,
        attributes={**(series.attributes or {}), **counted},
        sop_instance_uids=tuple(instance.sop_instance_uid for instance in instances),
        changed=_changed(instances),
        complete=complete,
        guarded=series.guarded,
    )


def identity(digest: str, taken: Mapping[str, routing.SeriesView]) -> str:
    """The identity of a model's answer about these series, by role; the first is the one that results lie on."""
    first, *others = taken.items()
    parameters = _images(first[1])
    if others:
        parameters["role"] = first[0]
        parameters["others"] = {
            role: {**_images(view), "instances": sorted(view.sop_instance_uids)} for role, view in others
        }
    return routing.identity(digest, first[1].sop_instance_uids, parameters)


def _images(view: routing.SeriesView) -> dict[str, Any]:
    # The series is a parameter: senders exist that give one SOP Instance UID to two studies' images.
    parameters: dict[str, Any] = {"series": view.series_instance_uid}
    if view.changed:
        parameters["changed"] = dict(view.changed)
    return parameters


def _changed(images: Sequence[Instance]) -> dict[str, str]:
    """Which bytes are meant, of images whose bytes took the place of others under their SOP Instance UID.

    Counted too: where the first bytes come back, the answer about them is a new one, after that about others.
    """
    return {row.sop_instance_uid: f"{row.sha256[:16]}.{row.changes}" for row in images if row.changes}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A series in a job's role, with those of its images that are the job's."""

    series: Series
    images: Sequence[Instance]

    @property
    def view(self) -> routing.SeriesView:
        """As the routes see it."""
        return series_view(self.series, self.images)

    def files(self, spool_root: Path) -> Files:
        """As a model reads it."""
        paths = [spool_root / row.path for row in self.images]
        return Files(
            series_instance_uid=self.series.series_instance_uid,
            paths=paths,
            digests=[row.sha256 for row in self.images],
        )


def of_job(session: Session, job: Job) -> dict[str, Subject] | None:
    """What a job's identity stands for, by role; None where the images are no longer as they were.

    Late images may have come between the job's making and now: they are a newer revision's.
    """
    series = job_series.of(session, job)
    present = {role: studies.instances_of(session, each.id) for role, each in series.items()}
    of_revision = {
        role: [row for row in rows if row.revision <= job.revision] for role, rows in present.items()
    }
    for images in (present, of_revision):
        chosen = {role: Subject(series=series[role], images=images[role]) for role in series}
        taken = {role: subject.view for role, subject in chosen.items()}
        if identity(job.model_digest, taken) == job.identity:
            return chosen
    return None
