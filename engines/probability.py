"""Probabilities of classes: from what a network gives to a number and a statement about the patient."""

from __future__ import annotations

import numpy as np
import scipy.special
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.findings import NO_UNIT, PROBABILITY, Finding, Measurement
from engines.manifest_outputs import Class, Platt

#: How far a probability may be outside 0 to 1 for rounding.
_ROUNDING = 1e-4

#: As near to 0 and 1 as a probability is taken to be where its odds are needed.
_SMALLEST = 1e-12


def activated(values: NDArray[np.float64], activation: str, *, name: str) -> NDArray[np.float64]:
    """Probabilities of (..., classes) as output `name` gives them. Raises OutputError where it gives none."""
    if activation == "softmax":
        return np.asarray(scipy.special.softmax(values, axis=-1))
    if activation == "sigmoid":
        return np.asarray(scipy.special.expit(values))
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise OutputError(
            f'output "{name}" holds numbers from {low:.4g} to {high:.4g}, which are no probabilities; '
            "where the network's last layer makes none, the manifest must name the activation that does"
        )
    return np.clip(values, 0, 1)


def calibrated(shares: NDArray[np.float64], platt: Platt | None) -> NDArray[np.float64]:
    """What the probabilities are by the class's calibration (Platt 1999), of their logits."""
    if platt is None:
        return shares
    logits = scipy.special.logit(np.clip(shares, _SMALLEST, 1 - _SMALLEST))
    return np.asarray(scipy.special.expit(platt.slope * logits + platt.intercept))


def measured(entry: Class, share: float) -> Measurement:
    """The class's probability."""
    return Measurement(key=entry.key, name=PROBABILITY, value=share, unit=NO_UNIT, about=entry.code.code())


def stated(entry: Class, measurement: Measurement, *, boxes: int | None = None) -> Finding | None:
    """What follows for the class, also where it is absent; None where it has no threshold.

    `boxes` is how many a detector found of it.
    """
    if entry.threshold is None:
        return None
    said = f"probability {measurement.value:.4g} (threshold {entry.threshold:g})"
    if boxes is not None:
        said = f"{boxes} found, highest {said}" if boxes else f"none found, highest {said}"
    return Finding(
        key=entry.key,
        code=entry.code.code(),
        present=measurement.value >= entry.threshold,
        urgency=entry.urgency,
        evidence=(entry.key,),
        explanation=f"{entry.label} {said}" if boxes is None else f"{entry.label}: {said}",
        deciding=(measurement,),
        at_least=entry.threshold,
    )
