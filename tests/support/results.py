"""Findings and contexts for tests of result objects, on the asymmetric phantoms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import kinds
from dicom_node.results.context import ResultContext
from dicom_node.series import SeriesImages
from engines.findings import PROBABILITY, Code, Finding, Findings, Map, Measurement, ModelIdentity, Segment
from engines.volume import Geometry, Volume
from tests.support import phantoms

#: The kinds of which there is one object each, in the order in which they are made.
KINDS = tuple(name for name, kind in kinds.MADE.items() if isinstance(kind, kinds.Kind))

#: Direction cosines that are oblique to every axis and still short decimals.
DOUBLE_OBLIQUE = (0.36, 0.48, -0.8, -0.8, 0.6, 0.0)

#: Every way a series can lie: name -> phantom.
LIES = {
    "axial": phantoms.Phantom(),
    "feet first": phantoms.Phantom(slice_sign=-1),
    "prone": phantoms.Phantom(orientation=phantoms.FEET_FIRST_PRONE),
    "coronal": phantoms.Phantom(orientation=phantoms.CORONAL),
    "sagittal": phantoms.Phantom(orientation=phantoms.SAGITTAL, slice_sign=-1),
    "double oblique": phantoms.Phantom(orientation=DOUBLE_OBLIQUE),
    "not bytewise": phantoms.Phantom(shape=(9, 29, 37)),
}

MODEL = ModelIdentity(
    name="chest-ct", version="1.0.0", manufacturer="secondread project", digest="0123456789abcdef" * 4
)
ENGINE = "openvino 2026.4 CPU float32"

STRUCTURE = Code(value="123037004", scheme="SCT", meaning="Anatomical Structure")
VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
DENSITY = Code(value="112031", scheme="DCM", meaning="Attenuation Coefficient")
LOW = Code(value="99901", scheme="99TEST", meaning="Low attenuation area")
MEAN = Code(value="373098007", scheme="SCT", meaning="Mean")
MILLILITRE = Code(value="mL", scheme="UCUM", meaning="milliliter")
HOUNSFIELD = Code(value="[hnsf'U]", scheme="UCUM", meaning="Hounsfield unit")
LONGEST = Code(value="103339001", scheme="SCT", meaning="Long axis length")
MILLIMETRE = Code(value="mm", scheme="UCUM", meaning="millimeter")
PERCENT = Code(value="%", scheme="UCUM", meaning="percent")
EMPHYSEMA = Code(value="87433001", scheme="SCT", meaning="Pulmonary emphysema")

SEGMENTS = (
    Segment(
        number=1,
        label="Left lung",
        category=STRUCTURE,
        type=Code(value="44029006", scheme="SCT", meaning="Left lung"),
        colour=(0, 150, 255),
    ),
    Segment(
        number=2,
        label="Right lung",
        category=STRUCTURE,
        type=Code(value="3341006", scheme="SCT", meaning="Right lung"),
        colour=(255, 80, 80),
    ),
    Segment(
        number=3,
        label="Nodule",
        category=Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"),
        type=Code(value="27925004", scheme="SCT", meaning="Nodule"),
        anatomic_region=Code(value="39607008", scheme="SCT", meaning="Lung"),
        colour=(255, 220, 0),
    ),
)

MEASUREMENTS = (
    Measurement(key="volume", name=VOLUME, value=2345.678901234, unit=MILLILITRE, segment_number=1),
    Measurement(
        key="density", name=DENSITY, value=-812.25, unit=HOUNSFIELD, derivation=MEAN, segment_number=1
    ),
    Measurement(key="low", name=LOW, value=14.5, unit=PERCENT, segment_number=1),
    Measurement(key="volume", name=VOLUME, value=2789.1, unit=MILLILITRE, segment_number=2),
    Measurement(key="low", name=LOW, value=3.25, unit=PERCENT, segment_number=2),
    Measurement(key="volume", name=VOLUME, value=5134.778901234, unit=MILLILITRE),
    Measurement(key="low", name=LOW, value=8.4, unit=PERCENT),
)

FINDINGS = (
    Finding(
        key="emphysema",
        code=EMPHYSEMA,
        present=False,
        evidence=("low",),
        explanation="LAA-950 8.4 % (threshold 10 %)",
    ),
)


def mask(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Three blocks of unlike size, unlike along every axis, as labels 1 to 3."""
    values = phantoms.asymmetric(shape)
    labels = np.zeros(shape, np.uint8)
    for label, value in ((1, 400), (2, 700), (3, 1000)):
        labels[values == value] = label
    return labels


def probability(shape: tuple[int, int, int], segment_number: int = 1) -> Map:
    """How probable a segment is: near 1 in the middle of it, and unlike along every axis outside."""
    near = np.where(mask(shape) == segment_number, 0.75, 0.0)
    ramp = np.indices(shape).astype(np.float64).T @ (1.0, 0.1, 0.01) / (sum(shape) + 1)
    array = (near + 0.25 * ramp.T) * (np.arange(shape[0]) < max(shape[0] - 2, 1))[:, None, None]
    return Map(
        key="probable",
        name=PROBABILITY,
        unit=Code(value="1", scheme="UCUM", meaning="no units"),
        segment_number=segment_number,
        array=array.astype(np.float32),
    )


def series(phantom: phantoms.Phantom, datasets: Sequence[Dataset] | None = None) -> SeriesImages:
    """The phantom as the series reader would give it."""
    headers = list(datasets) if datasets is not None else phantoms.datasets(phantom)
    geometry = Geometry(
        shape=phantom.shape,
        affine=phantoms.affine(phantom),
        frame_of_reference_uid=headers[0].get("FrameOfReferenceUID"),
    )
    array = phantoms.asymmetric(phantom.shape)
    return SeriesImages(
        volume=Volume(array=array, geometry=geometry, unit="[hnsf'U]"), datasets=tuple(headers)
    )


def context(source: SeriesImages, **changes: Any) -> ResultContext:
    """A context with plain values; `changes` replace them."""
    values: dict[str, Any] = {
        "source": source,
        "job_identity": "job-1",
        "model": MODEL,
        "engine": ENGINE,
        "created_at": datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=UTC),
        "secondread_version": "0.1.0",
        "zone": UTC,
    }
    return ResultContext(**{**values, **changes})


def findings(source: SeriesImages, **changes: Any) -> Findings:
    """Three segments, seven measurements and one negative finding; `changes` replace parts."""
    values: dict[str, Any] = {
        "model": MODEL,
        "geometry": source.volume.geometry,
        "mask": mask(source.volume.geometry.shape),
        "segments": SEGMENTS,
        "measurements": MEASUREMENTS,
        "findings": FINDINGS,
        "maps": (probability(source.volume.geometry.shape),),
        "engine": ENGINE,
    }
    return Findings(**{**values, **changes})
