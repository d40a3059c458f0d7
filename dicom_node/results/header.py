"""The parts of a header that every result object has: patient, study, equipment, dates, character set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom
from pydicom.dataset import Dataset

from dicom_node.equipment import OWN_MANUFACTURER
from dicom_node.results import codes
from dicom_node.results.context import Provenance, ResultContext
from engines.findings import Code

#: Of the source's General Equipment module: what still holds for a result made at the same place.
_PLACE = ("InstitutionName", "InstitutionalDepartmentName")

#: What names a device (PS3.3 C.7.5.1).
_DEVICE = ("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "SoftwareVersions")

_DESCRIPTION_LENGTH = 64


def constructor(context: Provenance, kind: str) -> dict[str, Any]:
    """The arguments that every highdicom class takes."""
    return {
        "series_instance_uid": context.uid(kind, "series"),
        "series_number": context.series_number(kind),
        "sop_instance_uid": context.uid(kind, "instance"),
        "instance_number": 1,
        "manufacturer": context.model.manufacturer,
        "manufacturer_model_name": context.model.name,
        "software_versions": [context.model.version, f"secondread {context.secondread_version}"],
        "device_serial_number": context.model.digest[:64],
        "specific_character_set": "ISO_IR 192",
    }


def finish(ds: Dataset, context: Provenance, description: str) -> None:
    """Give the object its patient, study, equipment, dates and description."""
    # The Patient and Study modules of the source, as they are (PS3.3 A.1.2: same entity, same values).
    # highdicom asks the class which modules these are, and knows neither private classes nor retired ones.
    whose = Dataset()
    whose.update(context.header)
    whose.SOPClassUID = ds.SOPClassUID
    ds.copy_patient_and_study_information(whose)
    for keyword in _PLACE:
        if context.header.get(keyword):
            setattr(ds, keyword, context.header.get(keyword))
    ds.SeriesDescription = description
    ds.ContributingEquipmentSequence = _contributing(context)
    _date(ds, context)


def body_part(ds: Dataset, context: ResultContext) -> None:
    """The part of the body and its side, as the source has them (PS3.3 C.7.3.1)."""
    source = context.header
    if source.get("BodyPartExamined"):
        ds.BodyPartExamined = source.BodyPartExamined
    # Of type 2C: for a paired structure, and where nobody says which structure it is.
    if source.get("ImageLaterality"):
        ds.ImageLaterality = source.ImageLaterality
    elif source.get("Laterality") or "BodyPartExamined" not in ds:
        ds.Laterality = source.get("Laterality")


def _date(ds: Dataset, context: Provenance) -> None:
    """Every date and time of ours from `created_at`: highdicom would take the clock's."""
    moment = context.local_time
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    for part in ("InstanceCreation", "Content", "Series"):
        setattr(ds, f"{part}Date", date)
        setattr(ds, f"{part}Time", time)
    if context.timezone_offset is not None:
        ds.TimezoneOffsetFromUTC = context.timezone_offset


def _contributing(context: Provenance) -> list[Dataset]:
    """The scanner, the algorithm and this program (PS3.3 C.12.1.1.5; IHE AIR for the algorithm)."""
    moment = context.created_at.strftime("%Y%m%d%H%M%S.%f+0000")
    model = context.model
    scanner = {keyword: context.header.get(keyword) for keyword in _DEVICE}
    algorithm = {
        "Manufacturer": model.manufacturer,
        "ManufacturerModelName": model.name,
        "SoftwareVersions": model.version,
        "DeviceSerialNumber": model.digest[:64],
        "DeviceUID": context.device_uid,
        "ContributionDateTime": moment,
        "ContributionDescription": context.part[:1024],
    }
    writer = {
        "Manufacturer": OWN_MANUFACTURER,
        "ManufacturerModelName": "secondread",
        "SoftwareVersions": [context.secondread_version, f"highdicom {highdicom.__version__}"],
        "ContributionDateTime": moment,
        "ContributionDescription": "Ran the algorithm and wrote this object",
    }
    made = [_equipment(codes.PROCESSING_EQUIPMENT, algorithm), _equipment(codes.PROCESSING_EQUIPMENT, writer)]
    if scanner["Manufacturer"]:
        made.insert(0, _equipment(codes.ACQUISITION_EQUIPMENT, scanner))
    return made


def _equipment(purpose: Code, attributes: dict[str, Any]) -> Dataset:
    """One item of the Contributing Equipment Sequence (PS3.3 C.12.1.1.5)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [codes.concept(purpose)]
    for keyword, value in attributes.items():
        if value not in (None, "", []):
            setattr(item, keyword, value)
    return item


def describe(context: ResultContext, contents: Sequence[str]) -> str:
    """A Series Description that says what it is, e.g. "AI unverified (research): lungs, chest-ct 1.0.0".

    Viewers cut it in their series lists, after some 20 characters: what must be seen comes first. At
    most 64 characters (PS3.5, LO): of `contents`, as many as fit, then how many more; where none fits beside
    the model, without it, since what tells a run's series apart says more.
    """
    model, start = context.model, standing(context)
    made_by = f"{model.name} {model.version}"
    for end in (f", {made_by}", ""):
        for count in range(len(contents), 0, -1):
            more = f" +{len(contents) - count}" if count < len(contents) else ""
            text = f"{start}: {', '.join(contents[:count])}{more}{end}"
            if len(text) <= _DESCRIPTION_LENGTH:
                return text.replace("\\", "/")
    return f"{start}: {made_by}"[:_DESCRIPTION_LENGTH].replace("\\", "/")


def standing(context: ResultContext) -> str:
    """What must be known before anything else, e.g. "AI rev 2 unverified (research, replaces rev 1)"."""
    marks = ["research"] if context.model.research_only else []
    if context.predecessor is not None:
        marks.append(f"replaces rev {context.predecessor.revision}")
    start = "AI unverified" if context.predecessor is None else f"AI rev {context.revision} unverified"
    return f"{start} ({', '.join(marks)})" if marks else start
