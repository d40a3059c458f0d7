"""How a document lists other instances: by study, series and instance (PS3.3 Tables C.17-3 and 10-4)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from dicom_node.results import explicit
from dicom_node.results.context import Provenance


def study(context: Provenance, series: Sequence[bytes]) -> bytes:
    """The source's study and those of its series that are referred to."""
    uid = explicit.text(0x0020000D, "UI", str(context.header.StudyInstanceUID))
    return explicit.item(explicit.sequence(0x00081115, *series), uid)


def of_series(instances: Sequence[Dataset]) -> bytes:
    """A series and those of its instances that are referred to."""
    items = [explicit.item(explicit.reference(instance)) for instance in instances]
    uid = explicit.text(0x0020000E, "UI", str(instances[0].SeriesInstanceUID))
    return explicit.item(explicit.sequence(0x00081199, *items), uid)


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
