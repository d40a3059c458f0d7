"""Findings -> result files: built, written, read back and compared, one object per kind, or one series."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.errors import GateError, SeriesError
from dicom_node.results import files, kinds, not_performed, verify
from dicom_node.results.context import KINDS, NOT_PERFORMED, ResultContext
from dicom_node.results.not_performed import Failure
from engines.findings import Findings

__all__ = [
    "KINDS",
    "NOT_PERFORMED",
    "Failure",
    "ResultContext",
    "ResultFile",
    "left_out",
    "make_failure",
    "make_results",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultFile:
    """One result object on disk, and whether it may leave."""

    #: One of `KINDS`, or `NOT_PERFORMED`.
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
    context: ResultContext, findings: Findings, wanted: Sequence[str], folder: Path
) -> list[ResultFile]:
    """Write the wanted kinds of objects into `folder`, each under the name of its kind.

    A kind of many objects has a folder of that name, and in it 0001.dcm and so on: all are there, or none.
    `wanted` are of `KINDS`; what others refer to is made first. Where the findings have nothing for a kind
    (no voxel, no Segmentation) there is no object of it, and the report says what was looked for. A file
    that does not pass the gate is kept and says why in `problem`. What cannot be expressed on the source, or is
    too much for a kind (`left_out`), is not made. Raises SeriesError where that is all that is wanted,
    ValueError for an unknown kind.
    """
    unknown = set(wanted) - set(KINDS)
    if unknown:
        raise ValueError(f"no such kind of result: {', '.join(sorted(unknown))}")
    impossible = _impossible(context, findings, wanted)
    if wanted and len(impossible) == len(set(wanted)):
        name, reason = next(iter(impossible.items()))
        raise SeriesError(_word(context, name), reason)
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, list[ResultFile]] = {}
    made: dict[str, Dataset] = {}
    for name, kind in kinds.MADE.items():
        if name not in wanted or name in impossible:
            continue
        if isinstance(kind, kinds.SeriesKind):
            parts = _write_series(name, kind, context, findings, folder / name)
            if parts:
                written[name], made[name] = parts
            continue
        ds = kind.writer.build(context, findings, made)
        if ds is not None:
            gate = partial(verify.check, kind=name, context=context, findings=findings, made=tuple(made))
            file = _write(ds, name, folder / f"{name}.dcm", gate)
            referred = [one for other in kind.refers_to for one in written.get(other, ())]
            written[name] = [_held_back(file, referred)]
            made[name] = ds
    return list(chain.from_iterable(written.values()))


def _write_series(
    name: str, kind: kinds.SeriesKind, context: ResultContext, findings: Findings, folder: Path
) -> tuple[list[ResultFile], Dataset] | None:
    """Write the objects of a kind one by one: the files, and the object that stands for all, or None."""
    files_, standing = [], None
    check, middle = None, kind.writer.middle(context)
    for number, ds in enumerate(kind.writer.each(context, findings)):
        if check is None:
            folder.mkdir(exist_ok=True)
            check = kind.gate.checker(context, findings)
        gate = partial(verify.check_part, kind=name, number=number, context=context, own=check)
        files_.append(_write(ds, name, folder / f"{number + 1:04d}.dcm", gate))
        standing = ds if number == middle or standing is None else standing
    return None if standing is None else (files_, standing)


def make_failure(failure: Failure, folder: Path) -> ResultFile:
    """Write into `folder` the document that says that there is no answer."""
    folder.mkdir(parents=True, exist_ok=True)
    gate = partial(verify.check_failure, failure=failure)
    return _write(not_performed.build(failure), NOT_PERFORMED, folder / failure.file_name, gate)


def left_out(context: ResultContext, findings: Findings, wanted: Collection[str]) -> tuple[str, ...]:
    """What is not made though it is wanted, each with its reason, for people.

    The source cannot carry it, or the findings are too much for it: an outline has as many points as a mask is
    ragged. The report says so of the Segmentation.
    """
    return tuple(f"no {kind}: {reason}" for kind, reason in _impossible(context, findings, wanted).items())


def _impossible(context: ResultContext, findings: Findings, wanted: Collection[str]) -> dict[str, str]:
    """The wanted kinds that the source cannot carry, or the findings are too much for, and why."""
    reasons = {
        name: kind.unfit(context) or kind.excessive(findings)
        for name, kind in kinds.MADE.items()
        if name in wanted
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _word(context: ResultContext, kind: str) -> str:
    """The stable word for why a kind is left out."""
    if not kinds.MADE[kind].unfit(context):
        return "ragged-mask"
    return "mixed-rescale" if context.frame_of_reference_uid else "no-frame-of-reference"


def _write(ds: Dataset, kind: str, path: Path, gate: Callable[[bytes], None]) -> ResultFile:
    """Write one object, read it back and compare; `ds` loses its pixels."""
    files.write(ds, path)
    for keyword in {"PixelData", "FloatPixelData"} & {element.keyword for element in ds}:
        # The pixels are on disk now, where the gate reads them; what refers to it needs only the identity.
        delattr(ds, keyword)
    raw = path.read_bytes()
    problem = ""
    try:
        gate(raw)
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


def _held_back(file: ResultFile, referred: Sequence[ResultFile]) -> ResultFile:
    """The file, unverified where an object that it refers to may not leave."""
    failed = dict.fromkeys(other.kind for other in referred if not other.verified)
    if file.verified and failed:
        return replace(
            file, verified=False, problem=f"it refers to {', '.join(failed)}, which failed the read-back"
        )
    return file
