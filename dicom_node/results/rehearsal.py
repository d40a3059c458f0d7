"""Results of a study of eight voxels, so that the first real ones find everything loaded."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicom_node import results
from dicom_node.results import ResultContext, ResultFile
from dicom_node.series import SeriesImages
from engines.findings import PROBABILITY, Code, Findings, Map, Measurement, ModelIdentity, Segment
from engines.volume import Geometry, Volume

_SHAPE = (2, 2, 2)
_MODEL = ModelIdentity(name="rehearsal", version="1", manufacturer="secondread", digest="0" * 64)
_CODE = Code(value="85756007", scheme="SCT", meaning="Tissue")


def rehearse() -> list[ResultFile]:
    """Make every kind of result in a folder that is gone afterwards.

    highdicom reads its tables of the standard when they are first needed, which takes a third of a
    second. Raises OSError where there is no room for temporary files.
    """
    geometry = Geometry(shape=_SHAPE, affine=np.eye(4), frame_of_reference_uid="2.25.1")
    findings = Findings(
        model=_MODEL,
        geometry=geometry,
        mask=np.ones(_SHAPE, np.uint8),
        segments=(Segment(number=1, label="Tissue", category=_CODE, type=_CODE),),
        measurements=(Measurement(key="size", name=_CODE, value=1.0, unit=_CODE, segment_number=1),),
        image=Volume(array=np.ones(_SHAPE, np.float32), geometry=geometry),
        maps=(
            Map(
                key="tissue",
                name=PROBABILITY,
                unit=_CODE,
                segment_number=1,
                array=np.ones(_SHAPE, np.float32),
            ),
        ),
    )
    context = ResultContext(
        source=SeriesImages(
            volume=Volume(array=np.zeros(_SHAPE, np.int16), geometry=geometry),
            datasets=tuple(_image(index) for index in range(_SHAPE[0])),
        ),
        job_identity="rehearsal",
        model=_MODEL,
        engine="none",
        created_at=datetime.now(UTC),
        secondread_version="0",
    )
    with tempfile.TemporaryDirectory(prefix="secondread-rehearsal-") as folder:
        return results.make_results(context, findings, results.KINDS, Path(folder))


def _image(index: int) -> Dataset:
    """The header of a slice on the geometry of `rehearse`: indices are millimetres."""
    image = Dataset()
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = f"2.25.{index + 10}"
    image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.2", "2.25.3"
    image.Modality, image.PhotometricInterpretation = "CT", "MONOCHROME2"
    image.Rows, image.Columns = _SHAPE[1:]
    image.PixelSpacing, image.SliceThickness = [1, 1], 1
    image.FrameOfReferenceUID = "2.25.1"
    # The affine's columns are the directions from slice to slice, row to row and column to column.
    image.ImageOrientationPatient = [0, 0, 1, 0, 1, 0]
    image.ImagePositionPatient = [index, 0, 0]
    return image
