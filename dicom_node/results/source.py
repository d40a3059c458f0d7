"""The source images as highdicom needs to know them."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from dicom_node.series import SeriesImages

#: Type 1 or 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1).
_IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)

_COPIED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImagePositionPatient",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
)


def stubs(source: SeriesImages) -> list[Dataset]:
    """Identity and place of every source image, in slice order.

    They carry no patient or study values: those are copied once, by `header.finish`, since highdicom
    refuses values that real studies do have. All have one Frame of Reference and one orientation,
    the volume's: highdicom refuses differences that the series reader has already judged.
    """
    orientation = source.datasets[0].get("ImageOrientationPatient")
    frame_of_reference = source.volume.geometry.frame_of_reference_uid
    return [_stub(ds, orientation, frame_of_reference) for ds in source.datasets]


def _stub(ds: Dataset, orientation: Any, frame_of_reference: str | None) -> Dataset:
    """One source image's identity and place."""
    stub = Dataset()
    for keyword in _IDENTITY:
        setattr(stub, keyword, "")
    for keyword in _COPIED:
        if keyword in ds:
            stub.add(ds[keyword])
    stub.ImageOrientationPatient = orientation
    if frame_of_reference:
        stub.FrameOfReferenceUID = frame_of_reference
        stub.PositionReferenceIndicator = ds.get("PositionReferenceIndicator")
    return stub
