"""Every kind of source that results are made on, as files on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.pixels import compress
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from tests.support import phantoms
from tests.support import results as cases

#: Writes the files of one series into a folder.
Source = Callable[[Path], list[Path]]


def _classic(phantom: phantoms.Phantom, folder: Path) -> list[Path]:
    return phantoms.write(phantoms.datasets(phantom), folder)


def _of_class(sop_class: str, modality: str, folder: Path) -> list[Path]:
    """The phantom as another modality's images; its numbers have no unit."""
    made = phantoms.datasets(phantoms.Phantom(modality=modality))
    for ds in made:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        del ds.KVP, ds.RescaleType
    return phantoms.write(made, folder)


def _compressed(transfer_syntax: str, folder: Path) -> list[Path]:
    made = phantoms.datasets(phantoms.Phantom())
    for ds in made:
        compress(ds, transfer_syntax, generate_instance_uid=False)
    return phantoms.write(made, folder)


def _big_endian(folder: Path) -> list[Path]:
    made = phantoms.datasets(phantoms.Phantom())
    for ds in made:
        ds["PixelData"].VR = "OW"
        ds.PixelData = _swapped(ds)
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04d}.dcm" for index in range(len(made))]
    for path, ds in zip(paths, made, strict=True):
        ds.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    return paths


def _swapped(ds: Dataset) -> bytes:
    """Pixel Data with the bytes of each word the other way round."""
    data = bytearray(ds.PixelData)
    data[0::2], data[1::2] = data[1::2], data[0::2]
    return bytes(data)


#: Name -> what makes it; the order is that of the conformance statement.
SOURCES: dict[str, Source] = {
    "CT, axial": partial(_classic, cases.LIES["axial"]),
    "CT, feet first": partial(_classic, cases.LIES["feet first"]),
    "CT, sagittal": partial(_classic, cases.LIES["sagittal"]),
    "CT, double oblique": partial(_classic, cases.LIES["double oblique"]),
    "CT, Explicit VR Big Endian": _big_endian,
    "CT, RLE": partial(_compressed, RLELossless),
    "CT, JPEG-LS": partial(_compressed, JPEGLSLossless),
    "CT, JPEG 2000": partial(_compressed, JPEG2000Lossless),
    "MR": partial(_of_class, MRImageStorage, "MR"),
    "PET": partial(_of_class, PositronEmissionTomographyImageStorage, "PT"),
}
