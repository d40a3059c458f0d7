"""Which series a job is about, where they are several: by role, in the order of the model's inputs."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db import job_series
from db.base import Database
from db.models import Instance, Job, Series, Study
from tests.db import rows


def _series(session: Session) -> dict[str, int]:
    """Three series of one study, by UID."""
    for number in (1, 2, 3):
        rows.receive(session, series=f"1.2.1.{number}")
    return {row.series_instance_uid: row.id for row in session.scalars(select(Series))}


def _job(session: Session, first: int, roles: dict[str, int]) -> Job:
    return rows.make_job(session, session.scalars(select(Study)).one(), roles=roles, series_id=first)


def test_a_job_of_one_series_has_no_rows_of_its_own(database: Database) -> None:
    with database.write() as session:
        ids = _series(session)
        job = _job(session, ids["1.2.1.2"], {"image": ids["1.2.1.2"]})
        assert [(role, each.id) for role, each in job_series.of(session, job).items()] == [
            ("", job.series_id)
        ]
        assert job_series.uids(session, job) == {}


def test_the_roles_keep_their_order_and_are_written_once(database: Database) -> None:
    with database.write() as session:
        ids = _series(session)
        roles = {"pet": ids["1.2.1.3"], "ct": ids["1.2.1.1"]}
        job = _job(session, ids["1.2.1.3"], roles)
        assert _job(session, ids["1.2.1.3"], roles).id == job.id
        assert list(job_series.uids(session, job).items()) == [("pet", "1.2.1.3"), ("ct", "1.2.1.1")]


def test_a_job_is_about_each_of_its_series(database: Database) -> None:
    with database.write() as session:
        ids = _series(session)
        _job(session, ids["1.2.1.1"], {"t1": ids["1.2.1.1"], "t2": ids["1.2.1.2"]})
        found = {
            uid: len(session.scalars(select(Job).where(job_series.about([series_id]))).all())
            for uid, series_id in ids.items()
        }
        assert found == {"1.2.1.1": 1, "1.2.1.2": 1, "1.2.1.3": 0}


def test_one_series_without_images_is_enough_to_lack_them(database: Database) -> None:
    with database.write() as session:
        ids = _series(session)
        _job(session, ids["1.2.1.1"], {"t1": ids["1.2.1.1"], "t2": ids["1.2.1.2"]})
        lacking = select(Job.id).where(job_series.lacks_images())
        session.execute(delete(Instance).where(Instance.series_id == ids["1.2.1.3"]))
        assert session.scalars(lacking).all() == []
        session.execute(delete(Instance).where(Instance.series_id == ids["1.2.1.2"]))
        assert len(session.scalars(lacking).all()) == 1
