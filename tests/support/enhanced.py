"""Enhanced CT and Enhanced MR images (PS3.3 A.38, A.36) with the slices of a classic phantom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

#: What moves from a classic image into the functional groups.
_MOVED = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "AcquisitionNumber",
    "KVP",
)

#: What the frames are ordered by.
_DIMENSIONS = ("StackID", "InStackPositionNumber")


def image(slices: Sequence[Dataset], modality: str = "CT") -> Dataset:
    """One multi-frame image of classic ones, a frame of each in the order given.

    Every frame says its position, orientation and pixel measures; the rest is shared.
    """
    ds = Dataset()
    for element in slices[0]:
        if element.keyword not in (*_MOVED, "PixelData"):
            ds.add_new(element.tag, element.VR, element.value)
    ds.SOPClassUID = EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.Modality = modality
    ds.ImageType = _frame_type(modality)["FrameType"]
    ds.InstanceNumber = 1
    _enhanced(ds, modality)
    _dimensions(ds)
    ds.NumberOfFrames = len(slices)
    ds.SharedFunctionalGroupsSequence = [_shared(slices[0], modality)]
    ds.PerFrameFunctionalGroupsSequence = [_own(one, place) for place, one in enumerate(slices, start=1)]
    ds.add_new("PixelData", "OW", b"".join(one.PixelData for one in slices))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def split(ds: Dataset, at: int) -> list[Dataset]:
    """The same frames as a concatenation of two images (PS3.3 C.7.6.16.2.2.4)."""
    size = ds.Rows * ds.Columns * ds.BitsAllocated // 8
    uid, source = generate_uid(), ds.SOPInstanceUID
    made = []
    for number, frames in enumerate((slice(0, at), slice(at, ds.NumberOfFrames)), start=1):
        part = Dataset()
        for element in ds:
            part.add_new(element.tag, element.VR, element.value)
        part.file_meta = FileMetaDataset()
        part.file_meta.update(ds.file_meta)
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        part.ConcatenationUID, part.SOPInstanceUIDOfConcatenationSource = uid, source
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number, 2
        part.ConcatenationFrameOffsetNumber = frames.start
        part.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[frames]
        part.NumberOfFrames = len(part.PerFrameFunctionalGroupsSequence)
        part.PixelData = ds.PixelData[frames.start * size : frames.stop * size]
        made.append(part)
    return made


def item(**values: Any) -> Dataset:
    """A sequence's item of these attributes."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _own(one: Dataset, place: int) -> Dataset:
    """A frame's functional groups."""
    return item(
        FrameContentSequence=[
            item(
                FrameAcquisitionNumber=1,
                FrameReferenceDateTime="20261101101600",
                FrameAcquisitionDateTime="20261101101600",
                FrameAcquisitionDuration=100.0,
                StackID="1",
                InStackPositionNumber=place,
                DimensionIndexValues=[1, place],
            )
        ],
        PlanePositionSequence=[item(ImagePositionPatient=one.ImagePositionPatient)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=one.ImageOrientationPatient)],
        PixelMeasuresSequence=[item(PixelSpacing=one.PixelSpacing, SliceThickness=one.SliceThickness)],
    )


def _shared(one: Dataset, modality: str) -> Dataset:
    """The functional groups that all frames share."""
    made = item(
        FrameAnatomySequence=[
            item(FrameLaterality="U", AnatomicRegionSequence=[code("51185008", "SCT", "Chest")])
        ],
        PixelValueTransformationSequence=[
            item(
                RescaleIntercept=one.RescaleIntercept,
                RescaleSlope=one.RescaleSlope,
                RescaleType="HU" if modality == "CT" else "US",
            )
        ],
        FrameVOILUTSequence=[item(WindowCenter=40, WindowWidth=400)],
    )
    made.update(_ct() if modality == "CT" else _mr())
    return made


def _enhanced(ds: Dataset, modality: str) -> None:
    """What an enhanced image says of itself that a classic one does not."""
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.AcquisitionDateTime, ds.AcquisitionDuration = "20261101101600", 1.0
    ds.ContentQualification = "RESEARCH"
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    ds.PresentationLUTShape = "IDENTITY"
    ds.AcquisitionContextSequence = []
    if modality == "MR":
        ds.ComplexImageComponent, ds.AcquisitionContrast = "MAGNITUDE", "T1"
        ds.MagneticFieldStrength, ds.ResonantNucleus, ds.KSpaceFiltering = 1.5, "1H", "NONE"
        ds.ApplicableSafetyStandardAgency = "IEC"
        ds.ContentLabel = "PHANTOM"


def _dimensions(ds: Dataset) -> None:
    uid = generate_uid()
    ds.DimensionOrganizationSequence = [item(DimensionOrganizationUID=uid)]
    ds.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=uid,
            DimensionIndexPointer=Tag(keyword),
            FunctionalGroupPointer=Tag("FrameContentSequence"),
        )
        for keyword in _DIMENSIONS
    ]


def _frame_type(modality: str) -> dict[str, Any]:
    """Frame Type and what goes with it; a derived MR image need not say how it was acquired."""
    return {
        "FrameType": ["ORIGINAL" if modality == "CT" else "DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
    }


def _ct() -> Dataset:
    return item(
        CTImageFrameTypeSequence=[item(**_frame_type("CT"))],
        CTAcquisitionTypeSequence=[
            item(
                AcquisitionType="SEQUENCED",
                ConstantVolumeFlag="NO",
                FluoroscopyFlag="NO",
            )
        ],
        CTAcquisitionDetailsSequence=[
            item(
                RotationDirection="CW",
                RevolutionTime=0.5,
                SingleCollimationWidth=0.6,
                TotalCollimationWidth=19.2,
                TableHeight="100",
                GantryDetectorTilt="0",
                DataCollectionDiameter="500",
            )
        ],
        CTTableDynamicsSequence=[item()],
        CTPositionSequence=[
            item(
                TablePosition=0.0,
                ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0],
                DataCollectionCenterPatient=[0.0, 0.0, 0.0],
            )
        ],
        CTGeometrySequence=[
            item(DistanceSourceToDetector="1000", DistanceSourceToDataCollectionCenter=600.0)
        ],
        CTReconstructionSequence=[
            item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                ConvolutionKernel="B60s",
                ConvolutionKernelGroup="BONE",
                ReconstructionFieldOfView=[200.0, 200.0],
                ReconstructionPixelSpacing=[0.8, 0.7],
                ReconstructionAngle=360.0,
                ImageFilter="NONE",
            )
        ],
        CTExposureSequence=[
            item(
                ExposureTimeInms=500.0,
                XRayTubeCurrentInmA=100.0,
                ExposureInmAs=50.0,
                ExposureModulationType="NONE",
                CTDIvol=5.0,
            )
        ],
        CTXRayDetailsSequence=[
            item(
                KVP="120",
                FocalSpots=1.2,
                FilterType="NONE",
                FilterMaterial="ALUMINUM",
                CalciumScoringMassFactorDevice=[1.0, 1.0, 1.0],
            )
        ],
        IrradiationEventIdentificationSequence=[item(IrradiationEventUID=generate_uid())],
    )


def _mr() -> Dataset:
    return item(
        MRImageFrameTypeSequence=[
            item(**_frame_type("MR"), ComplexImageComponent="MAGNITUDE", AcquisitionContrast="T1")
        ],
        MREchoSequence=[item(EffectiveEchoTime=5.0)],
    )
