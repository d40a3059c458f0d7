"""Which moments of a clip a network sees."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from engines.errors import VolumeError
from engines.manifest_inputs import Frames, Input
from engines.volume import Scale, Volume


def choice(entry: Input) -> Callable[[int], tuple[int, ...]] | None:
    """What chooses the frames of a clip for an input; None where it looks at no clip."""
    return None if entry.frames is None else functools.partial(chosen, frames=entry.frames)


def chosen(count: int, frames: Frames) -> tuple[int, ...]:
    """The indices, of `count` frames, of those that the network is given, in order of time.

    Evenly over the whole clip each is the frame in the middle of its share, so a short clip gives some twice. At a
    fixed step they are those around the clip's middle.
    Raises VolumeError where the clip is shorter than that.
    """
    if frames.every is None:
        return tuple((2 * place + 1) * count // (2 * frames.length) for place in range(frames.length))
    span = (frames.length - 1) * frames.every + 1
    if count < span:
        raise VolumeError(
            f"the clip has {count} frame{'s' if count > 1 else ''}; the model needs {span}, of which it looks at "
            f"{frames.length}"
        )
    first = (count - span) // 2
    return tuple(range(first, first + span, frames.every))


def stacked(volume: Volume, entry: Input) -> tuple[Volume, Input]:
    """A clip as a stack whose slices are its frames, and an input that leaves their number as it is.

    Its first axis has no millimetres: nothing must be measured along it.
    Raises VolumeError where the image has no frames.
    """
    if volume.frames is None:
        raise VolumeError("the image has no frames; the model looks at clips")
    slices, rows, columns = volume.frames.shape
    geometry = replace(volume.geometry, shape=(slices, rows, columns), scale=Scale.VOLUME)
    size = None if entry.size is None else (slices, *entry.size[-2:])
    stack = replace(volume, array=volume.frames, geometry=geometry, frames=None)
    return stack, entry.model_copy(update={"size": size})
