"""`secondread run`: one model on a folder of DICOM files, with the same steps as a routed job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node import results
from dicom_node.errors import SeriesError
from dicom_node.results import ResultFile, report
from dicom_node.results.context import ResultContext
from engines.errors import EngineError
from engines.findings import Findings
from engines.package import ModelPackage
from worker import (
    casting,
    criteria,
    device,
    folder,
    parameters,
    pictures,
    profiles,
    records,
    shelf,
    stand_in,
    subjects,
    version,
)
from worker.casting import InputRule
from worker.errors import JobError
from worker.folder import FolderSeries
from worker.settings import Settings
from worker.stopwatch import Stopwatch

#: The report in words, beside the objects.
REPORT = "report.txt"

#: Stage and fraction of it that is done.
Progress = Callable[[str, float], None]

#: The series that a model looks at, by role, the one that results lie on first.
Chosen = Mapping[str, FolderSeries]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One series' answer."""

    #: Of the series that the objects lie on.
    series_instance_uid: str
    #: Series Instance UIDs by the model's roles.
    roles: Mapping[str, str]
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
    given: Sequence[str] = (),
) -> tuple[list[Run], list[JobError]]:
    """Run `model` (a name, or a package's folder) on every series under `path` that it takes.

    One of several series is run on each study that has them all. `given` are its parameters, each "name=value".

    What is made is what a destination of this profile would get. Objects and pictures go to a folder per
    series under `out`. Returns the answers, and why there is none to a series, or none that may leave:
    another one's is made all the same. Raises JobError where no series fits.
    """
    package = shelf.find(settings.models, model)
    asked = parameters.parse(given, package.manifest)
    wanted = profiles.kinds(profile, package.manifest.results)
    if not wanted:
        raise JobError(
            "no-results", f"profile {profile} takes nothing that {package.manifest.name} lists as results"
        )
    chosen, refused = _matching(package, folder.read(path))
    if not chosen:
        return [], refused
    kind = "series" if len(package.manifest.inputs) == 1 else "study"
    opened = shelf.holding(
        package,
        settings.models,
        engine=settings.work.cpu_engine,
        threads=settings.work.threads,
        device=device.of(settings),
    )
    with closing(opened):
        # What cannot be opened is said once, and not of each series.
        opened.stage(package.manifest.name)
        runs = []
        for number, found in enumerate(chosen, start=1):
            target = out if len(chosen) == 1 else out / f"{kind}-{number}"
            try:
                run = _run_series(
                    opened,
                    package,
                    found,
                    target,
                    wanted=wanted,
                    given=asked,
                    progress=progress,
                    language=settings.reports.language,
                )
            except (JobError, SeriesError, EngineError) as error:
                refused.append(_refusal(found, error))
            else:
                runs.append(run)
    return runs, refused


def _refusal(chosen: Chosen, error: JobError | SeriesError | EngineError) -> JobError:
    """Why a series has no answer, with its UID."""
    reason = "engine" if isinstance(error, EngineError) else error.reason
    return JobError(reason, f"series {_first(chosen).view.series_instance_uid}: {error}")


def _matching(package: ModelPackage, found: folder.Folder) -> tuple[list[Chosen], list[JobError]]:
    """What the model looks at, and why it cannot look at a study of which some series fit.

    Raises JobError where nothing fits, saying why of each series.
    """
    rules = shelf.input_rules(package)
    chosen: list[Chosen] = []
    refused: list[JobError] = []
    if len(rules) == 1:
        chosen += [{rules[0].role: entry} for entry in found.series if _fits(rules[0], entry)]
    else:
        chosen, refused = _by_study(package, rules, found)
    if chosen or refused:
        return chosen, refused
    lines = [
        f"  series {entry.view.series_instance_uid or 'without UID'}: {_against(rules, entry)}"
        for entry in found.series
    ]
    lines += [f"  {file.name}: {reason}" for file, reason in found.others[:5]]
    raise JobError("no-series", f"{package.manifest.name} takes none of these series:\n" + "\n".join(lines))


def _by_study(
    package: ModelPackage, rules: Sequence[InputRule], found: folder.Folder
) -> tuple[list[Chosen], list[JobError]]:
    """For a model of several series: those of each study, or why not."""
    chosen: list[Chosen] = []
    refused: list[JobError] = []
    for study in found.studies():
        made = casting.cast(rules, [entry.view for entry in study])
        known = {entry.view.series_instance_uid: entry for entry in study}
        if not made.problem:
            chosen.append({role: known[view.series_instance_uid] for role, view in made.taken.items()})
        elif any(made.chosen.values()):
            words = f"study {study[0].study_instance_uid}: {package.manifest.name} cannot look at it: {made.problem}"
            refused.append(JobError("no-series", words))
    return chosen, refused


def _fits(rule: InputRule, entry: FolderSeries) -> bool:
    return rule.series.evaluate(entry.view.attributes).verdict


def _against(rules: Sequence[InputRule], entry: FolderSeries) -> str:
    """Why no input takes a series."""
    said = {rule.role: criteria.in_words(rule.series.evaluate(entry.view.attributes)) for rule in rules}
    return "; ".join(f"as {role} {words}" if len(said) > 1 else words for role, words in said.items())


def _run_series(
    opened: shelf.Shelf,
    package: ModelPackage,
    chosen: Chosen,
    out: Path,
    *,
    wanted: tuple[str, ...],
    given: Mapping[str, Any],
    progress: Progress,
    language: str,
) -> Run:
    """Read, predict, write, verify, draw."""
    watch = Stopwatch()
    files = {role: entry.files for role, entry in chosen.items()}
    with opened.at_work():
        answered = stand_in.answer(
            opened, package.manifest.name, files, watch, parameters=given, progress=progress
        )
    source, findings = answered.source, answered.findings
    context = ResultContext(
        source=source,
        others=answered.others,
        job_identity=subjects.identity(
            package.digest, {role: entry.view for role, entry in chosen.items()}, given
        ),
        model=findings.model,
        engine=answered.engine,
        parameters=given,
        created_at=datetime.now(UTC),
        secondread_version=version.VERSION,
        language=language,
    )
    with watch("encode"):
        made = results.make_results(context, findings, wanted, out)
    progress("encode", 1.0)
    with watch("pictures"):
        pictures.draw(source.volume, findings, out)
    _write_json(out / "findings.json", findings)
    (out / REPORT).write_text(report.text(report.worded(context, findings)), encoding="utf-8")
    _require_verified(made)
    return Run(
        series_instance_uid=_first(chosen).view.series_instance_uid,
        roles={role: entry.view.series_instance_uid for role, entry in chosen.items()},
        folder=out,
        findings=findings,
        files=made,
        notes=(*source.notes, *findings.impossible, *results.left_out(context, findings, wanted)),
        seconds=watch.seconds,
    )


def _require_verified(made: Sequence[ResultFile]) -> None:
    """Raise JobError where an object may not leave."""
    refused = [f"{file.path}: {file.problem}" for file in made if not file.verified]
    if refused:
        raise JobError(
            "gate",
            "these objects do not read back as what was found, and must not be sent:\n" + "\n".join(refused),
        )


def _first(chosen: Chosen) -> FolderSeries:
    """The series that results lie on."""
    return next(iter(chosen.values()))


def _write_json(path: Path, findings: Findings) -> None:
    """The findings for programs: the same rows that a routed job writes to its database."""
    content = {"model": findings.model.name, "version": findings.model.version, "engine": findings.engine}
    path.write_text(json.dumps({**content, **records.findings(findings)}, indent=2) + "\n", encoding="utf-8")
