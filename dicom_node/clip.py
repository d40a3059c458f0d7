"""One image whose frames are moments -> the moments that a model looks at: a cine loop of ultrasound, an angiogram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dicom_node import elements, multiframe, single_image
from dicom_node.decoding import Decoders
from dicom_node.encoding import Encoding
from dicom_node.errors import SeriesError
from dicom_node.headers import ImageFile
from engines.volume import Volume

#: Given how many frames there are, the indices of those that are wanted, in their order.
Choice = Callable[[int], Sequence[int]]

#: Frame Time, Frame Time Vector: what a Frame Increment Pointer of moments points to (PS3.3 C.7.6.6.1.1).
_TIMES = frozenset({0x00181063, 0x00181065})


def read(
    image: ImageFile, encoding: Encoding, choice: Choice, *, unit: str, decoders: Decoders
) -> tuple[Volume, list[str]]:
    """The middle one of the chosen frames as a volume (1, rows, columns), with all of them as its `frames`.

    Only the chosen frames are decoded. Each is read as a single image is. Raises what that raises, what `choice`
    raises, and SeriesError "multi-frame" where the frames are not one after the other in time.
    """
    count = int(elements.number(image.ds, "NumberOfFrames") or 1)
    _refuse_other_frames(image, count)
    chosen = list(choice(count))
    wanted = dict.fromkeys(chosen)
    located = multiframe.moments(image, count) if count > 1 else [image]
    read_once = {
        index: single_image.read(located[index], encoding, unit=unit, fill_padding=False, decoders=decoders)
        for index in wanted
    }
    middle, notes = read_once[chosen[len(chosen) // 2]]
    frames = np.concatenate([read_once[index][0].array for index in chosen])
    said = f"{len(wanted)} of {count} frames were looked at"
    return replace(middle, frames=frames), [said, *notes]


def _refuse_other_frames(image: ImageFile, count: int) -> None:
    """Raise SeriesError where the frames differ in more, or in something else, than their moment."""
    pointers = elements.value(image.ds, "FrameIncrementPointer")
    listed = pointers if isinstance(pointers, Sequence) and not isinstance(pointers, str) else [pointers]
    tags = {int(pointer) for pointer in listed if pointer is not None}
    if count > 1 and not tags <= _TIMES:
        raise SeriesError(
            "multi-frame",
            f"{elements.name(image.ds)} holds {count} frames that do not follow each other in time alone, and the "
            "model looks at clips. Route cine series only.",
        )
