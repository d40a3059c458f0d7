"""What crosses between DICOM, engine and database, written as the rows and views of the other side."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import announcements, supersession
from db.models import Job, ResultObject, Study
from db.new_instance import NewInstance
from db.priorities import Priority
from db.states import JobState
from dicom_node import attributes as dicom_attributes
from dicom_node.errors import DataSetError
from dicom_node.instance import StoredInstance
from dicom_node.results import ResultFile, boxes
from dicom_node.results.context import Predecessor, Report
from engines import labels
from engines.findings import Findings, Measurement
from worker import parameters, profiles, routing, subjects, turns
from worker.stand_in import BESIDE
from worker.views import IN_PLACE

logger = logging.getLogger(__name__)

#: As the column has it.
_LONGEST_ENGINE = 128


def attributes(path: Path) -> dict[str, Any]:
    """The attributes that routes may ask for; empty where the file cannot be read."""
    try:
        return dict(dicom_attributes.read_attributes(path))
    except DataSetError as error:
        logger.warning("%s: its attributes cannot be read (%s); no route will match it", path.name, error)
        return {}


def new_instance(stored: StoredInstance, attributes: dict[str, Any] | None, *, guarded: str) -> NewInstance:
    """A stored file as the intake's row."""
    return NewInstance(
        study_instance_uid=stored.study_instance_uid,
        series_instance_uid=stored.series_instance_uid,
        sop_instance_uid=stored.sop_instance_uid,
        sop_class_uid=stored.sop_class_uid,
        transfer_syntax_uid=stored.transfer_syntax_uid,
        path=str(stored.path),
        size=stored.size,
        sha256=stored.sha256,
        patient_id=stored.patient_id,
        modality=stored.modality,
        association_id=stored.association_id,
        received_at=stored.received_at,
        conflicting=stored.conflicting,
        duplicate=stored.duplicate,
        attributes=attributes,
        guarded=guarded,
    )


def decision(study: Study, said: routing.Decision, now: datetime) -> dict[str, Any]:
    """A routing decision's row."""
    return {
        "study_id": study.id,
        "revision": study.revision,
        "series_id": None if said.series is None else said.series.series_id,
        "route": said.route,
        "model": said.model,
        "matched": said.matched,
        "reason": said.reason,
        "trace": said.trace.as_dict(),
        "decided_at": now,
    }


def routed(
    study: Study, said: routing.Decision, route: routing.RouteRule, model: routing.ModelRule, now: datetime
) -> dict[str, Any]:
    """The row of the job that follows from a route's decision."""
    values = job(
        study,
        said,
        model,
        sends=profiles.sends(route.send_to, route.terms, model.results),
        announce_to=route.announce_to,
        given=route.parameters.get(model.name, {}),
        now=now,
    )
    turn = min(turns.of(route.priority, view.attributes) for view in said.taken.values())
    return values | {"priority": turn}


def job(
    study: Study,
    said: routing.Decision,
    model: routing.ModelRule,
    *,
    sends: Mapping[str, Any],
    announce_to: Collection[str],
    given: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """A queued job's row; `given` are its parameters."""
    return {
        "study_id": study.id,
        "series_id": next(iter(said.taken.values())).series_id,
        "revision": study.revision,
        "route": said.route,
        "model": model.name,
        "model_version": model.version,
        "model_digest": model.digest,
        "identity": subjects.identity(model.digest, said.taken, given),
        "parameters": parameters.text(given),
        "destinations": list(sends),
        "sends": dict(sends),
        "announce_to": list(announce_to),
        "unannounced": bool(announce_to),
        "state": JobState.QUEUED.value,
        "priority": Priority.ROUTINE,
        "attempts": 0,
        "created_at": now,
        "lease_owner": "",
        "reason": "",
        "error": "",
        "engine": "",
    }


def announced(session: Session, job: Job) -> tuple[Report, ...]:
    """What destinations have had by now that says that there is no answer."""
    return tuple(_report(made) for made in announcements.arrived(session, job))


def predecessor(session: Session, job: Job) -> Predecessor | None:
    """The answer whose place this job's takes; `supersession.settle_predecessor` fixed which that is."""
    line = supersession.predecessors(session, job)
    if not line:
        return None
    reports = [_report(made) for made in line[0].results if made.kind == "sr" and made.verified]
    return Predecessor(
        revision=len(line), created_at=line[0].created_at, report=reports[0] if reports else None
    )


def _report(made: ResultObject) -> Report:
    """A document of ours, as another refers to it."""
    return Report(
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=made.sop_instance_uid,
        series_instance_uid=made.series_instance_uid,
    )


def roles(said: routing.Decision) -> dict[str, int]:
    """The ids of the series that a job is about, by role."""
    return {role: view.series_id for role, view in said.taken.items() if view.series_id is not None}


def serve_both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The row of one job for two routes that ask the same of the same images."""
    both = {name: sorted({*first[name], *second[name]}) for name in ("destinations", "announce_to")}
    sends = {**second["sends"], **first["sends"]}
    first_turn = min(first["priority"], second["priority"])
    return first | both | {"unannounced": bool(both["announce_to"]), "sends": sends, "priority": first_turn}


def skipped(values: dict[str, Any], reason: str, error: str, now: datetime) -> dict[str, Any]:
    """A job's row as that of one that is not to run."""
    untold = announcements.nowhere("it is not known whose study it is, or whether it is whole")
    ended = {"state": JobState.SKIPPED.value, "reason": reason, "error": error, "finished_at": now}
    return values | ended | {"notes": [untold] if values["announce_to"] else None}


def findings(found: Findings) -> dict[str, list[dict[str, Any]]]:
    """Segments, measurements, findings and boxes as rows."""
    voxels = labels.counts(found.mask, len(found.segments))
    names = {segment.number: segment.label for segment in found.segments}
    return {
        "segments": [
            {
                "number": segment.number,
                "label": segment.label,
                "code_value": segment.type.value,
                "code_scheme": segment.type.scheme,
                "code_meaning": segment.type.meaning,
                "voxels": int(voxels[segment.number]),
            }
            for segment in found.segments
        ],
        "measurements": [
            {
                "key": measured.key,
                "segment_number": measured.segment_number,
                "segment_label": names.get(measured.segment_number or 0, ""),
                # A class's probability is asked for by the class: "Probability" says nothing.
                "code_value": (measured.about or measured.name).value,
                "code_scheme": (measured.about or measured.name).scheme,
                "code_meaning": (measured.about or measured.name).meaning,
                "derivation": _derivation(measured),
                "value": measured.value,
                "unit": measured.unit.value,
            }
            for measured in found.measurements
        ],
        "findings": [
            {
                "key": finding.key,
                "code_value": finding.code.value,
                "code_scheme": finding.code.scheme,
                "code_meaning": finding.code.meaning,
                "present": finding.present,
                "urgency": finding.urgency.value,
                "explanation": finding.explanation,
            }
            for finding in found.findings
        ],
        "boxes": [_box(item, found) for item in boxes.placed(found)],
    }


def _derivation(measured: Measurement) -> str:
    """What a number is of what its code names: a mean, a probability; "" where that says it all."""
    if measured.about is not None:
        return measured.name.meaning
    return measured.derivation.meaning if measured.derivation else ""


def _box(item: boxes.Placed, found: Findings) -> dict[str, Any]:
    """A box's row."""
    return {
        "key": item.box.key,
        "label": item.box.label,
        "number": item.number,
        "code_value": item.box.code.value,
        "code_scheme": item.box.code.scheme,
        "code_meaning": item.box.code.meaning,
        "score": item.box.score,
        "slice": item.slice + 1,
        "low": list(item.box.low),
        "high": list(item.box.high),
        "size_mm": [each.value for each in boxes.measurements(item, found.geometry)[1:]],
    }


def ran_on(engine: str) -> dict[str, str]:
    """What a job ran on as its row has it: what answered, and the rest of the sentence where that is the fallback."""
    if IN_PLACE not in engine:
        return {"engine": engine[:_LONGEST_ENGINE], "fallback": ""}
    # Of several models, the last one's comes first.
    ends = [end for end in (engine.find(IN_PLACE), engine.find(BESIDE)) if end >= 0]
    end = min(*ends, _LONGEST_ENGINE)
    return {"engine": engine[:end], "fallback": engine[end:]}


def result_object(file: ResultFile, results_root: Path) -> dict[str, Any]:
    """A result file's row."""
    return {
        "kind": file.kind,
        "path": str(file.path.relative_to(results_root)),
        "sop_class_uid": file.sop_class_uid,
        "sop_instance_uid": file.sop_instance_uid,
        "series_instance_uid": file.series_instance_uid,
        "size": file.size,
        "sha256": file.sha256,
        "verified": file.verified,
        "problem": file.problem,
    }
