"""A model of two series, T1 and T2, and studies for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper
from pydicom.dataset import Dataset

from tests.engines import build
from tests.support import phantoms
from tests.worker import journey as journeys

FIRST, SECOND, THIRD = (f"{journeys.STUDY}.{number}" for number in (1, 2, 3))
FRAME = "1.2.826.0.1.3680043.8.498.71.9"
#: Of the second series: half as many slices, larger pixels, and a larger box around that of the first.
COARSE = phantoms.Phantom(shape=(5, 22, 28), spacing=(4.0, 1.3, 1.2), origin=(-31.5, -21.0, 98.5))


def write_model(folder: Path, name: str = "pair", **more: Any) -> Path:
    """A package that marks what is above 0 HU in the mean of a series "t1*" and another "t2*"."""
    weights = 50 * np.array([[0, 0], [0.5, 0.5]], np.float32).reshape(2, 2, 1, 1, 1)
    tensors = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array([0, -25], np.float32), "b"),
    ]
    network = build.serialised(
        [build.helper.make_node("Conv", ["image", "w", "b"], ["logits"])], tensors, classes=2, channels=2
    )
    changes: dict[str, Any] = {
        "name": name,
        "inputs": [entry("t1"), entry("t2")],
        "outputs": [{"name": "logits", "labels": [build.label(1, "body")]}],
        "measurements": [build.measurement("volume", "volume", of=["body"])],
    }
    return build.write(folder, network, **changes | more)


def entry(role: str, **changes: Any) -> dict[str, Any]:
    """An input that takes a series whose description begins with its role."""
    return build.entry(role=role, series={"Modality": "MR", "SeriesDescription": f"{role}*"}) | changes


def series(
    uid: str, description: str, *, like: phantoms.Phantom | None = None, **changes: Any
) -> list[Dataset]:
    """One MR series of the study, in the Frame of Reference of all."""
    phantom = like or phantoms.Phantom(shape=(6, 32, 40))
    named = replace(phantom, series_description=description, modality="MR")
    made = journeys.datasets(named, shape=named.shape, series_uid=uid, **changes)
    for ds in made:
        ds.FrameOfReferenceUID = FRAME
    return made


def study() -> list[Dataset]:
    """T1, and a coarser T2 of the same patient."""
    return [*series(FIRST, "t1 tse"), *series(SECOND, "t2 flair", like=COARSE)]
