"""The compiled plans as they are shown: by `secondread engines list`, by the page, and with a job that ran on one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from engines import gpu
from engines.errors import DeviceError
from engines.loader import Engine
from engines.package import ModelPackage
from engines.plans import REBUILD, Plans, Record, Target
from worker import views
from worker.model_views import EnginesView, GpuLine, PlanLine
from worker.settings import Settings
from worker.stand_in import BESIDE


def view(
    settings: Settings,
    packages: Mapping[str, ModelPackage],
    *,
    machine: GpuLine | None = None,
    target: Target | None = None,
) -> EnginesView:
    """Every plan of the installation, by model, newest first; `machine` and `target` are what this one has."""
    kept = Plans(folder=settings.plans)
    records = sorted(kept.records(), key=lambda one: one.built_at, reverse=True)
    looked = machine is not None
    return EnginesView(
        engine=settings.work.engine,
        machine=machine,
        plans=[
            _checked(
                line(
                    record, packages.get(record.model), here=record.key.target == target if looked else None
                ),
                kept.path(record),
            )
            for record in sorted(records, key=lambda one: one.model)
        ],
    )


def compiled_for(settings: Settings) -> Engine:
    """The engine that plans are made for: the configured one where it is of a GPU."""
    return settings.work.engine if settings.work.on_gpu else "tensorrt"


def look(engine: Engine) -> tuple[GpuLine, Target | None]:
    """What this machine has for an engine of a GPU. Its GPU may be opened, which takes memory of it until we end."""
    from engines import ort

    able = [*ort.providers()]
    try:
        target = gpu.target(engine)
    except DeviceError as error:
        return GpuLine(missing=str(error), onnxruntime=able), None
    free, total = _memory()
    return GpuLine(
        gpu=target.gpu,
        compute_capability=target.compute_capability,
        compiler=target.compiler,
        free_megabytes=free,
        megabytes=total,
        onnxruntime=able,
    ), target


def _memory() -> tuple[float, float] | tuple[None, None]:
    """Megabytes of the GPU that are free, and that it has; ONNX Runtime runs without the library that tells."""
    try:
        free, total = gpu.memory()
    except DeviceError:
        return None, None
    return free / 2**20, total / 2**20


def line(record: Record, package: ModelPackage | None, *, here: bool | None = None) -> PlanLine:
    """One plan."""
    key, verdict = record.key, record.verdict
    judged = {}
    if verdict is not None:
        largest = verdict.largest_difference
        judged = {
            **verdict.model_dump(include={"case", "reference", "judged_at", "tolerance", "dice", "min_dice"}),
            # JSON has no word for what differs without bound; the state says it.
            "largest_difference": largest if math.isfinite(largest) else None,
            "speed_up": verdict.speed_up or None,
        }
    return PlanLine(
        model=record.model,
        version=record.version,
        model_digest=key.model_digest,
        precision=key.precision,
        gpu=key.target.gpu,
        compute_capability=key.target.compute_capability,
        compiler=key.target.compiler,
        built_at=record.built_at,
        build_seconds=record.seconds,
        size=record.size,
        serves=record.serves,
        state=record.state,
        current=None if package is None else package.digest == key.model_digest,
        here=here,
        megabytes=record.megabytes,
        **judged,
    )


def _checked(plan: PlanLine, path: Path) -> PlanLine:
    """The line of a plan whose file may be gone, or cut short; whoever opens it compares every byte."""
    if not plan.size:
        # The compiler refused the network.
        return plan
    with suppress(OSError):
        if path.stat().st_size == plan.size:
            return plan
    state = f"its file is gone or cut short: {REBUILD.format(model=plan.model)}"
    return plan.model_copy(update={"serves": False, "state": state})


def with_plan(detail: views.JobDetail, folder: Path) -> views.JobDetail:
    """The job with the plan that it ran on, found by the model's digest and by how the engine calls itself."""
    # What the models ran on that it needs may follow.
    engine = detail.engine.partition(BESIDE)[0]
    for record in Plans(folder=folder).records():
        verdict = record.verdict
        if verdict is None or record.key.model_digest != detail.model_digest:
            continue
        if verdict.engine == engine:
            return detail.model_copy(update={"plan": line(record, None)})
    return detail
