"""Make demo/ct from the original LIDC-IDRI-0314 series: every fifth image, losslessly compressed."""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

#: First original image from the feet, originals per demo image, and how many: from the lung bases to the apices.
FIRST, STEP, COUNT = 5, 5, 50


def new_uid(source: str, purpose: str) -> str:
    """A UID that depends on nothing but its source: UUID version 5 under 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'secondread demo {purpose} {source}').int}"


def foot_to_head(folder: Path) -> list[Path]:
    """The files of an axial series by the place of their image: names and instance numbers prove nothing."""
    places = []
    for path in sorted(folder.rglob("*.dcm")):
        ds = pydicom.dcmread(path, specific_tags=["ImagePositionPatient"])
        places.append((float(ds.ImagePositionPatient[2]), path))
    return [path for _, path in sorted(places)]


def derive(ds: Dataset, number: int, spacing: float) -> Dataset:
    """The same image as a member of the thinned series: new identity, same pixels, same place."""
    pixels = ds.pixel_array.copy()
    ds.StudyInstanceUID = new_uid(ds.StudyInstanceUID, "study")
    ds.SeriesInstanceUID = new_uid(ds.SeriesInstanceUID, "series")
    ds.SOPInstanceUID = new_uid(ds.SOPInstanceUID, "image")
    ds.InstanceNumber = number
    # SliceThickness stays what the scanner reconstructed; only the distance has changed (PS3.3 C.7.6.2.1.1).
    ds.SpacingBetweenSlices = f"{spacing:g}"
    ds.SeriesDescription = f"Chest CT, every {STEP}th image"
    # Image Type stays ORIGINAL: the pixel values are those of the scanner (PS3.3 C.7.6.1.1.2).
    ds.DerivationDescription = f"Every {STEP}th image of the LIDC-IDRI-0314 series, compressed losslessly"
    ds.LossyImageCompression = "00"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    if not np.array_equal(ds.pixel_array, pixels):
        raise SystemExit("the compressed pixels differ from the original ones")
    return ds


def main() -> None:
    """Write the thinned series and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("original", type=Path, help="folder with the 275 original files")
    parser.add_argument("--out", type=Path, default=Path("demo/ct"))
    arguments = parser.parse_args()
    paths = foot_to_head(arguments.original)[FIRST::STEP][:COUNT]
    arguments.out.mkdir(parents=True, exist_ok=True)
    # The original numbers its images from head to feet; so does the copy.
    for number, path in enumerate(reversed(paths), start=1):
        ds = derive(pydicom.dcmread(path), number, spacing=float(STEP))
        ds.save_as(arguments.out / f"{number:03d}.dcm", enforce_file_format=True)
    total = sum(path.stat().st_size for path in arguments.out.glob("*.dcm"))
    print(f"{len(paths)} images, {total / 1e6:.2f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
