"""Numbers about the labels of a mask, and the statements that the manifest's rules make of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import diameter, printing
from engines.errors import VolumeError
from engines.findings import Finding, Measurement
from engines.manifest import Manifest
from engines.manifest_findings import FindingRule, MeasurementEntry
from engines.slabs import SLAB, spread
from engines.volume import Geometry, Volume

logger = logging.getLogger(__name__)

#: The units that a volume can be reported in (UCUM), and how much of each a cubic millimetre is.
PER_MM3: Mapping[str, float] = {"mm3": 1.0, "uL": 1.0, "mL": 1e-3, "cm3": 1e-3, "dL": 1e-5, "L": 1e-6}

#: The same of an area and a square millimetre, and of a length and a millimetre.
PER_MM2: Mapping[str, float] = {"mm2": 1.0, "cm2": 1e-2}
PER_MM: Mapping[str, float] = {"mm": 1.0, "cm": 0.1}

#: The kinds that are in the unit of the volume's values.
OF_VALUES = frozenset({"mean", "std", "minimum", "maximum"})


@dataclass(kw_only=True)
class Statistics:
    """What is known of the values under a label; two can be merged (Chan et al. 1979)."""

    count: int = 0
    mean: float = 0.0
    #: Sum of squared differences from the mean.
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    #: Voxels below, and above, each threshold that is asked for.
    below: dict[float, int] = field(default_factory=dict)
    above: dict[float, int] = field(default_factory=dict)

    def merge(self, other: Statistics) -> None:
        """Take in another set of voxels."""
        if other.count == 0:
            return
        total = self.count + other.count
        difference = other.mean - self.mean
        self.squares += other.squares + difference**2 * self.count * other.count / total
        self.mean += difference * other.count / total
        self.count = total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        for threshold, count in other.below.items():
            self.below[threshold] = self.below.get(threshold, 0) + count
        for threshold, count in other.above.items():
            self.above[threshold] = self.above.get(threshold, 0) + count


def check_units(manifest: Manifest, volume: Volume) -> None:
    """Raise VolumeError where a measurement is in another unit than the volume's values."""
    for entry in manifest.measurements:
        if entry.kind in OF_VALUES and entry.unit.value != volume.unit:
            raise VolumeError(
                f"the model reports {entry.key} in {entry.unit.value}, "
                f"but the volume's values are in {volume.unit}"
            )


def measure(
    manifest: Manifest, volume: Volume, mask: NDArray[Any], *, threads: int = 1
) -> tuple[Measurement, ...]:
    """Every measurement of the manifest, in its order: each label of `of`, then the union if asked.

    `mask` is a label map on the volume's grid; the values are the source's own, not the network's.
    A statistic of a label that has no voxel does not exist and is left out; its volume is 0. A volume, an
    area or a length of what has no known size is left out too: `impossible` says so.
    """
    numbers = {label.key: label.index for label in manifest.labels}
    wanted = _wanted(manifest.measurements, numbers)
    statistics = gather(volume.array, mask, wanted, threads=threads)
    made: list[Measurement] = []
    for entry in manifest.measurements:
        own = [numbers[key] for key in entry.of]
        if entry.kind == "longest_diameter":
            made += _diameters(entry, volume.geometry, mask, own)
        else:
            made += _sums(entry, {number: statistics[number] for number in own}, volume.geometry)
    return tuple(made)


def _sums(
    entry: MeasurementEntry, own: Mapping[int, Statistics], geometry: Geometry
) -> Iterator[Measurement]:
    """What statistics give, of each label and of the union."""
    parts: list[tuple[int | None, Statistics]] = [*own.items()]
    if entry.combined:
        parts.append((None, _union(own.values())))
    for number, part in parts:
        value = _value(entry, part, geometry)
        if value is not None:
            yield _measurement(entry, value, number)


def _diameters(
    entry: MeasurementEntry, geometry: Geometry, mask: NDArray[Any], own: Sequence[int]
) -> Iterator[Measurement]:
    """The longest diameter of each label, and of the union, with the line that it is the length of."""
    if geometry.pixel_area_mm2 is None:
        return
    for number in [*own, None] if entry.combined else own:
        region = np.isin(mask, own) if number is None else mask == number
        found = diameter.longest(region, geometry.spacing)
        if found is not None:
            value = found.mm * PER_MM[entry.unit.value]
            yield replace(_measurement(entry, value, number), ends=found.ends)


def _wanted(entries: Sequence[MeasurementEntry], numbers: Mapping[str, int]) -> dict[int, set[float]]:
    """The labels that are measured at all, each with the thresholds that are asked of it."""
    wanted: dict[int, set[float]] = {}
    for entry in entries:
        for key in entry.of:
            thresholds = wanted.setdefault(numbers[key], set())
            if entry.threshold is not None:
                thresholds.add(entry.threshold)
    return wanted


def gather(
    array: NDArray[Any], mask: NDArray[Any], wanted: Mapping[int, set[float]], *, threads: int = 1
) -> dict[int, Statistics]:
    """Statistics of the values of `array` under each wanted label, in one pass of a few slices at a time."""
    starts = range(0, len(array), SLAB)
    parts: dict[int, dict[int, Statistics]] = {}

    def look(start: int) -> None:
        values, labels = array[start : start + SLAB], mask[start : start + SLAB]
        parts[start] = {n: _statistics(values[labels == n], thresholds) for n, thresholds in wanted.items()}

    spread(look, starts, threads=threads)
    # Merged in slice order, whatever thread was first: the same input gives the same digits.
    return {number: _union(parts[start][number] for start in starts) for number in wanted}


def _statistics(values: NDArray[Any], thresholds: Iterable[float]) -> Statistics:
    """Statistics of a flat array of values."""
    if values.size == 0:
        return Statistics()
    mean = float(values.mean(dtype=np.float64))
    centred = values.astype(np.float64)
    centred -= mean
    return Statistics(
        count=values.size,
        mean=mean,
        squares=float(centred @ centred),
        minimum=float(values.min()),
        maximum=float(values.max()),
        below={threshold: int(np.count_nonzero(values < threshold)) for threshold in thresholds},
        above={threshold: int(np.count_nonzero(values > threshold)) for threshold in thresholds},
    )


def _union(parts: Iterable[Statistics]) -> Statistics:
    """Statistics of all parts together; labels never share a voxel, so nothing counts twice."""
    union = Statistics()
    for part in parts:
        union.merge(part)
    return union


def impossible(manifest: Manifest, geometry: Geometry) -> tuple[str, ...]:
    """What the manifest wants measured and an image of this geometry does not tell, for people."""
    reasons: dict[str, str] = {}
    if geometry.voxel_volume_mm3 is None:
        reasons["volume"] = "a single image has no known thickness"
    if geometry.pixel_area_mm2 is None:
        reasons |= dict.fromkeys(
            ("area", "longest_diameter"), "the image does not say how large its pixels are"
        )
    return tuple(
        f"{entry.name.meaning} ({entry.unit.meaning}) cannot be measured: {reasons[entry.kind]}"
        for entry in manifest.measurements
        if reasons.get(entry.kind)
    )


def _size(entry: MeasurementEntry, count: int, geometry: Geometry) -> float | None:
    """Volume or area of so many voxels; None where their size is unknown."""
    voxel = geometry.voxel_volume_mm3 if entry.kind == "volume" else geometry.pixel_area_mm2
    units = PER_MM3 if entry.kind == "volume" else PER_MM2
    return None if voxel is None else count * voxel * units[entry.unit.value]


def _value(entry: MeasurementEntry, part: Statistics, geometry: Geometry) -> float | None:
    """The measurement's value in its unit; None where there is nothing to measure."""
    if entry.kind == "volume" or entry.kind == "area":
        return _size(entry, part.count, geometry)
    if part.count == 0:
        return None
    match entry.kind:
        case "mean":
            return part.mean
        case "std":
            return math.sqrt(part.squares / part.count)
        case "minimum":
            return part.minimum
        case "maximum":
            return part.maximum
        case "percent_below":
            return 100 * part.below[entry.threshold or 0.0] / part.count
        case "percent_above":
            return 100 * part.above[entry.threshold or 0.0] / part.count
        case "longest_diameter":
            raise ValueError("a diameter is not made of statistics")


def _measurement(entry: MeasurementEntry, value: float, number: int | None) -> Measurement:
    """The value with its codes."""
    return Measurement(
        key=entry.key,
        name=entry.name.code(),
        value=value,
        unit=entry.unit.code(),
        derivation=entry.derivation.code() if entry.derivation else None,
        segment_number=number,
    )


def conclude(manifest: Manifest, measurements: Sequence[Measurement]) -> tuple[Finding, ...]:
    """What each rule of the manifest says about `measurements`: a negative finding is a finding too.

    A rule whose measurement does not exist (its label has no voxel) makes no statement: it must not
    read as a negative one.
    """
    made = []
    for rule in manifest.findings:
        own = [measurement for measurement in measurements if measurement.key == rule.measurement]
        combined = [measurement for measurement in own if measurement.segment_number is None]
        if own:
            made.append(_finding(rule, combined or own, own))
        else:
            logger.warning("%s says nothing: %s could not be measured", rule.key, rule.measurement)
    return tuple(made)


def _finding(rule: FindingRule, deciding: Sequence[Measurement], measured: Sequence[Measurement]) -> Finding:
    """The rule's statement, decided by any of `deciding`."""
    met = [measurement for measurement in deciding if _meets(rule, measurement.value)]
    # The combined value has no segment of its own: it speaks of all that it was made of.
    about = met or deciding
    if any(measurement.segment_number is None for measurement in about):
        about = measured
    numbers = dict.fromkeys(m.segment_number for m in about if m.segment_number is not None)
    return Finding(
        key=rule.key,
        code=rule.code.code(),
        present=bool(met),
        urgency=rule.urgency,
        segment_numbers=tuple(numbers),
        evidence=(rule.measurement,),
        explanation="; ".join(_explained(rule, measurement) for measurement in met or deciding),
        deciding=tuple(met or deciding),
        above=rule.above,
        below=rule.below,
    )


def _meets(rule: FindingRule, value: float) -> bool:
    """Whether the value is beyond the rule's bound, or between its two."""
    return (rule.above is None or value > rule.above) and (rule.below is None or value < rule.below)


def _explained(rule: FindingRule, measurement: Measurement) -> str:
    """In words, e.g. "Low attenuation area 12.3 % (threshold above 10 %)"."""
    unit = printing.unit(measurement.unit.value)
    bounds = [f"above {rule.above:g}"] if rule.above is not None else []
    bounds += [f"below {rule.below:g}"] if rule.below is not None else []
    value = f"{measurement.value:.4g} {unit}".strip()
    threshold = f"{' and '.join(bounds)} {unit}".strip()
    return f"{measurement.name.meaning} {value} (threshold {threshold})"
