"""Findings of models that do not segment, on the phantoms: boxes, classes, values, a derived image."""

from __future__ import annotations

from typing import Any

import numpy as np

from dicom_node.series import SeriesImages
from engines import labels
from engines.findings import PROBABILITY, Box, Code, Finding, Findings, Measurement, Urgency
from engines.volume import Volume
from tests.support import results as cases

NODULE = Code(value="27925004", scheme="SCT", meaning="Nodule")
MASS = Code(value="4147007", scheme="SCT", meaning="Mass")
PNEUMOTHORAX = Code(value="36118008", scheme="SCT", meaning="Pneumothorax")
EFFUSION = Code(value="60046008", scheme="SCT", meaning="Pleural effusion")
AGE = Code(value="246456000", scheme="SCT", meaning="Estimated age")
ONE = Code(value="1", scheme="UCUM", meaning="no units")
YEARS = Code(value="a", scheme="UCUM", meaning="year")


def box(**changes: Any) -> Box:
    """A nodule on the slices 3 to 6, unlike along every axis; `changes` replace parts."""
    values: dict[str, Any] = {
        "key": "nodule",
        "label": "Nodule",
        "code": NODULE,
        "score": 0.93,
        "low": (2.25, 10.5, 20.0),
        "high": (5.25, 18.5, 34.0),
        "colour": (255, 220, 0),
    }
    return Box(**{**values, **changes})


BOXES = (
    box(),
    box(score=0.71, low=(7.5, 20.0, 30.0), high=(8.5, 24.0, 36.0)),
    # It reaches beyond the image on two sides.
    box(
        key="mass",
        label="Mass",
        code=MASS,
        score=0.5,
        low=(-1.5, -3.0, 4.0),
        high=(1.5, 6.0, 9.0),
        colour=(0, 150, 255),
    ),
)


def _probability(key: str, about: Code, value: float) -> Measurement:
    return Measurement(key=key, name=PROBABILITY, value=value, unit=ONE, about=about)


CLASSES = (
    _probability("pneumothorax", PNEUMOTHORAX, 0.8312345678),
    _probability("effusion", EFFUSION, 0.125),
    # No threshold: only the probability is reported.
    _probability("mass", MASS, 0.5),
)
STATEMENTS = (
    Finding(
        key="pneumothorax",
        code=PNEUMOTHORAX,
        present=True,
        urgency=Urgency.URGENT,
        evidence=("pneumothorax",),
        explanation="probability 0.83 (threshold 0.5)",
        deciding=(CLASSES[0],),
        at_least=0.5,
    ),
    Finding(
        key="effusion",
        code=EFFUSION,
        present=False,
        evidence=("effusion",),
        explanation="probability 0.125 (threshold 0.5)",
        deciding=(CLASSES[1],),
        at_least=0.5,
    ),
)
VALUES = (Measurement(key="age", name=AGE, value=61.5, unit=YEARS),)


def findings(source: SeriesImages, **changes: Any) -> Findings:
    """An answer without segments; `changes` say what is in it."""
    values: dict[str, Any] = {
        "model": cases.MODEL,
        "geometry": source.volume.geometry,
        "mask": labels.blank(source.volume.geometry.shape),
        "segments": (),
        "engine": cases.ENGINE,
    }
    return Findings(**{**values, **changes})


def derived(source: SeriesImages, *, unit: str | None = None, scale: float = 0.75) -> Volume:
    """The source's values softened, not whole numbers, on its grid: no two slices alike."""
    array = source.volume.array.astype(np.float32) * np.float32(scale)
    array += np.arange(len(array), dtype=np.float32)[:, None, None] / 3
    return Volume(
        array=array,
        geometry=source.volume.geometry,
        unit=unit or source.volume.unit,
        window=source.volume.window,
    )
