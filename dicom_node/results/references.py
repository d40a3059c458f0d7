"""How a document lists other instances: by study, series and instance (PS3.3 Tables C.17-3 and 10-4)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydicom.dataset import Dataset

from dicom_node import elements
from dicom_node.frame_header import frame_number
from dicom_node.frame_header import key as frame_key
from dicom_node.results import explicit
from dicom_node.results.context import Provenance
from dicom_node.series import SeriesImages


def study(context: Provenance, series: Sequence[bytes]) -> bytes:
    """The source's study and those of its series that are referred to."""
    uid = explicit.text(0x0020000D, "UI", str(context.header.StudyInstanceUID))
    return explicit.item(explicit.sequence(0x00081115, *series), uid)


def of_series(instances: Sequence[Dataset]) -> bytes:
    """A series and those of its instances that are referred to."""
    items = [explicit.item(explicit.reference(instance)) for instance in instances]
    uid = explicit.text(0x0020000E, "UI", str(instances[0].SeriesInstanceUID))
    return explicit.item(explicit.sequence(0x00081199, *items), uid)


def of_slices(source: SeriesImages, slices: Collection[int]) -> list[Dataset]:
    """The instances that these slices are of, each once, in the source's order."""
    uids = {source.datasets[index].SOPInstanceUID for index in slices}
    return [ds for ds in source.instances if ds.SOPInstanceUID in uids]


def some_frames(source: SeriesImages, instance: Dataset) -> tuple[int, ...]:
    """The frames of an instance that are slices of the volume; nothing where all are.

    A reference without numbers is to all of an instance's frames (PS3.3 Table 10-3).
    """
    if frame_number(instance) is None:
        return ()
    keys = (frame_key(ds) for ds in source.datasets)
    used = sorted(number for uid, number in keys if number is not None and uid == instance.SOPInstanceUID)
    return () if len(used) == elements.number(instance, "NumberOfFrames") else tuple(used)


def read_image(item: Dataset) -> tuple[str, int | None]:
    """SOP instance and frame number of a reference to one slice; -1 where it names several frames."""
    numbers = item.get("ReferencedFrameNumber")
    if numbers is None or isinstance(numbers, int):
        return str(item.ReferencedSOPInstanceUID), None if numbers is None else int(numbers)
    return str(item.ReferencedSOPInstanceUID), -1


def read_slices(item: Dataset) -> list[tuple[str, int | None]]:
    """SOP instance and frame number of each slice that a reference to an image names."""
    numbers = item.get("ReferencedFrameNumber")
    listed = numbers if isinstance(numbers, Sequence) else [numbers]
    uid = str(item.ReferencedSOPInstanceUID)
    return [(uid, None if number is None else int(number)) for number in listed]


def read(ds: Dataset, keyword: str) -> list[tuple[str, str, str, str]]:
    """Study, series, SOP class and SOP instance of each reference in such a sequence."""
    return [
        (
            str(study.StudyInstanceUID),
            str(series.SeriesInstanceUID),
            str(instance.ReferencedSOPClassUID),
            str(instance.ReferencedSOPInstanceUID),
        )
        for study in ds.get(keyword) or ()
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
