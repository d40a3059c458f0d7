"""Single images of each modality, valid in front of dciodvfy, with an asymmetric marker in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    OphthalmicPhotography8BitImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from tests.support import phantoms

#: Unlike in both directions, and no multiple of eight.
ROWS, COLUMNS = 62, 84


def marker() -> NDArray[np.uint8]:
    """(rows, columns), 0 to 250: a body on air, and a block of its own in one corner."""
    image = np.full((ROWS, COLUMNS), 10, np.uint8)
    image[6:56, 8:76] = 100
    image[10:22, 12:32] = 180
    image[12:16, 32:60] = 250
    return image


def code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    """A coded concept."""
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def _base(sop_class: str, modality: str) -> Dataset:
    """Patient, study, series and equipment."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = "20261101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = "101500"
    ds.AccessionNumber, ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "ACC-1", "1", 2, 1
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = modality, "secondread tests", "phantom"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.ReferringPhysicianName, ds.StudyDescription = "", "Phantom study"
    ds.PatientName, ds.PatientID = "Phantom^Planar", "PHANTOM-1"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "O"
    ds.ImageType, ds.PatientOrientation = ["ORIGINAL", "PRIMARY"], ["L", "F"]
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
        sop_class,
        ds.SOPInstanceUID,
    )
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def grey(ds: Dataset, values: NDArray[Any], *, bits: int, photometric: str = "MONOCHROME2") -> Dataset:
    """Grey pixels of so many bits."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
    data = values.astype(np.uint8 if bits <= 8 else np.uint16).tobytes()
    ds.add_new("PixelData", "OB" if bits <= 8 else "OW", data + b"\0" * (len(data) % 2))
    return ds


def colour(ds: Dataset, values: NDArray[np.uint8], photometric: str) -> Dataset:
    """Bytes of colour."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, photometric, 0
    ds.Rows, ds.Columns = values.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.add_new("PixelData", "OB", values.tobytes())
    return ds


def cr() -> Dataset:
    """A computed radiograph, MONOCHROME1, of 10 bits."""
    ds = _base(ComputedRadiographyImageStorage, "CR")
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
    ds.PixelSpacing = [0.2, 0.25]
    ds.WindowCenter, ds.WindowWidth = "400", "700"
    return grey(ds, marker().astype(np.uint16) * 4, bits=10, photometric="MONOCHROME1")


def dx() -> Dataset:
    """A digital radiograph for presentation, MONOCHROME1, of 12 bits, its spacing that of the detector."""
    ds = _base(DigitalXRayImageStorageForPresentation, "DX")
    _x_ray(ds)
    ds.BodyPartExamined, ds.ImageLaterality = "CHEST", "U"
    ds.AnatomicRegionSequence = [code("51185008", "Chest")]
    ds.ViewPosition = "PA"
    ds.ImagerPixelSpacing = [0.2, 0.25]
    return grey(ds, marker().astype(np.uint16) * 16, bits=12, photometric="MONOCHROME1")


def mg() -> Dataset:
    """A mammogram with its estimated magnification."""
    ds = _base(DigitalMammographyXRayImageStorageForPresentation, "MG")
    _x_ray(ds)
    ds.PresentationLUTShape = "IDENTITY"
    ds.BodyPartExamined, ds.ImageLaterality, ds.PatientOrientation = "BREAST", "L", ["A", "F"]
    ds.AnatomicRegionSequence = [code("76752008", "Breast")]
    ds.OrganExposed, ds.BreastImplantPresent, ds.PositionerType = "BREAST", "NO", "MAMMOGRAPHIC"
    view = code("399162004", "cranio-caudal")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.PartialView = "NO"
    ds.ImagerPixelSpacing = [0.1, 0.1]
    ds.EstimatedRadiographicMagnificationFactor = "1.25"
    return grey(ds, marker().astype(np.uint16) * 16, bits=12)


def _x_ray(ds: Dataset) -> None:
    """What all digital X-ray images say (PS3.3 C.8.11)."""
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "INVERSE"
    ds.WindowCenter, ds.WindowWidth = "2000", "3000"
    ds.DetectorType, ds.PositionerType = "DIRECT", None
    ds.AcquisitionContextSequence = []


def us() -> Dataset:
    """An ultrasound image in red, green and blue that are all grey, one calibrated region."""
    ds = _base(UltrasoundImageStorage, "US")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    ds.SequenceOfUltrasoundRegions = [region()]
    ds.UltrasoundColorDataPresent = 0
    ds.BodyPartExamined = "ABDOMEN"
    return colour(ds, np.repeat(marker()[..., None], 3, axis=2), "RGB")


def cine(frames: NDArray[np.uint8]) -> Dataset:
    """A grey cine loop of ultrasound, (frames, rows, columns)."""
    ds = us()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    ds.NumberOfFrames, ds.FrameIncrementPointer, ds.FrameTime = len(frames), 0x00181063, 33
    del ds.PixelData, ds.PlanarConfiguration
    grey(ds, frames[0], bits=8)
    ds.PixelData = frames.tobytes() + b"\0" * (frames.size % 2)
    return ds


def region(**changes: Any) -> Dataset:
    """A two-dimensional tissue region of 0.5 mm rows and 0.4 mm columns (PS3.3 C.8.5.5)."""
    ds = Dataset()
    ds.RegionSpatialFormat, ds.RegionDataType, ds.RegionFlags = 1, 1, 0
    ds.RegionLocationMinX0, ds.RegionLocationMinY0 = 8, 6
    ds.RegionLocationMaxX1, ds.RegionLocationMaxY1 = 75, 55
    ds.PhysicalUnitsXDirection = ds.PhysicalUnitsYDirection = 3
    ds.PhysicalDeltaX, ds.PhysicalDeltaY = 0.04, 0.05
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def op() -> Dataset:
    """A photograph of the fundus in colour, in the multi-frame class, of one frame."""
    ds = _base(OphthalmicPhotography8BitImageStorage, "OP")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "", "COLOR"]
    ds.NumberOfFrames, ds.FrameIncrementPointer = 1, 0x00181063
    ds.FrameTime = 100
    ds.AcquisitionDateTime = "20261101101500"
    ds.DetectorType = "CCD"
    for keyword, (value, meaning) in {
        "AcquisitionDeviceTypeCodeSequence": ("409898007", "Fundus Camera"),
        "AnatomicRegionSequence": ("5665001", "Retina"),
    }.items():
        setattr(ds, keyword, [code(value, meaning)])
    for keyword in (
        "IlluminationTypeCodeSequence",
        "LightPathFilterTypeStackCodeSequence",
        "ImagePathFilterTypeStackCodeSequence",
        "LensesCodeSequence",
        "RefractiveStateSequence",
    ):
        setattr(ds, keyword, [])
    ds.EmmetropicMagnification = ds.IntraOcularPressure = ds.HorizontalFieldOfView = ds.PupilDilated = None
    ds.ImageLaterality = "R"
    ds.PatientEyeMovementCommanded = "NO"
    ds.SynchronizationFrameOfReferenceUID, ds.SynchronizationTrigger = generate_uid(), "NO TRIGGER"
    ds.AcquisitionTimeSynchronized = "N"
    ds.AcquisitionContextSequence = []
    return colour(ds, coloured(), "RGB")


def coloured() -> NDArray[np.uint8]:
    """The marker, each of its parts in a colour of its own: (rows, columns, 3) RGB."""
    paints = {10: (10, 0, 30), 100: (200, 60, 20), 180: (20, 230, 90), 250: (250, 240, 130)}
    picture = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    for value, paint in paints.items():
        picture[marker() == value] = paint
    return picture


def sc() -> Dataset:
    """A screen capture in palette colour of 16 bits."""
    ds = _base(SecondaryCaptureImageStorage, "OT")
    ds.ConversionType, ds.Laterality = "WSD", None
    values, stored = np.unique(marker(), return_inverse=True)
    for name, channel in (("Red", 0), ("Green", 1), ("Blue", 2)):
        table = [int(coloured()[marker() == value][0, channel]) * 257 for value in values]
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(values), 0, 16])
        ds.add_new(f"{name}PaletteColorLookupTableData", "OW", np.array(table, "<u2").tobytes())
    return grey(ds, stored.reshape(ROWS, COLUMNS), bits=8, photometric="PALETTE COLOR")


def ct() -> Dataset:
    """One slice of a CT."""
    phantom = phantoms.Phantom(shape=(1, ROWS, COLUMNS))
    return phantoms.datasets(phantom, marker()[None].astype(np.int16) * 4 - 600)[0]


#: By the name of the modality.
ALL: dict[str, Callable[[], Dataset]] = {
    "CR": cr, "DX": dx, "MG": mg, "US": us, "OP": op, "SC": sc, "CT": ct,
}  # fmt: skip
