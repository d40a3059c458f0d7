"""What a model may ask its values to be, and the units that go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import package, predict
from engines.errors import PackageError, VolumeError
from engines.testing import threshold_runner
from engines.volume import SUV
from tests.engines import build

UNIT = {"value": SUV, "scheme": "UCUM", "meaning": "Standardized Uptake Value body weight"}
NO_UNIT = {"value": "1", "scheme": "UCUM", "meaning": "no units"}


def _package(folder: Path, values: str, unit: dict[str, str], **entry: Any) -> package.ModelPackage:
    intensity = {"kind": "window", "low": 0, "high": 20}
    inputs = [build.entry(values=values, intensity=intensity, **entry)]
    measurements = [
        build.measurement(kind, kind, unit=unit) for kind in ("mean", "maximum", "std", "minimum")
    ]
    tiling = {"patch": [1, 16, 16]} if entry.get("planar") else {"patch": [8, 16, 16]}
    return package.open_package(
        build.write(
            folder,
            build.thresholds((0.4,)),
            labels=1,
            inputs=inputs,
            measurements=measurements,
            tiling=tiling,
        )
    )


def test_suv_is_measured_in_its_unit(tmp_path: Path) -> None:
    opened = _package(tmp_path, "SUVbw", UNIT)
    array = np.zeros((8, 16, 16), np.float32)
    array[2:5, 3:6, 4:7] = 10
    array[3, 4, 5] = 18.5
    volume = build.volume(array, unit=SUV)
    with threshold_runner(opened, (0.4,)) as runner:
        found = predict.predict(opened, runner, volume)
    values = {one.key: (one.value, one.unit.value) for one in found.measurements}
    assert values["maximum"] == (18.5, "g/ml{SUVbw}")
    assert values["mean"] == (pytest.approx((26 * 10 + 18.5) / 27), "g/ml{SUVbw}")


def test_values_that_are_no_suv_are_refused(tmp_path: Path) -> None:
    opened = _package(tmp_path, "SUVbw", UNIT)
    array = np.arange(8 * 16 * 16).reshape(8, 16, 16)
    with threshold_runner(opened, (0.4,)) as runner, pytest.raises(VolumeError, match=r"values are in 1$"):
        predict.predict(opened, runner, build.volume(array, unit="1"))


@pytest.mark.parametrize(
    ("values", "unit", "entry", "complaint"),
    [
        (
            "SUVbw",
            NO_UNIT,
            {},
            r'measurements.mean.unit.value: mean cannot be given in "1": use g/ml\{SUVbw\}',
        ),
        ("displayed", UNIT, {"planar": True}, r"cannot be given in \"g/ml\{SUVbw\}\": use 1 \(UCUM\)"),
        ("displayed", NO_UNIT, {}, "values: displayed is not for planar: false"),
        ("SUVbw", UNIT, {"planar": True}, "values: SUVbw is not for planar: true"),
        ("SUVlbm", UNIT, {}, r"inputs\[0\].values: Input should be 'source', 'displayed' or 'SUVbw'"),
    ],
)
def test_what_does_not_go_together_is_named(
    tmp_path: Path, values: str, unit: dict[str, str], entry: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PackageError, match=complaint):
        _package(tmp_path, values, unit, **entry)
