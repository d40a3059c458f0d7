"""`secondread models bench`: what a model takes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from worker import edge
from worker.edge import ConfigOption, DataOption, JsonOption

if TYPE_CHECKING:
    from worker.pace import StagePace


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(bench)


def bench(
    model: Annotated[str, typer.Argument(help="A package by name, or its folder.")],
    path: Annotated[
        Path | None, typer.Argument(help="DICOM files of a series that it takes. Default: its example.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that count, after one that does not.")] = 10,
    plot: Annotated[Path | None, typer.Option(help="Write a picture here, PNG or SVG by its name.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model: latency, throughput and memory, stage by stage."""
    from worker import pace, pace_chart, sheet, shelf

    if plot is not None:
        sheet.check(plot)
    settings = edge.load(config, data)
    package = shelf.find(settings.models, model)
    with Progress(console=edge.errors, transient=True) as progress:
        task = progress.add_task("measuring", total=repeats + 1)
        measured = pace.measure(
            package,
            path,
            beside=settings.models,
            engine=settings.work.cpu_engine or "openvino",
            threads=settings.work.threads,
            rounds=repeats,
            progress=lambda number: progress.update(task, completed=number + 1),
        )
    if plot is not None:
        pace_chart.draw(measured, plot)
    if as_json:
        edge.show(measured, as_json=True)
        return
    edge.console.print(
        f"[bold]{measured.model} {measured.version}[/]  {measured.engine}, {measured.threads} threads\n"
        f"{measured.input}; {measured.rounds} rounds after one of {measured.first_seconds:.2f} s; "
        f"loaded in {measured.load_seconds:.2f} s, {measured.load_megabytes:.0f} MB"
    )
    edge.console.print(_table(measured.stages))
    edge.console.print(f"{measured.per_minute:.1f} a minute, one after the other")


def _table(stages: list[StagePace]) -> Table:
    """The stages for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in ("median s", "p90 s", "longest s", "share", "peak MB"):
        table.add_column(name, justify="right")
    for each in stages:
        peak = "" if each.peak_megabytes is None else f"{each.peak_megabytes:.0f}"
        times = (f"{value:.3f}" for value in (each.median, each.p90, each.longest))
        table.add_row(each.stage, *times, f"{each.share:.0%}", peak)
    return table
