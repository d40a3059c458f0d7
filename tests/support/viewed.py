"""Phantoms and what we make of them, in an archive, for a viewer to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node import results, series
from dicom_node.frame_header import frame_number
from dicom_node.results import ResultFile
from dicom_node.senders import Outcome, Verdict, open_sender
from dicom_node.series import SeriesImages
from tests.support import enhanced, phantoms
from tests.support import results as cases
from tests.support.orthanc import Orthanc


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study in an archive: a phantom's series and our results of it, by kind."""

    phantom: phantoms.Phantom
    source: SeriesImages
    #: The source's pixels: (slice, row, column).
    values: NDArray[np.int16]
    #: Of a kind of many files, the last.
    results: dict[str, ResultFile]

    @property
    def uid(self) -> str:
        """Study Instance UID."""
        return str(self.source.datasets[0].StudyInstanceUID)

    def image(self, slice_index: int) -> str:
        """The SOP Instance UID of a slice."""
        return str(self.source.datasets[slice_index].SOPInstanceUID)

    def frame(self, slice_index: int) -> int:
        """Which frame of that instance it is."""
        return frame_number(self.source.datasets[slice_index]) or 1

    def slice_of(self, sop_instance_uid: str, frame: int) -> int:
        """The slice that a frame of an instance shows."""
        shown = [(self.image(index), self.frame(index)) for index in range(len(self.source.datasets))]
        return shown.index((sop_instance_uid, frame))


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
    multi_frame: bool = False,
    **findings: Any,
) -> Study:
    """Make a study of a phantom with results of these kinds, and send all by C-STORE.

    `header` changes each image; with `multi_frame` all are frames of one. `findings` take the place of parts of
    the usual ones, such as `mask`.
    """
    own = replace(phantom, patient_id=folder.name)
    rows, columns = phantom.shape[1:]
    # Brighter from top to bottom and from left to right: the picture, too, shows a flip.
    values = phantoms.asymmetric(phantom.shape)
    values += (8 * np.arange(rows)[:, None] + 12 * np.arange(columns)).astype(np.int16)
    headers = phantoms.datasets(own, values)
    for ds in headers:
        header(ds)
    files = phantoms.write([enhanced.image(headers)] if multi_frame else headers, folder / "source")
    source = series.read_series(files) if multi_frame else cases.series(own, headers)
    context = cases.context(source, job_identity=str(headers[0].StudyInstanceUID))
    made = results.make_results(context, cases.findings(source, **findings), kinds, folder / "results")
    assert {item.kind: item.problem for item in made} == dict.fromkeys(kinds, "")
    send(archive, [*files, *(item.path for item in made)])
    return Study(phantom=own, source=source, values=values, results={item.kind: item for item in made})


def send(archive: Orthanc, paths: list[Path]) -> None:
    """Send files to the archive by C-STORE, as a delivery is sent."""
    outcomes: list[Outcome] = []
    open_sender(archive.destination()).send(paths, outcomes.append)
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}, outcomes
