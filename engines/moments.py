"""Which of a series' several volumes, at one place each, a network sees: each moment is a channel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from engines.errors import VolumeError
from engines.manifest_inputs import Input, Moments
from engines.volume import Volume


def choice(moments: Moments) -> Callable[[Sequence[float | None]], tuple[int, ...]]:
    """What chooses the moments for an input that looks at several."""
    return functools.partial(chosen, moments=moments)


def chosen(values: Sequence[float | None], moments: Moments) -> tuple[int, ...]:
    """The indices of the moments that the network is given, in the order of its channels.

    `values` are the ascending times (s since the first), b-values (s/mm2) or echo times (ms) of all; None where the
    headers do not tell. Raises VolumeError where there are too few, or none near a value that is asked for.
    """
    count = len(values)
    if count < moments.least:
        raise VolumeError(
            f"the series has {count} volume{'s' if count > 1 else ''} by {moments.by}; the model needs "
            f"{moments.least}, of which it looks at {moments.length}: route series that have as many"
        )
    if moments.at:
        return _nearest(values, moments)
    named = {"first": 1, "last": count}
    wanted = moments.take or range(1, moments.length + 1)
    return tuple((named[one] if isinstance(one, str) else one) - 1 for one in wanted)


def _nearest(values: Sequence[float | None], moments: Moments) -> tuple[int, ...]:
    """The moments at the values that are asked for, each another one."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise VolumeError(f"the headers of the series do not tell the {moments.by} of each volume")
    found = [min(range(len(known)), key=lambda place: abs(known[place] - wanted)) for wanted in moments.at]
    for wanted, place in zip(moments.at, found, strict=True):
        if abs(known[place] - wanted) > (moments.within or 0) or found.count(place) > 1:
            raise VolumeError(
                f"the series has no volume of its own within {moments.within:g} of {moments.by} {wanted:g}; it has "
                f"{', '.join(f'{value:g}' for value in known)}"
            )
    return tuple(found)


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
