"""Findings -> result files: built, written, read back and compared, one object per kind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import files, seg, sr, verify
from dicom_node.results.context import KINDS, ResultContext
from engines.findings import Findings

__all__ = ["KINDS", "ResultContext", "ResultFile", "make_results"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultFile:
    """One result object on disk, and whether it may leave."""

    #: "seg" or "sr".
    kind: str
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    #: SHA-256 of the whole file as read back, lower-case hex.
    sha256: str
    #: Bytes on disk.
    size: int
    #: True where it read back as what it was made of; only then may it be sent.
    verified: bool
    #: Why it was not verified, for people; no patient data. "" where it was.
    problem: str = ""


def make_results(
    context: ResultContext, findings: Findings, kinds: Sequence[str], folder: Path
) -> list[ResultFile]:
    """Write the wanted kinds of objects into `folder`, each under the name of its kind.

    `kinds` are of `KINDS`; the Segmentation is made first, since the report refers to it. Where no voxel is
    segmented there is no Segmentation and the report says what was looked for. A file that does not
    pass the gate is kept and says why in `problem`. Raises SeriesError where the source cannot
    carry results, ValueError for an unknown kind.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"no such kind of result: {', '.join(sorted(unknown))}")
    folder.mkdir(parents=True, exist_ok=True)
    made: list[ResultFile] = []
    segmentation: Dataset | None = None
    if "seg" in kinds and seg.has_voxels(findings):
        segmentation = seg.build(context, findings)
        made.append(_write(segmentation, "seg", context, findings, folder, segmented=True))
    if "sr" in kinds:
        report = sr.build(context, findings, segmentation)
        written = _write(report, "sr", context, findings, folder, segmented=segmentation is not None)
        made.append(_held_back(written, made))
    return made


def _write(
    ds: Dataset, kind: str, context: ResultContext, findings: Findings, folder: Path, *, segmented: bool
) -> ResultFile:
    """Write one object, read it back and compare; `ds` loses its pixels."""
    path = folder / f"{kind}.dcm"
    files.write(ds, path)
    if "PixelData" in ds:
        # The pixels are on disk now, where the gate reads them; the report needs only the identity.
        del ds.PixelData
    raw = path.read_bytes()
    problem = ""
    try:
        verify.check(raw, kind, context, findings, segmented)
    except GateError as exc:
        problem = str(exc)
    return ResultFile(
        kind=kind,
        path=path,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        sha256=hashlib.sha256(raw).hexdigest(),
        size=len(raw),
        verified=not problem,
        problem=problem,
    )


def _held_back(report: ResultFile, before: Sequence[ResultFile]) -> ResultFile:
    """The report, unverified where the Segmentation that it refers to may not leave."""
    if report.verified and any(not other.verified for other in before):
        return replace(
            report, verified=False, problem="the Segmentation that it refers to failed its read-back"
        )
    return report
