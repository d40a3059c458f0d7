"""A folder of DICOM files as the series that routes and models see, without listener or database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node import attributes
from dicom_node.errors import DataSetError
from worker.errors import ConfigurationError
from worker.routing import SeriesView
from worker.series_files import Files


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderSeries:
    """One series that was found."""

    study_instance_uid: str
    view: SeriesView
    paths: tuple[Path, ...]

    @property
    def files(self) -> Files:
        """As a model reads it."""
        return Files(series_instance_uid=self.view.series_instance_uid, paths=self.paths)


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """What a folder holds."""

    series: tuple[FolderSeries, ...]
    #: Files that are no DICOM files, with the reason.
    others: tuple[tuple[Path, str], ...]

    def studies(self) -> list[list[FolderSeries]]:
        """The series of each study."""
        found: dict[str, list[FolderSeries]] = {}
        for series in self.series:
            found.setdefault(series.study_instance_uid, []).append(series)
        return list(found.values())


def files(path: Path) -> list[Path]:
    """The path itself, or every file below it that is not hidden. Raises ConfigurationError."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigurationError(f"{path}: there is no such file or folder")
    found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not found:
        raise ConfigurationError(f"{path}: holds no files")
    return found


def read(path: Path) -> Folder:
    """Group the files of a folder into series by their Study and Series Instance UIDs."""
    groups: dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]] = {}
    others: list[tuple[Path, str]] = []
    for file in files(path):
        try:
            found = dict(attributes.read_attributes(file))
        except DataSetError as error:
            others.append((file, str(error)))
            continue
        key = (str(found.get("StudyInstanceUID") or ""), str(found.get("SeriesInstanceUID") or ""))
        groups.setdefault(key, []).append((file, found))
    series = tuple(_series(study, uid, members) for (study, uid), members in groups.items())
    return Folder(series=series, others=tuple(others))


def _series(study: str, uid: str, members: Iterable[tuple[Path, dict[str, Any]]]) -> FolderSeries:
    """One group of files as a series: the attributes are those of its first file."""
    listed = list(members)
    view = SeriesView(
        series_id=None,
        series_instance_uid=uid,
        attributes={**listed[0][1], "NumberOfSeriesRelatedInstances": len(listed)},
        sop_instance_uids=tuple(str(found.get("SOPInstanceUID") or "") for _, found in listed),
    )
    return FolderSeries(study_instance_uid=study, view=view, paths=tuple(file for file, _ in listed))
