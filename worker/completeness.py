"""When a study is complete, by evidence, and what may be wrong with it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from db import refusals, studies
from db.models import Association, Study


def evidence(
    session: Session, study: Study, *, quiet: timedelta, long_quiet: timedelta, now: datetime
) -> dict[str, Any] | None:
    """What says that a settled study is complete; None where it is not enough yet.

    Every association that carried it was released and a quiet time passed; or, where one broke off,
    had images refused that did not come since, or is not known (files found by the start-up scan), a
    long quiet time: the sender may come again.
    """
    carriers = studies.carriers(session, study.id)
    broken = [row for row in carriers if row.outcome != "released"]
    missing = refusals.missing(session, [row.id for row in carriers])
    known = bool(carriers) and not broken and not missing.count
    needed = quiet if known else max(quiet, long_quiet)
    last = _last_sign(study, carriers)
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
    } | _refused(missing)


def _last_sign(study: Study, carriers: list[Association]) -> datetime:
    """When the study was last heard of: an image, or the end of an association that carried it."""
    return max([study.last_instance_at, *(row.closed_at for row in carriers if row.closed_at is not None)])


def _refused(missing: refusals.Missing) -> dict[str, Any]:
    """The evidence against completeness; empty where there is none."""
    if not missing.count:
        return {}
    return {
        "refused": missing.count,
        "refused_with": ", ".join(f"0x{status:04X}" for status in missing.statuses),
    }


def shortfall(evidence: dict[str, Any] | None) -> str:
    """What the evidence says is missing of a closed study, in words; "" where nothing is.

    Not a `problem`: a refused image is known by its UID only, and may be another study's.
    """
    if not evidence or not evidence.get("refused"):
        return ""
    return (
        f"{evidence['refused']} images on its associations were refused ({evidence['refused_with']}) and "
        f"never came; the results are of the {evidence['instances']} that arrived: send the study again"
    )


def waiting_for(session: Session, study: Study, now: datetime) -> list[str]:
    """What a study that still receives is waiting for, in words."""
    carriers = studies.carriers(session, study.id)
    waits = [
        f"the association of {row.peer or row.calling_ae_title}, open since "
        f"{row.opened_at.astimezone():%Y-%m-%d %H:%M:%S}"
        for row in carriers
        if row.outcome == "open"
    ]
    if waits:
        return waits
    heard = max(0.0, (now - _last_sign(study, carriers)).total_seconds())
    missing = refusals.missing(session, [row.id for row in carriers])
    reasons = [f"an association was {row.outcome}" for row in carriers if row.outcome != "released"]
    reasons += [f"{missing.count} images were refused"] if missing.count else []
    reasons += [] if carriers else ["nobody is known to have sent it"]
    if reasons:
        why = "; ".join(dict.fromkeys(reasons))
        return [f"the long quiet time (node.long_quiet_seconds), for {why}: quiet for {heard:.0f} s"]
    return [f"the quiet time (node.quiet_seconds): quiet for {heard:.0f} s"]


def problem(session: Session, study: Study) -> str:
    """Why no model may have this study; "" where nothing is wrong with it."""
    patients = studies.patient_ids(session, study.id)
    if len(patients) > 1:
        return (
            f"the images under this Study Instance UID carry {len(patients)} different Patient IDs: "
            "correct the study at its source and send it again"
        )
    return ""
