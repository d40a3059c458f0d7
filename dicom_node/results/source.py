"""What is taken from the source images' headers, which may hold anything."""

from __future__ import annotations

import copy

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import validate_value

from dicom_node import elements, headers
from dicom_node.series import SeriesImages
from engines.volume import Geometry, Scale

#: Type 1 or 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1), but for the study's UID.
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

#: What study, series and image are called by. Real ones break the rules of UIDs, as a component that begins
#: with a zero does, and are still the only names under which everybody else knows these.
NAMES = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")

#: Value representations that pydicom turns into something other than their text.
_TEXTUAL = ("DA", "DS", "DT", "IS", "PN", "TM", "UI")

#: Whatever they hold.
_KEPT = (*_IDENTITY, *NAMES)

_COPIED = (
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
)


def header(ds: Dataset) -> Dataset:
    """The standard elements of `ds` before its pixels, text decoded.

    Left out is what cannot be read, and what breaks its VR's rules, since an object of ours that
    breaks them may be refused. Who the patient is and which study this is stay to the letter.
    """
    made = Dataset()
    with headers.quietly():
        for tag in sorted(ds.keys()):
            if tag < 0x7FE00000 and not BaseTag(tag).is_private:
                element = _element(ds, tag)
                if element is not None and (element.keyword in _KEPT or _is_legal(element)):
                    made.add(copy.deepcopy(element))
        made.decode()
    return made


def _is_legal(element: DataElement) -> bool:
    """Whether its VR is that of its tag, and every value in it obeys it (PS3.6, PS3.5 Table 6.2-1)."""
    if dictionary_has_tag(element.tag) and element.VR not in dictionary_VR(element.tag).split(" or "):
        return False
    if element.VR == "SQ":
        return all(_is_legal(inner) for item in element.value for inner in item)
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    try:
        for value in values:
            if value is not None:
                # pydicom's numbers remember their text; the rules are about the text.
                textual = element.VR in _TEXTUAL
                validate_value(element.VR, str(value) if textual else value, config.RAISE)
    except (*elements.BROKEN, OSError):
        return False
    return True


def _element(ds: Dataset, name: str | int) -> DataElement | None:
    """An element, with everything in it decoded; None where it is absent or broken."""
    try:
        if name not in ds:
            return None
        element = ds[name]
        for item in element.value if element.VR == "SQ" else ():
            for tag in sorted(item.keys()):
                if _element(item, tag) is None:
                    return None
    except (*elements.BROKEN, OSError):
        return None
    return element


def stub(source: SeriesImages) -> Dataset:
    """Identity and place of the first source image; its Frame of Reference is the volume's."""
    image = source.datasets[0]
    made = named(image)
    with headers.quietly():
        _place(made, image, source.volume.geometry)
    return made


def named(image: Dataset) -> Dataset:
    """An image by its UIDs, and its place as it says it, as highdicom needs to know it.

    It carries no patient or study values: those are copied once, by `header.finish`, since highdicom
    refuses values that real studies do have.
    """
    made = Dataset()
    with headers.quietly():
        for keyword in _IDENTITY:
            setattr(made, keyword, "")
        for keyword in _COPIED:
            element = _element(image, keyword)
            if element is not None:
                # A copy: what is changed here must not change in the header that it comes from.
                made.add(copy.deepcopy(element))
    return made


def _place(made: Dataset, image: Dataset, geometry: Geometry) -> None:
    """What the volume's geometry says of the image's place, whatever its header says.

    Where there is none, Pixel Spacing goes too: readers look for a thickness beside it, which nobody knows, and
    it is in the source image, on whose pixels the frames lie.
    """
    # Of the classes that may have frames or a place highdicom wants to see them; the references that it
    # writes are replaced by those of the image itself.
    placed = geometry.in_patient
    made.add_new("SOPClassUID", "UI", CTImageStorage if placed else SecondaryCaptureImageStorage)
    if not placed:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "PixelSpacing"):
            made.pop(Tag(keyword), None)
    elif geometry.scale is not Scale.VOLUME:
        made.SliceThickness = None
    elif elements.number(made, "SliceThickness") is None:
        # "NaN" would stop the Segmentation once all the work is done.
        made.SliceThickness = f"{geometry.spacing[0]:.10g}"
    if geometry.frame_of_reference_uid:
        made.FrameOfReferenceUID = geometry.frame_of_reference_uid
        made.PositionReferenceIndicator = image.get("PositionReferenceIndicator")
