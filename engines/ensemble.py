"""Several networks that see the same image: their probabilities are averaged, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engines import postprocess, tiling
from engines.answer import Case
from engines.manifest_outputs import SegmentationOutput
from engines.window_sums import Slab

#: The smallest probability that is told apart from 0: its logarithm is finite.
_LEAST = np.float32(1e-30)


def sweep(
    case: Case, output: SegmentationOutput, *, classes: int, background: Sequence[float]
) -> Iterator[Slab]:
    """The slabs of `case`'s network; of an ensemble, those whose activation is the members' average.

    All members see the same grid through the same windows, so that their slabs run in step: one patch's depth of
    logits is held for each, never a volume of classes.
    """
    runners = (case.runner, *case.members)
    members = [
        tiling.sweep(
            runner,
            case.seen.arrays,
            case.package.manifest.windows,
            output_name=output.name,
            classes=classes,
            constants=case.prompts,
            background=background,
            # They run in step, so the first one's progress is that of all.
            progress=case.report if number == 0 else None,
        )
        for number, runner in enumerate(runners)
    ]
    if not case.members:
        return members[0]
    return (
        Slab(start=slabs[0].start, logits=average([slab.logits for slab in slabs], output.activation))
        for slabs in zip(*members, strict=True)
    )


def average(each: Sequence[NDArray[np.float32]], activation: str) -> NDArray[np.float32]:
    """Logits whose activation is the mean of the activations of `each`; all (classes, ...)."""
    if activation == "none":
        return _mean(each)
    if activation == "softmax":
        return _logarithm(_mean([postprocess.softmax(logits) for logits in each]))
    # The odds of a mean of sigmoids, from both sides of one half alike.
    return _logarithm(_mean([postprocess.sigmoid(logits) for logits in each])) - _logarithm(
        _mean([postprocess.sigmoid(-logits) for logits in each])
    )


def _mean(each: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    total = each[0]
    for other in each[1:]:
        total = total + other
    return np.asarray(total / np.float32(len(each)), np.float32)


def _logarithm(share: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.log(np.maximum(share, _LEAST)), np.float32)
