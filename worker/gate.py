"""The parity gate: a compiled plan serves once its answers have been compared with the float32 reference's.

On the package's own example two things must hold: each number that the network puts out, and the finished answer
(labels, measurements, statements, boxes, image). A package without an example is judged on a patch of noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from engines import example, golden, gpu, loader
from engines.beside import Beside
from engines.cascade import Stage
from engines.errors import DeviceError, OutputError, RunnerError
from engines.example import Example
from engines.loader import Engine
from engines.manifest_gpu import Precision
from engines.manifest_outputs import SegmentationOutput
from engines.package import ModelPackage
from engines.plans import Plans, Record, Verdict
from engines.runner import Runner
from worker import golden as package_example
from worker import parity, shelf


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What came of a case, beside the network's own numbers."""

    case: Literal["example", "patch"]
    #: Of the label that overlaps least.
    dice: float | None = None
    differences: tuple[str, ...] = ()


def prepare(
    package: ModelPackage,
    kept: Plans,
    *,
    engine: Engine = "tensorrt",
    precision: Precision | None = None,
    again: bool = False,
    beside: Sequence[Path] = (),
    threads: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Record:
    """The package's plan for this process' GPU, compiled and judged where it is not yet, or `again`.

    Raises EngineError as `gpu.build` and `judge` do; a plan that does not agree is no error.
    """
    record = gpu.build(package, kept, engine=engine, precision=precision, again=again, progress=progress)
    if record.verdict is not None:
        return record
    return judge(package, kept, record, beside=beside, threads=threads)


def judge(
    package: ModelPackage,
    kept: Plans,
    record: Record,
    *,
    beside: Sequence[Path] = (),
    threads: int | None = None,
) -> Record:
    """Compare the plan of `record` with the reference, and write the verdict down beside it.

    The plan must be of this process' GPU. Raises EngineError as `compare` does; PlanError where it cannot be opened.
    """
    runner = loader.open_runner(
        package,
        engine=cast("Engine", record.key.target.engine),
        threads=threads,
        kept=kept,
        precision=record.key.precision,
        unverified=True,
    )
    with closing(runner):
        verdict = compare(package, runner, beside=beside, threads=threads)
        megabytes = runner.device_bytes / 2**20 if runner.device_bytes else None
    return kept.judge(record, verdict, megabytes=megabytes)


def compare(
    package: ModelPackage, runner: Runner, *, beside: Sequence[Path] = (), threads: int | None = None
) -> Verdict:
    """What `runner`, the package's open network, answers, beside ONNX Runtime in float32.

    The models that the package needs are looked for in `beside`, and answer on the reference. A network that fails
    does not agree. Raises EngineError where there is nothing to compare with; DeviceError, also where the network's
    device fails, which says nothing of its numbers.
    """
    terms = package.manifest.gpu
    case = example.read(package.folder, package.manifest)
    with closing(shelf.holding(package, beside, engine="onnxruntime", threads=threads)) as held:
        stage = held.stage(package.manifest.name)
        with Beside(package.manifest, runner, stage.runner) as both:
            outcome = _outcome(stage, both, runner, case, threads=threads)
            differences = tuple(
                dict.fromkeys((*both.problems, *_far_off(package, both), *outcome.differences))
            )
            return Verdict(
                agrees=not differences,
                case=outcome.case,
                engine=both.description,
                reference=both.reference,
                largest_difference=both.fraction,
                tolerance=terms.tolerance,
                dice=outcome.dice,
                min_dice=terms.min_dice,
                differences=differences,
                speed_up=both.speed_up,
                judged_at=datetime.now(UTC),
            )


def _outcome(
    stage: Stage, both: Beside, runner: Runner, case: Example | None, *, threads: int | None
) -> _Outcome:
    """Have both answer, about the example where that shows the network anything."""
    if case is not None:
        outcome = _on_example(stage, both, runner, case, threads=threads)
        # An earlier model may have found nothing to look at, or all windows were empty.
        if both.differences or outcome.differences:
            return outcome
    try:
        parity.show_patch(stage.package, both)
    except DeviceError:
        raise
    except (OutputError, RunnerError) as error:
        return _Outcome(case="patch", differences=(str(error),))
    return _Outcome(case="patch", differences=_labels(stage.package, both))


def _on_example(
    stage: Stage, both: Beside, runner: Runner, case: Example, *, threads: int | None
) -> _Outcome:
    """The finished answers about the example."""
    package = stage.package
    try:
        expected = package_example.about(stage, case.volumes, threads=threads)
    except OutputError as error:
        return _Outcome(case="example", differences=(f"the reference itself gives no answer: {error}",))
    try:
        found = package_example.about(replace(stage, runner=both), case.volumes, threads=threads)
        if runner.leaves_on_device:
            # Whose labels are made on the GPU is judged by those: to compare its numbers they were brought here.
            found = package_example.about(replace(stage, runner=runner), case.volumes, threads=threads)
    except DeviceError:
        raise
    except (OutputError, RunnerError) as error:
        return _Outcome(case="example", differences=(str(error),))
    terms = case.expected.model_copy(update={"minimum_dice": package.manifest.gpu.min_dice})
    compared = golden.compare(package_example.expecting(package, case.volumes, expected, terms), found)
    return _Outcome(case="example", dice=compared.dice, differences=compared.differences)


def _far_off(package: ModelPackage, both: Beside) -> tuple[str, ...]:
    """The outputs whose numbers differ by more than the manifest allows."""
    allowed = package.manifest.gpu.tolerance
    return tuple(
        f'output "{name}" differs by {found.fraction:.3g} of its range, at most {allowed:g} is allowed (gpu.tolerance)'
        for name, found in both.differences.items()
        if not found.problem and not found.fraction <= allowed
    )


def _labels(package: ModelPackage, both: Beside) -> tuple[str, ...]:
    """That too many voxels of a patch have another label."""
    least = package.manifest.gpu.min_dice
    if not isinstance(package.manifest.outputs[0], SegmentationOutput) or both.problems:
        return ()
    if both.agreement >= least:
        return ()
    return (
        f"{both.agreement:.4f} of a patch of noise have the reference's label, at least {least:g} is asked for "
        "(gpu.min_dice)",
    )
