"""`secondread engines bench`: what a model's network takes on each of this machine's engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from worker import edge
from worker.edge import ConfigOption, DataOption, JsonOption

if TYPE_CHECKING:
    from worker.engine_pace import EnginesPace


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(bench)


def bench(
    model: Annotated[str, typer.Argument(help="A package by name, or its folder.")],
    rounds: Annotated[int, typer.Option(min=1, help="Calls that count, after one that does not.")] = 100,
    plot: Annotated[Path | None, typer.Option(help="Write a picture here, PNG or SVG by its name.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model's plan beside the fallback and the reference: latency, throughput, memory, stages."""
    from engines.plans import Plans
    from worker import engine_chart, engine_lines, engine_pace, sheet, shelf

    if plot is not None:
        sheet.check(plot)
    settings = edge.load(config, data)
    package = shelf.find(settings.models, model)
    with Progress(console=edge.errors, transient=True) as progress:
        task = progress.add_task("measuring", total=rounds)
        measured = engine_pace.measure(
            package,
            Plans(folder=settings.plans),
            engines=(engine_lines.compiled_for(settings), "openvino", "onnxruntime"),
            threads=settings.work.threads,
            rounds=rounds,
            progress=lambda number: progress.update(task, completed=number + 1),
        )
    if plot is not None:
        engine_chart.draw(measured, plot)
    if as_json:
        edge.show(measured, as_json=True)
        return
    edge.console.print(
        f"[bold]{measured.model} {measured.version}[/]  patches of {measured.patch}, {measured.rounds} rounds after one"
    )
    edge.console.print(_table(measured))
    for each in measured.engines:
        if each.missing:
            edge.console.print(f"{each.asked} is missing: {each.missing}", markup=False, soft_wrap=True)
        elif each.stages:
            stages = ", ".join(f"{name} {1000 * seconds:.3f}" for name, seconds in each.stages.items())
            edge.console.print(f"{each.engine}, ms of a patch: {stages}", markup=False, soft_wrap=True)


def _table(measured: EnginesPace) -> Table:
    """The engines for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("engine")
    for name in ("p50 ms", "p90 ms", "p99 ms", "patches/s", "x reference", "GPU MB"):
        table.add_column(name, justify="right")
    for each in measured.engines:
        if each.missing:
            continue
        times = (f"{1000 * value:.3f}" for value in (each.p50, each.p90, each.p99))
        memory = "" if each.megabytes is None else f"{each.megabytes:.0f}"
        table.add_row(each.engine, *times, f"{each.per_second:.1f}", f"{each.speed_up:.2f}", memory)
    return table
