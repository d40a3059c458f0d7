"""Synthetic series with an asymmetric marker, so that a flip, a mirror or a shift cannot hide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

#: Direction cosines of rows and columns (PS3.3 C.7.6.2.1.1) of the usual acquisitions.
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
FEET_FIRST_PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """How to make a series; every field has a plain default."""

    #: (slices, rows, columns)
    shape: tuple[int, int, int] = (12, 32, 40)
    #: mm along (slice, row, column)
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.7)
    orientation: tuple[float, float, float, float, float, float] = AXIAL
    origin: tuple[float, float, float] = (-30.0, -20.0, 100.0)
    #: +1: slices run along row x column; -1: against it (feet first).
    slice_sign: int = 1
    patient_id: str = "PHANTOM-1"
    patient_name: str = "Phantom^Asymmetric"
    study_uid: str = ""
    series_uid: str = ""
    modality: str = "CT"
    series_description: str = "Asymmetric phantom"


def asymmetric(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """HU values: air, a body, and a corner of three blocks of unlike size, unlike along every axis."""
    array = np.full(shape, -1000, np.int16)
    s, r, c = shape
    array[:, r // 8 : -r // 8, c // 8 : -c // 8] = 40
    array[s // 6 : s // 3, r // 4 : r // 2, c // 4 : c // 2] = 400
    array[s // 6 : -s // 6, r // 4 : r // 3, c // 4 : c // 3] = 700
    array[s // 6 : s // 3, r // 4 : r // 3, c // 4 : -c // 4] = 1000
    return array


def affine(phantom: Phantom) -> NDArray[np.float64]:
    """(slice, row, column) index -> LPS mm, written out from PS3.3 equation C.7.6.2.1-1."""
    along_row = np.array(phantom.orientation[:3])
    along_column = np.array(phantom.orientation[3:])
    normal = np.cross(along_row, along_column) * phantom.slice_sign
    matrix = np.eye(4)
    matrix[:3, 0] = normal * phantom.spacing[0]
    matrix[:3, 1] = along_column * phantom.spacing[1]
    matrix[:3, 2] = along_row * phantom.spacing[2]
    matrix[:3, 3] = phantom.origin
    return matrix


def datasets(phantom: Phantom, array: NDArray[np.int16] | None = None) -> list[Dataset]:
    """One classic CT image per slice, in slice order."""
    pixels = asymmetric(phantom.shape) if array is None else array
    matrix = affine(phantom)
    study = phantom.study_uid or generate_uid()
    series = phantom.series_uid or generate_uid()
    frame_of_reference = generate_uid()
    made = []
    for index in range(phantom.shape[0]):
        ds = _header(phantom, study, series, frame_of_reference, index)
        position = matrix @ np.array([index, 0, 0, 1])
        ds.ImagePositionPatient = [round(float(value), 6) for value in position[:3]]
        ds.PixelData = (pixels[index].astype(np.int32) + 1024).astype(np.uint16).tobytes()
        made.append(ds)
    return made


def _header(phantom: Phantom, study: str, series: str, frame_of_reference: str, index: int) -> Dataset:
    """Everything of a CT image but its place and its pixels."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyDate, ds.StudyTime = "20261101", "101500"
    ds.SeriesDate, ds.SeriesTime = "20261101", "101600"
    ds.AcquisitionDate, ds.AcquisitionTime = "20261101", "101600"
    ds.ContentDate, ds.ContentTime = "20261101", "101600"
    ds.AccessionNumber = "ACC-1"
    ds.Modality = phantom.modality
    ds.Manufacturer = "secondread tests"
    ds.ManufacturerModelName = "phantom"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Phantom study"
    ds.SeriesDescription = phantom.series_description
    ds.PatientName, ds.PatientID = phantom.patient_name, phantom.patient_id
    ds.PatientBirthDate, ds.PatientSex = "19600101", "O"
    ds.BodyPartExamined = "CHEST"
    ds.SliceThickness = phantom.spacing[0]
    ds.KVP = "120"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = "1", 2, index + 1, 1
    ds.ImageOrientationPatient = list(phantom.orientation)
    ds.FrameOfReferenceUID = frame_of_reference
    ds.PositionReferenceIndicator = ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = phantom.shape[1], phantom.shape[2]
    ds.PixelSpacing = [phantom.spacing[1], phantom.spacing[2]]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def write(made: list[Dataset], folder: Path) -> list[Path]:
    """Write data sets as files, named by their place in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, ds in enumerate(made):
        path = folder / f"{index:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
