"""What networks that answer with a row of numbers say of a whole image: of all its windows together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines import placement, tiling
from engines.answer import Case
from engines.errors import OutputError
from engines.windows import Answers


def of_image(
    case: Case,
    name: str,
    *,
    least: int,
    aggregate: Literal["mean", "max"],
    activate: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda row: row,
) -> NDArray[np.float64]:
    """The numbers (values,) of output `name`, `least` or more, activated, aggregated over the windows of the image.

    The mirror images of a window are averaged first. Raises OutputError where the network answers with another
    shape or with NaN.
    """
    windows = case.package.manifest.windows
    layout = placement.plan(case.seen.geometry.shape, windows)
    network = tiling.network_for(case.runner, windows, case.prompts)
    padded = tiling.padded_for(case.seen.arrays, layout, windows)
    rows: list[NDArray[np.float64]] = []
    with case.clock.stage("infer"):
        for answers in network.answers(padded, layout.windows, progress=case.report):
            rows += [activate(row) for row in _rows(answers, name, least)]
    table = np.stack(rows).reshape(-1, len(layout.mirrors), rows[0].size).mean(axis=1)
    return np.asarray(table.max(axis=0) if aggregate == "max" else table.mean(axis=0))


def _rows(answers: Answers, name: str, least: int) -> NDArray[np.float64]:
    """The numbers (windows, values) of one call."""
    answer: NDArray[Any] = answers.outputs[name]
    if answer.ndim != 2 or len(answer) != answers.count or answer.shape[1] < least:
        raise OutputError(
            f'output "{name}" has shape {answer.shape}, not ({answers.count}, {least} or more numbers)'
        )
    if not np.isfinite(answer).all():
        raise OutputError(f'output "{name}" holds values that are not finite numbers')
    return answer[: len(answers.windows)].astype(np.float64)
