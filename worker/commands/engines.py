"""Commands about models compiled for a GPU: build, list, verify."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from worker import edge, words
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import WorkerError

if TYPE_CHECKING:
    from engines.manifest_gpu import Precision
    from engines.package import ModelPackage
    from engines.plans import Plans, Record, Target
    from worker.model_views import EnginesView, PlanLine
    from worker.settings import Settings
    from worker.shelf import Shelf

app = typer.Typer(no_args_is_help=True)

ModelsArgument = Annotated[
    list[str] | None, typer.Argument(help="Packages by name, or their folders. Default: all.")
]

_SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_PRECISIONS = (*_SHORT.values(), *_SHORT)

#: What to do where the compiler refused the network.
_NOT_BUILT = (
    "jobs run on the fallback. Export the network without that, or `secondread engines build --again`"
)

#: What to do where the parity gate refused a plan.
_REFUSED = (
    "jobs run on the fallback. Ask for more bits in its model.yaml (gpu: {precision: float32}) and build it again; "
    "or, where such a difference is none to its readers, allow it there (gpu.tolerance, gpu.min_dice)"
)


def _precision(value: str | None) -> str | None:
    """The precision that is meant. Raises BadParameter."""
    if value is None or value in _PRECISIONS:
        return value if value is None else _SHORT.get(value, value)
    raise typer.BadParameter(f"there is no precision {value!r}; write one of {', '.join(_PRECISIONS)}")


@app.command("build")
def build(
    models: ModelsArgument = None,
    precision: Annotated[
        str | None,
        typer.Option(
            callback=_precision,
            help="float32, float16 or bfloat16 (fp32, fp16, bf16). Default: the manifest's.",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what is there already.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Compile models for this machine's GPU, and compare each with the reference engine."""
    from engines import gpu
    from engines.plans import Plans
    from worker import engine_lines, gate

    settings = edge.load(config, data)
    packages, problems = _chosen(settings, models)
    engine, kept = engine_lines.compiled_for(settings), Plans(folder=settings.plans)
    # Where there is no GPU, that is the one thing to say.
    target = gpu.target(engine)
    edge.errors.print(f"for {target}", markup=False)

    def prepared(package: ModelPackage) -> list[Record]:
        with _progress(package.manifest.name) as progress:
            record = gate.prepare(
                package,
                kept,
                engine=engine,
                precision=cast("Precision | None", precision),
                again=again,
                beside=settings.models,
                threads=settings.work.threads,
                progress=progress,
            )
        return [record]

    for line in _lines(packages, prepared, problems):
        _say(line)
    _end(problems)


@app.command("list")
def list_engines(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List what models can run on here, and what is compiled for any GPU; say what is missing."""
    from worker import engine_lines
    from worker.shelf import Shelf

    settings = edge.load(config, data)
    machine, target = engine_lines.look(engine_lines.compiled_for(settings))
    view = engine_lines.view(settings, Shelf(settings.models).packages, machine=machine, target=target)
    if as_json:
        edge.show(view, as_json=True)
        return
    _say_machine(view)
    for plan in view.plans:
        edge.console.print()
        _say(plan)
    if not view.plans:
        edge.console.print("no model is compiled for a GPU")


@app.command("verify")
def verify(
    models: ModelsArgument = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the plans of this machine's GPU with the reference engine anew."""
    from engines import gpu
    from engines.errors import PlanError
    from engines.plans import Plans
    from worker import engine_lines, gate

    settings = edge.load(config, data)
    packages, problems = _chosen(settings, models)
    target, kept = gpu.target(engine_lines.compiled_for(settings)), Plans(folder=settings.plans)

    def judged(package: ModelPackage) -> list[Record]:
        records = _of(package, kept, target)
        if models and not records:
            name = package.manifest.name
            raise PlanError(f"there is no plan for {target}: run `secondread engines build {name}`")
        judge = partial(gate.judge, package, kept, beside=settings.models, threads=settings.work.threads)
        return [record if record.failure else judge(record) for record in records]

    lines = [*_lines(packages, judged, problems)]
    if as_json:
        edge.show(lines, as_json=True)
    for line in lines if not as_json else ():
        _say(line)
    if not lines and not problems:
        said = f"there is no plan for {target}: `secondread engines build` makes them"
        edge.errors.print(said, markup=False, soft_wrap=True)
    _end(problems)


def _lines(
    packages: Sequence[ModelPackage], work: Callable[[ModelPackage], list[Record]], problems: list[str]
) -> Iterator[PlanLine]:
    """What `work` makes of each package; `problems` gets what went wrong, and what the gate refused."""
    from engines.errors import DeviceLost, EngineError
    from worker import engine_lines

    for package in packages:
        try:
            records = work(package)
        except DeviceLost:
            raise
        except EngineError as error:
            problems.append(f"{package.manifest.name}: {error}")
            continue
        yield from (engine_lines.line(record, package, here=True) for record in records)
        problems += [
            f"{record.model}, {record.key.precision}: {record.state}: {_NOT_BUILT if record.failure else _REFUSED}"
            for record in records
            if not record.serves
        ]


def _chosen(settings: Settings, names: Sequence[str] | None) -> tuple[list[ModelPackage], list[str]]:
    """The packages that are meant, each after those that it needs, and what is wrong with others."""
    from worker import shelf

    if not names:
        every = shelf.Shelf(settings.models)
        return [*every.packages.values()], [str(problem) for problem in every.problems]
    chosen: dict[str, ModelPackage] = {}
    for name in names:
        package = shelf.find(settings.models, name)
        held = shelf.holding(package, settings.models)
        for needed in _with_needed(held, held.package(package.manifest.name)):
            chosen.setdefault(needed.manifest.name, needed)
    return [*chosen.values()], []


def _with_needed(held: Shelf, package: ModelPackage) -> Iterator[ModelPackage]:
    """The models that a package needs, and then itself."""
    for other in package.manifest.others:
        yield from _with_needed(held, held.package(other.model))
    yield package


def _of(package: ModelPackage, kept: Plans, target: Target) -> list[Record]:
    """What there is of a package as it is now for this machine, what the compiler refused included."""
    return [
        record
        for record in kept.records()
        if record.key.target == target and record.key.model_digest == package.digest
    ]


def _end(problems: Sequence[str]) -> None:
    if problems:
        raise WorkerError("\n".join(problems))


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str, float], None]]:
    """The compiler's phases: a bar on a terminal, a line for each elsewhere."""
    if not edge.errors.is_terminal:
        said: set[str] = set()

        def tell(phase: str, done: float) -> None:
            if phase not in said:
                said.add(phase)
                edge.errors.print(f"{name}: {phase}", markup=False, soft_wrap=True)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=edge.errors, transient=True) as bar:
        task = bar.add_task(escape(name), total=1.0)
        yield lambda phase, done: bar.update(task, description=escape(f"{name}: {phase}"), completed=done)


def _say_machine(view: EnginesView) -> None:
    """What there is to run models on."""
    machine = view.machine
    assert machine is not None
    if machine.missing:
        edge.console.print(f"[yellow]no GPU can be used:[/] {escape(machine.missing)}", soft_wrap=True)
    else:
        free = ""
        if machine.free_megabytes is not None:
            free = f"; {machine.free_megabytes:.0f} of {machine.megabytes:.0f} MB are free"
        found = f"{machine.gpu} ({machine.compute_capability}), {machine.compiler}"
        edge.console.print(f"{found}{free}", markup=False)
    version, *providers = machine.onnxruntime
    edge.console.print(f"onnxruntime {version}: {', '.join(providers)}", markup=False)
    edge.console.print(f"analyses run on {view.engine} (work.engine)", markup=False)


def _say(plan: PlanLine) -> None:
    """One plan."""
    colour = "green" if plan.serves else "red" if plan.judged_at or not plan.size else "yellow"
    edge.console.print(
        f"[bold]{escape(plan.model)} {escape(plan.version)}[/] {plan.precision}  [{colour}]{escape(plan.state)}[/]",
        soft_wrap=True,
    )
    size = f"; {plan.size / 2**20:.1f} MB" if plan.size else ""
    when = f"{plan.built_at.astimezone():%Y-%m-%d %H:%M:%S} in {plan.build_seconds:.1f} s"
    lines = [
        f"{plan.gpu} ({plan.compute_capability}), {plan.compiler}{size}, {'built' if plan.size else 'tried'} {when}",
        words.compared(plan) if plan.size else "",
        *_remarks(plan),
    ]
    for said in filter(None, lines):
        edge.console.print(f"  {said}", markup=False, soft_wrap=True)


def _remarks(plan: PlanLine) -> Iterator[str]:
    """Why nobody will use it."""
    if plan.current is False:
        yield f"it is of an earlier package: `secondread engines build {plan.model}` makes the present one's"
    elif plan.current is None:
        yield "there is no such package any more"
    if plan.here is False:
        yield "it is for another GPU or compiler than this machine's"
