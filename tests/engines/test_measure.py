"""Measurements are those of the source's values under the mask, in the unit that the manifest asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines import measure
from engines.errors import VolumeError
from engines.findings import Finding, Measurement
from tests.engines import build

RNG = np.random.default_rng(11)
SPACING = (2.0, 0.5, 0.25)
ARRAY = RNG.integers(-1024, 400, size=(20, 30, 40)).astype(np.int16)
MASK = RNG.integers(0, 4, size=ARRAY.shape).astype(np.uint8) % 3


def _measured(*entries: dict[str, Any], array: Any = ARRAY, mask: Any = MASK) -> tuple[Measurement, ...]:
    manifest = build.validated(measurements=list(entries))
    return measure.measure(manifest, build.volume(array, spacing=SPACING), mask, threads=2)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_each_kind_is_what_its_name_says(dtype: Any) -> None:
    under = ARRAY[MASK == 1].astype(np.float64)
    expected = {
        "volume": under.size * 0.25 / 1000,
        "mean": under.mean(),
        "std": under.std(),
        "minimum": under.min(),
        "maximum": under.max(),
        "percent_below": 100 * (under < -900).mean(),
        "percent_above": 100 * (under > -900).mean(),
    }
    entries = [
        build.measurement(kind, kind, **({"threshold": -900} if kind.startswith("percent") else {}))
        for kind in expected
    ]
    measured = _measured(*entries, array=ARRAY.astype(dtype))
    assert {one.key: one.value for one in measured} == pytest.approx(expected)
    assert all(one.segment_number == 1 for one in measured)


@pytest.mark.parametrize(
    ("unit", "factor"), [("mm3", 1), ("uL", 1), ("mL", 1e-3), ("cm3", 1e-3), ("dL", 1e-5), ("L", 1e-6)]
)
def test_a_volume_comes_in_the_unit_that_is_asked_for(unit: str, factor: float) -> None:
    (one,) = _measured(build.measurement("v", "volume", unit=build.code(unit, unit, "UCUM")))
    assert one.value == pytest.approx((MASK == 1).sum() * 0.25 * factor)
    assert one.unit.value == unit


def test_the_union_is_measured_without_a_segment() -> None:
    both = ["label1", "label2"]
    measured = _measured(
        build.measurement("v", "volume", of=both, combined=True),
        build.measurement("s", "std", of=both, combined=True),
        build.measurement("p", "percent_below", of=["label2"], threshold=-900),
    )
    assert [(one.key, one.segment_number) for one in measured] == [
        ("v", 1), ("v", 2), ("v", None), ("s", 1), ("s", 2), ("s", None), ("p", 2),
    ]  # fmt: skip
    assert measured[2].value == pytest.approx(measured[0].value + measured[1].value)
    assert measured[5].value == pytest.approx(ARRAY[MASK > 0].std())


def test_a_threshold_is_neither_above_nor_below_itself() -> None:
    array = np.full((2, 4, 4), -950, np.int16)
    array[0] = -951
    entries = [build.measurement(kind, kind, threshold=-950) for kind in ("percent_below", "percent_above")]
    below, above = _measured(*entries, array=array, mask=np.ones(array.shape, np.uint8))
    assert (below.value, above.value) == (50, 0)


def test_statistics_of_nothing_do_not_exist_but_its_volume_is_zero() -> None:
    measured = _measured(
        build.measurement("v", "volume"),
        build.measurement("m", "mean", combined=True),
        mask=np.zeros_like(MASK),
    )
    assert [(one.key, one.value) for one in measured] == [("v", 0.0)]


def test_large_values_do_not_cost_the_digits() -> None:
    array = (RNG.normal(size=ARRAY.shape) + 1e5).astype(np.float32)
    (one,) = _measured(build.measurement("s", "std"), array=array)
    assert one.value == pytest.approx(array[MASK == 1].astype(np.float64).std(), rel=1e-9)


def test_a_unit_that_the_volume_does_not_have_is_refused() -> None:
    manifest = build.validated(measurements=[build.measurement("m", "mean")])
    measure.check_units(manifest, build.volume(ARRAY))
    with pytest.raises(VolumeError, match=r"reports m in \[hnsf'U\], but the volume's values are in Bq/ml"):
        measure.check_units(manifest, build.volume(ARRAY, unit="Bq/ml"))


def _concluded(values: dict[int | None, float], **rule: Any) -> Finding:
    """What a rule says of a density with these values, by segment."""
    manifest = build.validated(
        measurements=[
            build.measurement("density", "mean", of=["label1", "label2"], name=build.code(meaning="Density"))
        ],
        findings=[{"key": "dense", "code": build.code("1", "Dense"), "measurement": "density"} | rule],
    )
    entry = manifest.measurements[0]
    measurements = [measure._measurement(entry, value, number) for number, value in values.items()]
    (finding,) = measure.conclude(manifest, measurements)
    return finding


def test_a_met_threshold_is_a_finding_with_its_evidence() -> None:
    finding = _concluded({1: 50.0, 2: 5.0}, above=10, urgency="urgent")
    assert finding.present
    assert finding.urgency == "urgent"
    assert finding.segment_numbers == (1,)
    assert finding.evidence == ("density",)
    assert finding.explanation == "Density 50 HU (threshold above 10 HU)"


def test_an_unmet_threshold_is_a_negative_finding() -> None:
    finding = _concluded({1: 9.0, 2: 10.0}, above=10)
    assert not finding.present
    assert finding.segment_numbers == (1, 2)
    assert (
        finding.explanation == "Density 9 HU (threshold above 10 HU); Density 10 HU (threshold above 10 HU)"
    )


def test_the_combined_value_decides_where_there_is_one() -> None:
    finding = _concluded({1: 50.0, 2: 1.0, None: 9.0}, above=10)
    assert not finding.present
    assert finding.segment_numbers == (1, 2)
    assert finding.explanation == "Density 9 HU (threshold above 10 HU)"


@pytest.mark.parametrize(
    ("value", "present"), [(9, False), (10, False), (15, True), (20, False), (21, False)]
)
def test_two_bounds_are_a_range(value: float, present: bool) -> None:
    finding = _concluded({1: value}, above=10, below=20)
    assert finding.present is present
    assert "threshold above 10 and below 20 HU" in finding.explanation


def test_what_could_not_be_measured_is_not_a_negative(caplog: pytest.LogCaptureFixture) -> None:
    manifest = build.validated(
        measurements=[build.measurement("m", "mean")],
        findings=[{"key": "dense", "code": build.code("1", "Dense"), "measurement": "m", "above": 1}],
    )
    assert measure.conclude(manifest, ()) == ()
    assert "dense says nothing: m could not be measured" in caplog.text
