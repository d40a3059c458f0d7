"""A model looks at its series: the first is kept for the results, the others are read one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset

from dicom_node import series as dicom_series
from dicom_node.errors import SeriesError
from dicom_node.moments import Wanted
from dicom_node.series import SeriesImages
from engines import cascade, clips, moments
from engines.cascade import Stage
from engines.errors import EngineError, RoleError
from engines.findings import Findings
from engines.manifest import Manifest
from engines.manifest_inputs import Input
from engines.volume import Volume
from worker.series_files import Files
from worker.stopwatch import Stopwatch

#: Reads the files of a series as an input wants them. Raises SeriesError, and OSError where one cannot be read.
Read = Callable[[Files, Input], SeriesImages]


def read_files(files: Files, entry: Input) -> SeriesImages:
    """What is in the files, read now."""
    wanted = None
    if entry.moments is not None:
        wanted = Wanted(by=entry.moments.by, choice=moments.choice(entry.moments))
    return dicom_series.read_series(
        files.paths, planar=entry.planar, frames=clips.choice(entry), wanted=wanted, values=entry.values
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """What a model found, and what it looked at."""

    #: The first input's series, which was answered about.
    source: SeriesImages
    #: Of the others, by role: a header for each image.
    others: Mapping[str, Sequence[Dataset]]
    findings: Findings
    #: What it ran on, as the results have it.
    engine: str


def answer(
    stage: Stage,
    files: Mapping[str, Files],
    watch: Stopwatch,
    *,
    read: Read,
    parameters: Mapping[str, Any],
    progress: Callable[[str, float], None] | None,
) -> Answered:
    """Files -> volumes -> findings. `files` are by role, in the order of the manifest's inputs.

    `parameters` are what the model is given instead of its manifest's own values.
    Raises SeriesError and EngineError; of several series they say which.
    """
    report = progress or _ignore
    manifest = stage.package.manifest
    with watch("read"):
        source = _read(manifest, 0, files, read)
    report("read", 1.0)
    others = _Others(manifest, files, read)
    try:
        findings = cascade.predict_all(
            stage,
            source.volume,
            others,
            parameters=parameters,
            progress=lambda done: report("predict", done),
        )
    except RoleError as error:
        raise EngineError(f"{error}{_named(error.roles, files)}") from error
    watch.add(findings.seconds)
    watch.add(others.share(findings.seconds.get("preprocess", 0.0)))
    # What was odd about any of them belongs into the answer.
    whole = replace(source, notes=(*source.notes, *others.notes))
    return Answered(source=whole, others=others.headers, findings=findings, engine=findings.engine)


class _Others(Mapping[str, Volume]):
    """The volumes of a model's further series by role: each is read when it is asked for, and not kept."""

    def __init__(self, manifest: Manifest, files: Mapping[str, Files], read: Read) -> None:
        self._manifest = manifest
        self._files = files
        self._read = read
        self._positions = {entry.called: place for place, entry in enumerate(manifest.inputs) if place}
        self.headers: dict[str, Sequence[Dataset]] = {}
        self._notes: dict[str, list[str]] = {}
        self._seconds = 0.0

    def __getitem__(self, role: str) -> Volume:
        began = time.perf_counter()
        images = _read(self._manifest, self._positions[role], self._files, self._read)
        self.headers[role] = images.instances
        self._notes[role] = [f"{role}: {note}" for note in images.notes]
        self._seconds += time.perf_counter() - began
        return images.volume

    @property
    def notes(self) -> list[str]:
        """What was odd about them, once each, however often they were read."""
        return [note for notes in self._notes.values() for note in notes]

    def __contains__(self, role: object) -> bool:
        return role in self._positions and role in self._files

    def __iter__(self) -> Iterator[str]:
        return (role for role in self._positions if role in self._files)

    def __len__(self) -> int:
        return sum(role in self._files for role in self._positions)

    def share(self, preprocess: float) -> dict[str, float]:
        """What to add to a prediction's seconds: that they were read in its midst was no preprocessing.

        Of `preprocess` no more than there is: earlier models of a cascade read them too, in their own time.
        """
        return {"read": self._seconds, "preprocess": -min(self._seconds, preprocess)} if self.headers else {}


def _read(manifest: Manifest, position: int, files: Mapping[str, Files], read: Read) -> SeriesImages:
    """The series of one input; of several, a refusal says which it is."""
    entry = manifest.inputs[position]
    alone = len(manifest.inputs) == 1
    own = next(iter(files.values())) if alone else files[entry.called]
    try:
        return read(own, entry)
    except SeriesError as error:
        if alone:
            raise
        raise SeriesError(error.reason, f"{entry.called}: {error}{_named((entry.called,), files)}") from error


def _named(roles: Sequence[str], files: Mapping[str, Files]) -> str:
    """Which series these roles are, for the end of a sentence about them."""
    known = [f"{role} is series {files[role].series_instance_uid}" for role in roles if role in files]
    return f" ({', '.join(known)})" if known else ""


def _ignore(_stage: str, _done: float) -> None:
    """Progress that nobody watches."""
