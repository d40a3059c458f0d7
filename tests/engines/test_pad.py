"""Padding lies around what the network sees, and its answer comes back without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import package, pad, predict, preprocess
from engines.errors import PackageError, VolumeError
from engines.manifest_inputs import Input
from engines.manifest_steps import Pad
from engines.testing import threshold_runner
from engines.volume import Volume
from tests.engines import build
from tests.engines.test_crop import ORIENTATIONS
from tests.support import phantoms

THRESHOLDS = (0.6, 0.8)
_lengths = st.tuples(*[st.integers(1, 40)] * 3)


def _pad(**changes: Any) -> Pad:
    return Pad.model_validate({"kind": "pad"} | changes)


@settings(max_examples=100, deadline=None)
@given(_lengths, _lengths, st.booleans())
def test_it_is_undone_slab_by_slab(
    shape: tuple[int, int, int], numbers: tuple[int, int, int], least: bool
) -> None:
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    geometry = build.volume(array).geometry
    step = _pad(**{"at_least" if least else "multiple_of": numbers})
    larger, grid, inner = pad.padded(array, geometry, step)
    for length, own, number in zip(larger.shape, shape, numbers, strict=True):
        assert (
            length == max(own, number) if least else (length % number == 0 and own <= length < own + number)
        )
    assert grid.shape == larger.shape
    assert grid.within(inner).agrees_with(geometry)
    # In slabs of three slices, as a sliding window gives them.
    pieces = [
        pad.trimmed(start, larger[None, start : start + 3], inner) for start in range(0, len(larger), 3)
    ]
    kept = [(start, piece) for start, piece in pieces if piece.shape[1]]
    assert [start for start, _ in kept] == np.cumsum([0, *(piece.shape[1] for _, piece in kept)])[
        :-1
    ].tolist()
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in kept], axis=1)[0], array)


def test_the_value_is_the_networks() -> None:
    prepared = preprocess.prepare(
        build.volume(phantoms.asymmetric((12, 32, 40))),
        Input.model_validate(build.entry(steps=[{"kind": "pad", "at_least": [13, 32, 43], "value": -7}])),
    )
    assert prepared.array.shape == prepared.geometry.shape == (13, 32, 43)
    assert prepared.inner == (slice(0, 12), slice(0, 32), slice(1, 41))
    assert (prepared.array[12] == -7).all() and (prepared.array[:, :, [0, 41, 42]] == -7).all()
    assert prepared.array[prepared.inner].min() >= 0


@pytest.mark.parametrize("orientation", ORIENTATIONS[::3])
@pytest.mark.parametrize("spacing", [None, [3.1, 1.7, 1.3]])
def test_padding_changes_no_label(tmp_path: Path, orientation: str, spacing: list[float] | None) -> None:
    turned = build.volume(phantoms.asymmetric((24, 48, 40))).reoriented(orientation)
    volume = Volume(array=np.ascontiguousarray(turned.array), geometry=turned.geometry, unit="[hnsf'U]")

    def mask(name: str, *steps: dict[str, Any]) -> NDArray[Any]:
        inputs = [build.entry(steps=list(steps), spacing_mm=spacing)]
        opened = package.open_package(
            build.write(tmp_path / name, build.thresholds(THRESHOLDS), inputs=inputs)
        )
        with threshold_runner(opened, THRESHOLDS) as runner:
            return predict.predict(opened, runner, volume).mask

    crop = {"kind": "crop", "above": 300, "margin": 2}
    for name, kept in (("whole", []), ("cropped", [crop])):
        plain = mask(f"{name}-plain", *kept)
        assert set(np.unique(plain)) == {0, 1, 2}
        padded = mask(f"{name}-padded", *kept, {"kind": "pad", "multiple_of": [11, 9, 32], "value": 1})
        np.testing.assert_array_equal(padded, plain)


def test_padding_beyond_all_memory_is_refused() -> None:
    array = np.zeros((2, 2, 2), np.float32)
    with pytest.raises(VolumeError, match="more than the engine holds"):
        pad.padded(array, build.volume(array).geometry, _pad(at_least=[4000, 4000, 4000]))


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ([{"steps": [{"kind": "pad", "at_least": [1, 1, 1]}, {"kind": "crop"}]}], "pad comes last"),
        (
            [{"role": "a"}, {"role": "b", "steps": [{"kind": "crop"}]}],
            "crop and pad of the first are those of all; remove them from the others",
        ),
    ],
)
def test_a_wrong_place_is_named(tmp_path: Path, inputs: list[dict[str, Any]], complaint: str) -> None:
    written = build.write(tmp_path, b"", inputs=[build.entry(**one) for one in inputs])
    with pytest.raises(PackageError, match=complaint):
        package.open_package(written)
