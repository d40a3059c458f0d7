"""Who observed: the model, as a device (PS3.16 TID 1002 and 1004)."""

from __future__ import annotations

from highdicom import sr

from dicom_node.results import codes
from dicom_node.results.context import Provenance
from engines.findings import Code

_DEVICE = Code(value="121007", scheme="DCM", meaning="Device")


def device(context: Provenance) -> sr.ObserverContext:
    """The device that observed: this model."""
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=context.device_uid,
        name=f"{context.model.name} {context.model.version}"[:64],
        manufacturer_name=context.model.manufacturer,
        model_name=context.model.name,
        serial_number=context.model.digest[:64],
    )
    return sr.ObserverContext(
        observer_type=codes.concept(_DEVICE), observer_identifying_attributes=attributes
    )
