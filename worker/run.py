"""`secondread run`: one model on a folder of DICOM files, with the same steps as a routed job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node import results, series
from dicom_node.errors import SeriesError
from dicom_node.results import ResultFile, report
from dicom_node.results.context import ResultContext
from engines import loader, predict
from engines.errors import EngineError
from engines.findings import Findings
from engines.package import ModelPackage
from worker import criteria, folder, pictures, profiles, records, routing, shelf, version
from worker.errors import JobError
from worker.folder import FolderSeries
from worker.settings import Settings
from worker.stopwatch import Stopwatch

#: The report in words, beside the objects.
REPORT = "report.txt"

#: Stage and fraction of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One series' answer."""

    series_instance_uid: str
    folder: Path
    findings: Findings
    files: Sequence[ResultFile]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def run(
    settings: Settings,
    model: str,
    path: Path,
    out: Path,
    *,
    progress: Progress,
    profile: str = profiles.DEFAULT,
) -> tuple[list[Run], list[JobError]]:
    """Run `model` (a name, or a package's folder) on every series under `path` that it takes.

    What is made is what a destination of this profile would get. Objects and pictures go to a folder per
    series under `out`. Returns the answers, and why there is none to a series, or none that may leave:
    another one's is made all the same. Raises JobError where no series fits.
    """
    package = shelf.find(settings.models, model)
    wanted = profiles.kinds(profile, package.manifest.results)
    if not wanted:
        raise JobError(
            "no-results", f"profile {profile} takes nothing that {package.manifest.name} lists as results"
        )
    chosen = _matching(package, folder.read(path))
    with closing(
        loader.open_runner(package, engine=settings.work.engine, threads=settings.work.threads)
    ) as runner:
        runs, refused = [], []
        for number, found in enumerate(chosen, start=1):
            target = out if len(chosen) == 1 else out / f"series-{number}"
            try:
                run = _run_series(
                    package,
                    runner,
                    found,
                    target,
                    wanted=wanted,
                    progress=progress,
                    language=settings.reports.language,
                )
            except (JobError, SeriesError, EngineError) as error:
                refused.append(_refusal(found, error))
            else:
                runs.append(run)
    return runs, refused


def _refusal(found: FolderSeries, error: JobError | SeriesError | EngineError) -> JobError:
    """Why a series has no answer, with its UID."""
    reason = "engine" if isinstance(error, EngineError) else error.reason
    return JobError(reason, f"series {found.view.series_instance_uid}: {error}")


def _matching(package: ModelPackage, found: folder.Folder) -> list[FolderSeries]:
    """The series that the model's input takes. Raises JobError saying why each of the others does not."""
    wanted = criteria.parse(package.manifest.inputs[0].series)
    traces = [(entry, wanted.evaluate(entry.view.attributes)) for entry in found.series]
    chosen = [entry for entry, trace in traces if trace.verdict]
    if not chosen:
        lines = [
            f"  series {entry.view.series_instance_uid or 'without UID'}: {routing.in_words(trace)}"
            for entry, trace in traces
        ]
        lines += [f"  {file.name}: {reason}" for file, reason in found.others[:5]]
        raise JobError(
            "no-series", f"{package.manifest.name} takes none of these series:\n" + "\n".join(lines)
        )
    return chosen


def _run_series(
    package: ModelPackage,
    runner: Any,
    found: FolderSeries,
    out: Path,
    *,
    wanted: tuple[str, ...],
    progress: Progress,
    language: str,
) -> Run:
    """Read, predict, write, verify, draw."""
    watch = Stopwatch()
    with watch("read"):
        source = series.read_series(found.paths, planar=package.manifest.inputs[0].planar)
    progress("read", 1.0)
    findings = predict.predict(
        package, runner, source.volume, progress=lambda done: progress("predict", done)
    )
    watch.add(findings.seconds)
    identity = routing.identity(
        package.digest, found.view.sop_instance_uids, {"series": found.view.series_instance_uid}
    )
    context = ResultContext(
        source=source,
        job_identity=identity,
        model=findings.model,
        engine=findings.engine,
        created_at=datetime.now(UTC),
        secondread_version=version.VERSION,
        language=language,
    )
    with watch("encode"):
        files = results.make_results(context, findings, wanted, out)
    progress("encode", 1.0)
    with watch("pictures"):
        pictures.draw(source.volume, findings, out)
    _write_json(out / "findings.json", findings)
    (out / REPORT).write_text(report.text(report.worded(context, findings)), encoding="utf-8")
    refused = [f"{file.path}: {file.problem}" for file in files if not file.verified]
    if refused:
        raise JobError(
            "gate",
            "these objects do not read back as what was found, and must not be sent:\n" + "\n".join(refused),
        )
    return Run(
        series_instance_uid=found.view.series_instance_uid,
        folder=out,
        findings=findings,
        files=files,
        notes=(*source.notes, *findings.impossible, *results.left_out(context, findings, wanted)),
        seconds=watch.seconds,
    )


def _write_json(path: Path, findings: Findings) -> None:
    """The findings for programs: the same rows that a routed job writes to its database."""
    content = {"model": findings.model.name, "version": findings.model.version, "engine": findings.engine}
    path.write_text(json.dumps({**content, **records.findings(findings)}, indent=2) + "\n", encoding="utf-8")
