"""What a chest model answers: measurements, findings, objects and pictures of a made-up thorax."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from db.models import Job
from dicom_node.results import report as reports
from engines.findings import Code, Findings, ModelIdentity, Segment, Urgency
from tests.db import rows
from tests.dicom_node.test_results_words import EARLIER, MODEL
from tests.engines import build
from tests.support import results as cases
from worker import pictures

LABELS = [
    build.label(1, "left_lung", label="Left lung", colour=[80, 170, 255]),
    build.label(2, "right_lung", label="Right lung", colour=[255, 170, 60]),
    build.label(3, "body", label="Body", colour=[120, 200, 120]),
]


def found() -> dict[str, list[dict[str, Any]]]:
    def coded(value: str, meaning: str) -> dict[str, Any]:
        return {"code_value": value, "code_scheme": "SCT", "code_meaning": meaning}

    def measured(key: str, number: int | None, value: float, unit: str, meaning: str) -> dict[str, Any]:
        where = LABELS[number - 1]["label"] if number else ""
        own = {"key": key, "segment_number": number, "segment_label": where, "value": value, "unit": unit}
        return own | coded("118565006", meaning)

    return {
        "segments": [
            {"number": n + 1, "label": label["label"], "voxels": 1_402_331 // (n + 1)}
            | coded("39607008", "Lung")
            for n, label in enumerate(LABELS)
        ],
        "measurements": [
            measured("volume", 1, 2412.18, "mL", "Volume"),
            measured("volume", 2, 2790.4, "mL", "Volume"),
            measured("density", 1, -841.27, "[hnsf'U]", "Mean attenuation"),
            measured("density", 2, -836.9, "[hnsf'U]", "Mean attenuation"),
            measured("laa950", None, 12.34, "%", "Low attenuation area below -950 HU"),
        ],
        "findings": [
            {"key": "emphysema", "present": True, "urgency": "routine"}
            | coded("87433001", "Pulmonary emphysema")
            | {"explanation": "LAA-950 12.3 % is above 10 %"},
            {"key": "small-lung", "present": False, "urgency": "routine"}
            | coded("46621007", "Atelectasis")
            | {"explanation": "lung volume 5202 mL is not below 1500 mL"},
        ],
    }


def report(language: str = "en") -> dict[str, Any]:
    """A report in words, as a job keeps it: urgent, and with an earlier study."""
    source = cases.series(cases.LIES["axial"])
    deciding = replace(cases.MEASUREMENTS[-1], value=12.34)
    urgent = replace(
        cases.FINDINGS[0], present=True, urgency=Urgency.URGENT, deciding=(deciding,), above=10.0
    )
    context = cases.context(source, model=MODEL, comparison=EARLIER, language=language)
    found = cases.findings(source, findings=(replace(urgent, key="b", present=False), urgent))
    return asdict(reports.worded(context, found))


def result_object(job: Job, kind: str, number: int) -> dict[str, Any]:
    return rows.new_object(
        job.identity,
        number,
        kind=kind,
        path=f"{job.identity}/{kind}.dcm",
        sop_class_uid=f"1.2.840.10008.5.1.4.1.1.{number // 10}.{number % 10}",
        size=812_344 if kind == "seg" else 18_211,
    )


def draw(folder: Path) -> None:
    """Overlay pictures of an ellipse with two lungs."""
    z, y, x = np.mgrid[-1:1:20j, -1:1:72j, -1:1:96j]
    mask = np.where(x**2 / 0.8 + y**2 / 0.5 < 1, 3, 0)
    for number, centre in ((1, 0.42), (2, -0.42)):
        mask[(x - centre) ** 2 / 0.08 + y**2 / 0.2 + z**2 < 0.9] = number
    array = np.choose(mask, (-1000, -860, -820, 40)).astype(np.int16)
    volume = build.volume(array, spacing=(8.0, 3.4, 3.6))
    code = Code(value="39607008", scheme="SCT", meaning="Lung")
    findings = Findings(
        model=ModelIdentity(name="chest-ct", version="0.4.1", manufacturer="tests", digest="0" * 64),
        geometry=volume.geometry,
        mask=mask.astype(np.uint8),
        segments=tuple(
            Segment(number=n + 1, label=label["label"], category=code, type=code, colour=label["colour"])
            for n, label in enumerate(LABELS)
        ),
    )
    pictures.draw(volume, findings, folder)
