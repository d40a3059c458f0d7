"""The sliding window: a network's logits over a whole grid, slab by slab along the slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import placement
from engines.errors import OutputError
from engines.manifest_tiling import Tiling
from engines.runner import Runner
from engines.window_sums import Slab, kind_for, weights_for
from engines.windows import Answers, Network, flipped


def sweep(
    runner: Runner,
    feeds: Mapping[str, NDArray[np.float32]],
    tiling: Tiling,
    *,
    output_name: str,
    classes: int,
    constants: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    background: Sequence[float] = (),
    progress: Callable[[float], None] | None = None,
) -> Iterator[Slab]:
    """Run the network over `feeds`, (channels, slices, rows, columns) by input name, all on one grid; yield its
    averaged logits in slice order.

    A slab is yielded as soon as no later window reaches it, so no more than one patch's depth of
    logits is ever held. The grid is padded with 0 where it is smaller than the patch, as nnU-Net does.
    `constants` are the inputs that are the same in every call. Where windows may be skipped, a voxel that no
    other one covers is `background`, one value for each class.
    Raises OutputError where the network answers with another shape or with NaN.
    """
    layout = placement.plan(shape3(feeds), tiling)
    padded = padded_for(feeds, layout, tiling)
    whole = shape3(padded, tiling.context)
    network = network_for(runner, tiling, constants)
    weights = weights_for(whole, layout, tiling)
    sums = kind_for(weights)(
        classes=classes, shape=whole, layout=layout, weights=weights, background=background
    )
    layers = zip(layout.starts[0], (*layout.starts[0][1:], whole[0]), strict=True)
    first, end = next(layers)
    for answers in network.answers(padded, layout.windows, progress=progress):
        logits = _looked_at(answers, output_name, classes, layout.patch)
        for window, part in zip(answers.windows, logits, strict=False):
            while first != window.corner[0]:
                yield from sums.take(first, end)
                first, end = next(layers)
            sums.add(window, flipped(part, window.mirror))
    yield from sums.take(first, end)
    for low, high in layers:
        yield from sums.take(low, high)


def network_for(
    runner: Runner, tiling: Tiling, constants: Mapping[str, NDArray[Any]] = MappingProxyType({})
) -> Network:
    """The runner as what `tiling` shows windows to."""
    return Network(
        runner=runner,
        patch=tiling.patch,
        context=tiling.context,
        constants=constants,
        skip_at_most=tiling.skip_at_most,
    )


def padded_for(
    feeds: Mapping[str, NDArray[np.float32]], layout: placement.Plan, tiling: Tiling
) -> dict[str, NDArray[np.float32]]:
    """The arrays with 0 around them where the patch is larger, and the slices of context before and behind."""
    return {name: _padded(array, layout, tiling.context) for name, array in feeds.items()}


def shape3(feeds: Mapping[str, NDArray[Any]], context: int = 0) -> tuple[int, int, int]:
    """The three lengths of the grid that all of them lie on, without the slices of context around it."""
    _, slices, rows, columns = next(iter(feeds.values())).shape
    return (slices - 2 * context, rows, columns)


def _padded(array: NDArray[np.float32], layout: placement.Plan, context: int) -> NDArray[np.float32]:
    """The array with 0 around it where the patch is larger, and `context` more slices before and behind."""
    if any(map(sum, layout.padding)):
        array = np.pad(array, ((0, 0), *layout.padding))
    return np.pad(array, ((0, 0), (context, context), (0, 0), (0, 0)), mode="edge") if context else array


def _looked_at(answers: Answers, name: str, classes: int, patch: tuple[int, int, int]) -> NDArray[np.float32]:
    """Logits (windows, classes, slices, rows, columns). Raises OutputError where they are none."""
    answer = answers.outputs[name]
    space = patch if answer.ndim == 5 else patch[1:]
    expected = (answers.count, classes, *space)
    if answer.shape != expected:
        raise OutputError(f'output "{name}" has shape {answer.shape}, not {expected}')
    # Both are NaN where any value is; nothing of the answer's size is made.
    if not (np.isfinite(answer.min()) and np.isfinite(answer.max())):
        raise not_finite(name)
    return answer.reshape(answers.count, classes, *patch)


def not_finite(name: str) -> OutputError:
    """Of an output with NaN or infinity."""
    return OutputError(f'output "{name}" holds values that are not finite numbers')
