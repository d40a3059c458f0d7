"""The header of one frame of a multi-frame image, in the form of a classic image's header."""

from __future__ import annotations

from pydicom.dataset import Dataset


class FrameHeader(Dataset):
    """What a multi-frame image says of one of its frames, all at the top level.

    SOP Instance UID and Number of Frames are the instance's; position, spacing, rescale and the like are
    the frame's own.
    """

    #: Which frame of its instance, from 1; None where the instance has no other.
    frame_number: int | None = None


def frame_number(ds: Dataset) -> int | None:
    """The number of the frame that a header is of; None where its instance has only that one."""
    return ds.frame_number if isinstance(ds, FrameHeader) else None


def key(ds: Dataset) -> tuple[str, int | None]:
    """SOP Instance UID and frame number: what tells a slice from every other one."""
    return str(ds.SOPInstanceUID), frame_number(ds)
