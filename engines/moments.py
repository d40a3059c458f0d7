"""Which of a series' several volumes, at one place each, a network sees: each moment is a channel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from engines.errors import VolumeError
from engines.manifest_inputs import Input, Moments
from engines.volume import Volume


def choice(moments: Moments) -> Callable[[int], tuple[int, ...]]:
    """What chooses the moments for an input that looks at several."""
    return functools.partial(chosen, moments=moments)


def chosen(count: int, moments: Moments) -> tuple[int, ...]:
    """The indices, of `count` moments, of those that the network is given, in the order of its channels.

    Raises VolumeError where there are too few.
    """
    if count < moments.least:
        raise VolumeError(
            f"the series has {count} volume{'s' if count > 1 else ''} by {moments.by}; the model needs "
            f"{moments.least}, of which it looks at {moments.length}: route series that have as many"
        )
    named = {"first": 1, "last": count}
    wanted = moments.take or range(1, moments.length + 1)
    return tuple((named[one] if isinstance(one, str) else one) - 1 for one in wanted)


def each(volume: Volume, entry: Input) -> list[Volume]:
    """The volumes that an input sees, without further moments: one, or as many as its `moments` are.

    A model that looks at none sees the first of those that are there.
    Raises VolumeError where they are not as many.
    """
    if entry.moments is None:
        return [replace(volume, further=())] if volume.further else [volume]
    arrays = (volume.array, *volume.further)
    if len(arrays) != entry.moments.length:
        raise VolumeError(
            f"there {'are' if volume.further else 'is'} {len(arrays)} of the {entry.moments.length} moments that "
            "the model looks at"
        )
    return [replace(volume, array=array, further=()) for array in arrays]
