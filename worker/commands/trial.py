"""Commands to try it: the demo, and one model on a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress

from engines import printing
from worker import edge, logs, profiles, words
from worker.edge import ConfigOption, DataOption
from worker.errors import WorkerError


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(demo)
    app.command()(run)


def demo(
    out: Annotated[Path, typer.Option(help="Where pictures, report and storage go.")] = Path(
        "secondread-demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C.")] = False,
) -> None:
    """Show the main job on the shipped real CT: in by C-STORE, a model, SEG and SR back, pictures."""
    from worker import demo as showing

    logs.set_up("demo")
    showing.run(out, keep=keep, console=edge.console)


def run(
    model: Annotated[str, typer.Argument(help="A package's name, or its folder.")],
    path: Annotated[Path, typer.Argument(help="A folder of DICOM files.")],
    out: Annotated[Path, typer.Option("--out", help="Where the objects go.")],
    profile: Annotated[
        str, typer.Option(help=f"What a peer of this profile would get: {', '.join(profiles.NAMES)}.")
    ] = profiles.DEFAULT,
    given: Annotated[
        list[str] | None, typer.Option("--parameter", help="name=value for one of its prompts; repeatable.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Run one model on a folder of DICOM files; objects, pictures, report.txt and findings.json go to --out."""
    from worker import run as running

    if profile not in profiles.NAMES:
        raise typer.BadParameter(f"there is no profile {profile}; one of {', '.join(profiles.NAMES)}")
    logs.set_up("run")
    settings = edge.load(config, data)
    with Progress(console=edge.errors, transient=True) as progress:
        tasks: dict[str, object] = {}

        def report(stage: str, done: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0)
            progress.update(tasks[stage], completed=done)  # type: ignore[arg-type]

        try:
            runs, refused = running.run(
                settings, model, path, out, profile=profile, given=given or (), progress=report
            )
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise WorkerError(f"--out {out}: {said}: name a folder that can be written") from error
    for finished in runs:
        _print_run(finished)
    if refused:
        raise WorkerError("\n".join(map(str, refused)))


def _print_run(finished: object) -> None:
    """What one series gave, or several."""
    from worker.run import REPORT, Run

    assert isinstance(finished, Run)
    engine = escape(finished.findings.engine)
    edge.console.print(f"[bold]series {finished.series_instance_uid}[/]  {engine}", soft_wrap=True)
    if len(finished.roles) > 1:
        edge.console.print("  looks at " + ", ".join(f"{role} {uid}" for role, uid in finished.roles.items()))
    for note in finished.notes:
        edge.console.print(f"  note: {note}", markup=False)
    labels = {segment.number: segment.label for segment in finished.findings.segments}
    for measured in finished.findings.measurements:
        where = labels[measured.segment_number] if measured.segment_number else words.TOGETHER
        derived = f", {measured.derivation.meaning.lower()}" if measured.derivation else ""
        if measured.about is not None:
            where = measured.about.meaning
        value = f"{measured.value:.{1 if measured.about is None else 3}f} {printing.unit(measured.unit.value)}".strip()
        edge.console.print(f"  {measured.name.meaning}{derived}, {where}: {value}", markup=False)
    for finding in finished.findings.findings:
        presence = "present" if finding.present else "absent"
        edge.console.print(f"  {finding.code.meaning}: {presence} ({finding.explanation})", markup=False)
    seconds = ", ".join(f"{stage} {value:.2f}" for stage, value in finished.seconds.items())
    edge.console.print(f"  seconds: {seconds}")
    edge.console.print(f"  report in words  {finished.folder / REPORT}", markup=False)
    for kind in dict.fromkeys(file.kind for file in finished.files):
        paths = [file.path for file in finished.files if file.kind == kind]
        where = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent}  ({len(paths)} images)"
        edge.console.print(f"  {kind.upper()}  {where}", markup=False)
