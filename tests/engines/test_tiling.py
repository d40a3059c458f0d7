"""The sliding window covers everything once in sum, and its seams do not show."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import placement, tiling
from engines.errors import OutputError
from engines.manifest_tiling import Tiling
from engines.runner import Runner, TensorSpec

FLOAT = np.dtype(np.float32)


class _Function(Runner):
    """A runner that applies a function to stacks of patches."""

    def __init__(self, function: Any, *, batch: int | None = 1, classes: int = 2) -> None:
        self.function = function
        self.stacks: list[int] = []
        shape = (batch, 1, None, None, None)
        super().__init__(
            inputs=[TensorSpec(name="image", dtype=FLOAT, shape=shape)],
            outputs=[TensorSpec(name="logits", dtype=FLOAT, shape=(batch, classes, None, None, None))],
            description="function",
        )

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.stacks.append(len(feeds["image"]))
        return {"logits": self.function(feeds["image"])}

    def _close(self) -> None:
        pass


def _twice(stack: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([stack, 1 - stack], axis=1)


def _swept(runner: Runner, array: NDArray[Any], settings: Tiling, **more: Any) -> NDArray[np.float32]:
    """All slabs together, after a check that each begins where the last one ended."""
    slabs = list(
        tiling.sweep(runner, {"image": array[None]}, settings, output_name="logits", classes=2, **more)
    )
    expected = 0
    for slab in slabs:
        assert slab.start == expected
        expected += slab.logits.shape[1]
    runner.close()
    return np.concatenate([slab.logits for slab in slabs], axis=1)


def _array(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(20, 30, 40), (8, 16, 16), (9, 17, 40), (3, 5, 7), (3, 40, 16), (30, 10, 16)]
)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("weighting", ["gaussian", "uniform"])
@pytest.mark.parametrize("mirror_axes", [(), (0, 2)])
def test_a_network_that_changes_nothing_gives_the_image_back(
    shape: tuple[int, int, int], overlap: float, weighting: Any, mirror_axes: tuple[Any, ...]
) -> None:
    array = _array(*shape)
    settings = Tiling(patch=(8, 16, 16), overlap=overlap, weighting=weighting, mirror_axes=mirror_axes)
    logits = _swept(_Function(_twice), array, settings)
    # Hundreds of windows share a voxel at an overlap of 0.9, and float32 sums them.
    np.testing.assert_allclose(logits[0], array, atol=1e-3)
    np.testing.assert_allclose(logits[1], 1 - array, atol=1e-3)


def test_windows_share_what_is_asked_and_end_at_the_edge() -> None:
    layout = placement.plan((100, 64, 10), Tiling(patch=(32, 64, 16), overlap=0.5))
    assert layout.starts == ((0, 14, 27, 41, 54, 68), (0,), (0,))
    assert layout.padding == ((0, 0), (0, 0), (3, 3))
    assert layout.inferences == 6


def test_mirroring_averages_every_combination() -> None:
    """A network that answers with its column index is evened out by its mirror image."""
    index = np.arange(16, dtype=np.float32)

    def columns(stack: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(index, (1, 2, 8, 16, 16)).copy()

    runner = _Function(columns)
    logits = _swept(runner, _array(8, 16, 16), Tiling(patch=(8, 16, 16), mirror_axes=(0, 1, 2)))
    np.testing.assert_allclose(logits, 7.5, atol=1e-5)
    assert len(runner.stacks) == 8


def test_the_middle_of_a_window_counts_most() -> None:
    """Two windows that disagree meet in the middle of their overlap."""
    answers = iter((0.0, 1.0))

    def constant(stack: NDArray[Any]) -> NDArray[Any]:
        return np.full((1, 2, 8, 16, 16), next(answers), np.float32)

    logits = _swept(_Function(constant), _array(8, 16, 24), Tiling(patch=(8, 16, 16), overlap=0.5))
    line = logits[0, 4, 8]
    assert (np.diff(line[8:16]) > 0).all()
    assert line[11] == pytest.approx(1 - line[12], abs=1e-5)
    assert line[9] < 0.05 and line[14] > 0.95


@pytest.mark.parametrize(("batch", "stacks"), [(None, [4, 4, 1]), (2, [2] * 5), (1, [1] * 9)])
def test_patches_go_in_stacks_of_the_network(batch: int | None, stacks: list[int]) -> None:
    runner = _Function(_twice, batch=batch)
    array = _array(8, 32, 32)
    logits = _swept(runner, array, Tiling(patch=(8, 16, 16), overlap=0.5))
    assert runner.stacks == stacks
    np.testing.assert_allclose(logits[0], array, atol=1e-5)


def test_no_more_than_a_patch_of_slices_is_held() -> None:
    runner = _Function(_twice)
    settings = Tiling(patch=(8, 16, 16), overlap=0.5)
    sweep = tiling.sweep(runner, {"image": _array(1, 64, 16, 16)}, settings, output_name="logits", classes=2)
    depths = [slab.logits.shape[1] for slab in sweep]
    runner.close()
    assert max(depths) == 8
    assert sum(depths) == 64


def test_progress_grows_to_one() -> None:
    seen: list[float] = []
    _swept(_Function(_twice), _array(20, 30, 40), Tiling(patch=(8, 16, 16)), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda stack: _twice(stack) * np.float32(np.nan), "not finite"),
        (
            lambda stack: np.zeros((1, 3, 8, 16, 16), np.float32),
            r"has shape \(1, 3, 8, 16, 16\), not \(1, 2, 8",
        ),
        (lambda stack: _twice(stack)[..., ::2], r"has shape"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused(function: Any, complaint: str) -> None:
    runner = _Function(function)
    with runner, pytest.raises(OutputError, match=complaint):
        list(
            tiling.sweep(
                runner,
                {"image": _array(1, 8, 16, 16)},
                Tiling(patch=(8, 16, 16)),
                output_name="logits",
                classes=2,
            )
        )


@pytest.mark.parametrize("mirror_axes", [(), (1, 2)])
@pytest.mark.parametrize("shape", [(20, 30, 40), (9, 17, 16), (3, 40, 16)])
def test_windows_are_added_up_in_float16_as_nnunet_does(
    shape: tuple[int, int, int], mirror_axes: tuple[Any, ...]
) -> None:
    # Given a network that says something else of each place in its window, and of mirror images
    array, patch = _array(*shape), (8, 16, 16)
    pattern = np.random.default_rng(4).normal(0, 30, (2, *patch)).astype(np.float32)

    def network(stack: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(stack * pattern, np.float32)

    settings = Tiling(patch=patch, weighting="nnunet", mirror_axes=mirror_axes)
    # When it is swept, then every sum has been rounded as a whole volume of float16 would be
    found = _swept(_Function(network), array, settings)
    np.testing.assert_array_equal(found, _as_nnunet(array, network, settings))


def _as_nnunet(array: NDArray[np.float32], network: Any, settings: Tiling) -> NDArray[np.float32]:
    """The whole volume at once."""
    layout = placement.plan(array.shape, settings)
    padded = np.pad(array, layout.padding)
    axes = [np.exp(-0.5 * ((np.arange(n) - n // 2) / (n / 8)) ** 2) for n in settings.patch]
    weights = (10 * np.einsum("i,j,k->ijk", *axes)).astype(np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    sums = np.zeros((2, *padded.shape), np.float16)
    counts = np.zeros(padded.shape, np.float16)
    for corner in itertools.product(*layout.starts):
        place = tuple(slice(first, first + n) for first, n in zip(corner, settings.patch, strict=True))
        answers = [
            np.flip(network(np.flip(padded[place], m)[None, None])[0], [a + 1 for a in m])
            for m in layout.mirrors
        ]
        mean = sum(answers[1:], answers[0]) / np.float32(len(answers))
        sums[(slice(None), *place)] = sums[(slice(None), *place)] + mean * weights.astype(np.float32)
        counts[place] = counts[place] + weights
    averages = (sums.astype(np.float32) / counts.astype(np.float32)).astype(np.float16)
    inside = tuple(slice(a, n - b) for (a, b), n in zip(layout.padding, padded.shape, strict=True))
    return averages[(slice(None), *inside)].astype(np.float32)


def test_logits_that_float16_cannot_hold_are_refused() -> None:
    def network(stack: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(stack * 0 + np.float32(1e5), 2, axis=1)

    settings = Tiling(patch=(8, 16, 16), weighting="nnunet")
    with _Function(network) as runner:
        swept = tiling.sweep(
            runner, {"image": _array(1, 8, 16, 16)}, settings, output_name="logits", classes=2
        )
        with pytest.raises(OutputError, match="too large for float16, in which nnU-Net adds them up"):
            list(swept)
