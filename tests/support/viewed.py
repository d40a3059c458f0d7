"""Phantoms and what we make of them, in an archive, for a viewer to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.results import ResultFile
from dicom_node.senders import Outcome, Verdict, open_sender
from dicom_node.series import SeriesImages
from tests.support import phantoms
from tests.support import results as cases
from tests.support.orthanc import Orthanc


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study in an archive: a phantom's series and our results of it, by kind."""

    phantom: phantoms.Phantom
    source: SeriesImages
    #: The source's pixels: (slice, row, column).
    values: NDArray[np.int16]
    results: dict[str, ResultFile]

    @property
    def uid(self) -> str:
        """Study Instance UID."""
        return str(self.source.datasets[0].StudyInstanceUID)

    def image(self, slice_index: int) -> str:
        """The SOP Instance UID of a slice."""
        return str(self.source.datasets[slice_index].SOPInstanceUID)

    def slice_of(self, sop_instance_uid: str) -> int:
        """The slice that an image shows."""
        return [str(ds.SOPInstanceUID) for ds in self.source.datasets].index(sop_instance_uid)


def as_it_is(ds: Dataset) -> None:
    """Leave a header as the phantom has it."""


def as_mr(ds: Dataset) -> None:
    """Make the CT phantom's header an MR image's (PS3.3 A.4), which knows no Hounsfield units."""
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    ds.Modality = "MR"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", ""
    ds.MRAcquisitionType, ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = "2D", "10", "500", "1"
    for keyword in ("KVP", "RescaleIntercept", "RescaleSlope", "RescaleType"):
        delattr(ds, keyword)


def store(
    archive: Orthanc,
    folder: Path,
    phantom: phantoms.Phantom,
    kinds: Sequence[str],
    *,
    header: Callable[[Dataset], None] = as_it_is,
    mask: NDArray[np.uint8] | None = None,
) -> Study:
    """Make a study of a phantom with results of these kinds, and send all by C-STORE.

    `header` changes each image; `mask` takes the place of the phantom's own three blocks.
    """
    own = replace(phantom, patient_id=folder.name)
    rows, columns = phantom.shape[1:]
    # Brighter from top to bottom and from left to right: the picture, too, shows a flip.
    values = phantoms.asymmetric(phantom.shape)
    values += (8 * np.arange(rows)[:, None] + 12 * np.arange(columns)).astype(np.int16)
    headers = phantoms.datasets(own, values)
    for ds in headers:
        header(ds)
    source = cases.series(own, headers)
    context = cases.context(source, job_identity=str(headers[0].StudyInstanceUID))
    findings = cases.findings(source) if mask is None else cases.findings(source, mask=mask)
    made = results.make_results(context, findings, kinds, folder / "results")
    assert [item.problem for item in made] == [""] * len(kinds)
    send(archive, [*phantoms.write(headers, folder / "source"), *(item.path for item in made)])
    return Study(phantom=own, source=source, values=values, results={item.kind: item for item in made})


def send(archive: Orthanc, paths: list[Path]) -> None:
    """Send files to the archive by C-STORE, as a delivery is sent."""
    outcomes: list[Outcome] = []
    open_sender(archive.destination()).send(paths, outcomes.append)
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}, outcomes
