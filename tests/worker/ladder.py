"""What speaks for a study being complete, put into the tables as the listener and the asker would."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset

from db import associations, commitment_requests, counts, models, studies
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import completeness
from worker.evidence import Count

SECOND_SERIES = f"{journeys.STUDY}.2"


def two_series() -> tuple[list[Dataset], list[Dataset]]:
    """Two series of one study."""
    return journeys.datasets(), journeys.datasets(series_uid=SECOND_SERIES)


def release(journey: Journey, association: str) -> None:
    """End an open association well."""
    with journey.database.write() as session:
        associations.close(session, association, outcome="released", at=datetime.now(UTC))


def request(journey: Journey, made: Sequence[Dataset], *more: str) -> None:
    """A storage commitment request for these images, and for others by their UIDs."""
    values = {"association_id": "a9", "peer": "modality", "calling_ae_title": "CT1", "address": "127.0.0.1"}
    values |= {"transaction_uid": f"1.5.{len(journey.rows(models.CommitmentRequest))}"}
    uids = [*(str(ds.SOPInstanceUID) for ds in made), *more]
    with journey.database.write() as session:
        commitment_requests.record(
            session, {**values, "received_at": datetime.now(UTC)}, [("1.2", uid) for uid in uids]
        )


def count(journey: Journey, series: dict[str, int] | None = None, **values: Any) -> None:
    """The sender's answer, asked now: images by series, or what else it says."""
    with journey.database.write() as session:
        study = studies.by_uid(session, journeys.STUDY)
        said: dict[str, Any] = {"peer": "modality", "by": "cfind", "answered": True, "series": series or {}}
        said |= {"total": sum(series.values()) if series else None}
        said |= {"arrived": completeness.gather(session, study).whole.arrived}
        counted = Count(**(said | values)).as_dict()
        assert counts.put(session, study.id, seen=study.counted_at, at=datetime.now(UTC), counted=counted)


def evidence(journey: Journey) -> dict[str, Any]:
    """What decided."""
    found = journey.why().evidence
    assert found is not None
    return found


def series(journey: Journey) -> list[models.Series]:
    """The study's series as they are."""
    return journey.rows(models.Series)
