"""When a study is complete, by evidence, and what may be wrong with it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from db import studies
from db.models import Study


def evidence(
    session: Session, study: Study, *, quiet: timedelta, long_quiet: timedelta, now: datetime
) -> dict[str, Any] | None:
    """What says that a settled study is complete; None where it is not enough yet.

    Every association that carried it was released and a quiet time passed; or, where one broke off
    or is not known (files found by the start-up scan), a long quiet time: the sender may come again.
    """
    carriers = studies.carriers(session, study.id)
    broken = [row for row in carriers if row.outcome != "released"]
    known = bool(carriers) and not broken
    needed = quiet if known else max(quiet, long_quiet)
    closed = [row.closed_at for row in carriers if row.closed_at is not None]
    last = max([study.last_instance_at, *closed])
    if any(row.outcome == "open" for row in carriers) or now - last < needed:
        return None
    return {
        "signal": "associations released" if known else "long quiet time",
        "needed_seconds": needed.total_seconds(),
        "quiet_seconds": round((now - last).total_seconds(), 3),
        "instances": sum(studies.count_by_series(session, study.id).values()),
        "series": len(study.series),
        "associations": [
            {"id": row.id, "peer": row.peer or row.calling_ae_title, "outcome": row.outcome}
            for row in carriers
        ],
    }


def problem(session: Session, study: Study) -> str:
    """Why no model may have this study; "" where nothing is wrong with it."""
    patients = studies.patient_ids(session, study.id)
    if len(patients) > 1:
        return (
            f"the images under this Study Instance UID carry {len(patients)} different Patient IDs: "
            "correct the study at its source and send it again"
        )
    return ""
