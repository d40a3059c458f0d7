"""A model runs on the GPU where it can, else on the engine that takes its place, which says why; nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from db import models
from engines import gpu, loader
from engines import package as model_package
from engines.errors import DeviceError, DeviceFull, PlanError, RunnerError
from engines.plans import Plans
from engines.runner import Runner
from tests.support import gpu_worker, phantoms
from tests.support.double import Machine
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import placing, run
from worker.device import Device
from worker.sections import Work
from worker.settings import Settings
from worker.shelf import Shelf

GPU = "tensorrt 11.4.0.106 Pretended GPU float32"
CPU = "openvino"
NAMES = ("a", "b", "c")


@pytest.fixture
def kept(tmp_path: Path) -> Plans:
    return Plans(folder=tmp_path / "plans")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three packages."""
    for name in NAMES:
        journeys.write_model(tmp_path / "models" / name, name=name, gpu=gpu_worker.FLOAT32)
    return tmp_path / "models"


@pytest.fixture
def shelf(machine: Machine, folder: Path, kept: Plans) -> Iterator[Shelf]:
    opened = gpu_worker.shelf([folder], kept)
    yield opened
    opened.close()


class Failing(Runner):
    """A network on a GPU that fails at a patch."""

    def __init__(self, inner: Runner, *, error: RunnerError, at: int = 1) -> None:
        self._inner = inner
        self._error = error
        self._left = at
        self.device_bytes = 2**20
        super().__init__(inputs=inner.inputs, outputs=inner.outputs, description=GPU)

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self._left -= 1
        if self._left <= 0:
            raise self._error
        return self._inner.infer(feeds)

    def _close(self) -> None:
        self._inner.close()


def fail(monkeypatch: pytest.MonkeyPatch, *errors: RunnerError) -> list[str]:
    """Each network that is opened on the GPU fails with the next of these; the models that were opened there."""
    opened: list[str] = []
    real, left = loader.open_runner, list(errors)

    def open_runner(package: Any, *, engine: Any, **how: Any) -> Runner:
        if engine != "tensorrt":
            return real(package, engine=engine, **how)
        opened.append(package.manifest.name)
        inner = real(package, engine="onnxruntime", threads=1)
        return (
            Failing(inner, error=left.pop(0), at=1)
            if left
            else Failing(inner, error=DeviceError(""), at=10**9)
        )

    monkeypatch.setattr(loader, "open_runner", open_runner)
    return opened


def on(shelf: Shelf, name: str = "a") -> str:
    """What a job would run a model on."""
    with shelf.at_work():
        return shelf.runner(name).description


# Before a job ----------------------------------------------------------------------------------------


def test_a_model_goes_over_to_the_gpu_when_its_plan_is_accepted(
    shelf: Shelf, kept: Plans, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a model without a plan
    said = on(shelf)
    assert said.startswith(CPU)
    assert said.endswith(
        ", in place of tensorrt: a has no plan for Pretended GPU (9.0), tensorrt 11.4.0.106 in float32: "
        "run `secondread engines build a`"
    )
    # The log says so, too, and not at every job
    assert on(shelf) == said
    assert caplog.text.count("model a is not run on tensorrt: a has no plan") == 1
    # When it is built, and not judged yet
    package = shelf.package("a")
    gpu_worker.accept(package, kept, agrees=False, differences=("label 1 differs",))
    assert on(shelf).endswith(
        "in place of tensorrt: the plan of a: differs from the reference: label 1 differs"
    )
    # When it is accepted, then it goes over, and stays
    record = gpu_worker.accept(package, kept)
    assert record.serves and on(shelf) == GPU
    assert on(shelf) == GPU and shelf.warm == ("a",)


def test_a_plan_that_is_refused_when_it_is_compared_anew_serves_no_further_job(
    machine: Machine, shelf: Shelf, kept: Plans
) -> None:
    # Given a model that is open on the GPU
    package = shelf.package("a")
    record = gpu_worker.accept(package, kept)
    assert on(shelf) == GPU
    # When its plan differs after an update of the driver
    kept.judge(record, gpu_worker.verdict(agrees=False, differences=("label 1 differs",)), megabytes=None)
    assert on(shelf).startswith(CPU)
    assert on(shelf).endswith(
        "in place of tensorrt: the plan of a: differs from the reference: label 1 differs"
    )
    # Nor when the compiler takes its network no more
    gpu_worker.accept(package, kept)
    assert on(shelf) == GPU
    machine.change(refuses=["Conv"])
    with pytest.raises(PlanError):
        gpu.build(package, kept, again=True)
    assert on(shelf).startswith(CPU) and "in place of tensorrt: a has no plan: TensorRT" in on(shelf)


def test_it_never_goes_over_in_the_middle_of_a_job(shelf: Shelf, kept: Plans) -> None:
    with shelf.at_work():
        first = shelf.runner("a")
        gpu_worker.accept(shelf.package("a"), kept)
        assert shelf.runner("a") is first
    assert on(shelf) == GPU


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"devices": 0}, "no CUDA-capable device is detected"),
        ({"driver": 12040}, "the driver is for CUDA 12, pycuda was built for CUDA 13"),
    ],
)
def test_without_a_device_the_fallback_says_what_is_missing(
    machine: Machine, shelf: Shelf, what: dict[str, Any], said: str
) -> None:
    machine.change(**what)
    assert said in on(shelf) and on(shelf).startswith(CPU)


def test_a_plan_that_was_tampered_with_is_not_run(shelf: Shelf, kept: Plans) -> None:
    gpu_worker.accept(shelf.package("a"), kept)
    (plan,) = kept.folder.glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:-1] + b"!")
    assert "are not those that were built: run `secondread engines build a`" in on(shelf)


def test_without_a_fallback_the_job_fails(machine: Machine, folder: Path, kept: Plans) -> None:
    shelf = gpu_worker.shelf([folder], kept, fallback=None)
    for _ in range(2):
        with pytest.raises(PlanError, match="a has no plan"):
            shelf.runner("a")
    shelf.close()


# The device's memory ---------------------------------------------------------------------------------


def test_the_model_that_was_not_used_for_longest_leaves_the_gpu(
    machine: Machine, folder: Path, kept: Plans
) -> None:
    # Given room for two models of 10 MB
    with_room = gpu_worker.shelf([folder], kept, megabytes=25)
    for name in NAMES:
        gpu_worker.accept(with_room.package(name), kept, megabytes=10)
    for name in NAMES:
        assert on(with_room, name) == GPU
    assert with_room.warm == ("b", "c")
    with_room.close()


def test_what_does_not_fit_beside_what_is_in_use_runs_on_the_fallback_for_that_job(
    machine: Machine, folder: Path, kept: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = gpu_worker.shelf([folder], kept, megabytes=1.5)
    for name in NAMES:
        gpu_worker.accept(shelf.package(name), kept, megabytes=1)
    fail(monkeypatch)
    with shelf.at_work():
        first, second = shelf.runner("a"), shelf.runner("b")
        assert first.description == GPU
        assert (
            ", in place of tensorrt: it needs 1 MB of the GPU's memory, and 0 MB are free for it: "
            "close what else uses the GPU, or set work.gpu_megabytes higher" in second.description
        )
        # Both answer still
        for runner in (first, second):
            runner.infer({"image": np.zeros((1, 1, 8, 16, 16), np.float32)})
    # By itself it finds room: the other one leaves
    assert on(shelf, "b") == GPU and shelf.warm == ("b",)
    shelf.close()


def test_a_model_that_needs_more_than_there_is_makes_nobody_leave(
    machine: Machine, folder: Path, kept: Plans, tmp_path: Path
) -> None:
    journeys.write_model(folder / "huge", name="huge", gpu=gpu_worker.FLOAT32 | {"megabytes": 5000})
    shelf = gpu_worker.shelf([folder], kept)
    for name in ("a", "huge"):
        gpu_worker.accept(shelf.package(name), kept)
    assert on(shelf) == GPU
    # 90 % of what was free before: 4096 MB
    assert "it needs 5000 MB of the GPU's memory, and 3686 MB are free for it" in on(shelf, "huge")
    assert shelf.warm == ("a", "huge") and on(shelf) == GPU
    shelf.close()


# In the middle of a job ------------------------------------------------------------------------------


@pytest.fixture
def clinic(journey: Journey, shelf: Shelf, kept: Plans) -> Journey:
    """A journey whose model has a plan."""
    gpu_worker.accept(shelf.package("a"), kept)
    journey.shelf = shelf
    journey.routes = [journeys.route(run=("a",))]
    return journey


def told(journey: Journey) -> list[str]:
    return [row.message for row in journey.rows(models.Event) if row.kind == "fallback"]


def study(number: int) -> dict[str, str]:
    return {"study_uid": f"1.2.7{number}", "series_uid": f"1.2.7{number}.1"}


def test_a_job_on_the_gpu_gives_the_cpu_s_answer(clinic: Journey) -> None:
    clinic.run(journeys.datasets())
    on_gpu = clinic.job()
    assert (on_gpu.state, on_gpu.engine, told(clinic)) == ("done", GPU, [])
    clinic.shelf = Shelf([clinic.shelf.packages["a"].folder], threads=1)
    clinic.run(journeys.datasets(**study(1)))
    (on_cpu,) = clinic.why("1.2.71").jobs
    assert on_cpu.engine.startswith("openvino") and "in place" not in on_cpu.engine
    assert on_gpu.segments == on_cpu.segments and on_gpu.measurements == on_cpu.measurements
    clinic.shelf.close()


def test_a_device_that_is_lost_in_mid_job_costs_no_answer(clinic: Journey, machine: Machine) -> None:
    machine.change(lost_after=0)
    clinic.run(journeys.datasets())
    job = clinic.job()
    assert (job.state, job.attempts, len(job.objects)) == ("done", 1, 2)
    assert job.engine.startswith("openvino")
    assert ", in place of tensorrt: Pretended GPU is lost to this process" in job.engine
    assert told(clinic) == [f"it ran on {job.engine}"]
    # Nothing is tried on it any more by this process, which is to end
    machine.change(lost_after=None)
    assert clinic.shelf.device_is_lost
    clinic.run(journeys.datasets(**study(1)))
    assert "is lost to this process" in clinic.why("1.2.71").jobs[0].engine


def test_a_device_that_fails_at_a_model_is_tried_again_later(
    clinic: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = fail(monkeypatch, DeviceError("a kernel failed"))
    clinic.run(journeys.datasets())
    assert clinic.job().engine.endswith(", in place of tensorrt: a kernel failed")
    clinic.run(journeys.datasets(**study(1)))
    assert opened == ["a"] and not clinic.shelf.device_is_lost
    monkeypatch.setattr(placing, "_worth_a_try", lambda *_: True)
    clinic.run(journeys.datasets(**study(2)))
    assert clinic.why("1.2.72").jobs[0].engine == GPU and opened == ["a", "a"]


def test_a_full_device_is_tried_once_more_without_the_models_that_are_idle(
    clinic: Journey, kept: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_worker.accept(clinic.shelf.package("b"), kept)
    holds = DeviceError("")
    opened = fail(monkeypatch, holds, DeviceFull("no memory"), holds)
    assert on(clinic.shelf, "b") == GPU
    monkeypatch.setattr(Failing, "_infer", _fails_with(DeviceFull))
    clinic.run(journeys.datasets())
    assert (clinic.job().state, clinic.job().engine) == ("done", GPU)
    assert opened == ["b", "a", "a"] and clinic.shelf.warm == ("a",)


def test_a_full_device_with_nothing_idle_gives_the_job_to_the_fallback(
    clinic: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = fail(monkeypatch, DeviceFull("no memory for the outputs"))
    clinic.run(journeys.datasets())
    assert clinic.job().engine.endswith(", in place of tensorrt: no memory for the outputs")
    assert opened == ["a"]


def _fails_with(kind: type[RunnerError]) -> Any:
    """Runners that fail only with errors of this kind."""

    def infer(self: Failing, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if isinstance(self._error, kind):
            raise self._error
        return self._inner.infer(feeds)

    return infer


def test_an_error_on_the_cpu_is_the_job_s(clinic: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a network on the GPU beside another on the CPU, whose engine fails
    opened = fail(monkeypatch, RunnerError("openvino: no memory"))
    clinic.run(journeys.datasets())
    job = clinic.job()
    assert (job.state, job.reason, job.error) == ("failed", "engine", "openvino: no memory")
    # Then the GPU has no part in it
    assert on(clinic.shelf) == GPU and opened == ["a"]


def test_a_model_that_is_run_by_hand_is_answered_in_the_gpu_s_place_too(
    machine: Machine, folder: Path, kept: Plans, tmp_path: Path
) -> None:
    gpu_worker.accept(model_package.open_package(folder / "a"), kept)
    machine.change(lost_after=0)
    phantoms.write(journeys.datasets(), tmp_path / "ct")
    settings = Settings(storage=tmp_path, models=(folder,), work=Work(engine="tensorrt"))
    assert settings.plans == kept.folder
    said: list[str] = []
    runs, refused = run.run(
        settings, "a", tmp_path / "ct", tmp_path / "out", progress=lambda stage, _: said.append(stage)
    )
    assert not refused and {"read", "predict", "encode"} <= set(said)
    assert ", in place of tensorrt: Pretended GPU is lost to this process" in runs[0].findings.engine


def test_without_a_fallback_a_lost_device_ends_the_attempt_and_not_the_job(
    clinic: Journey, machine: Machine, folder: Path, kept: Plans
) -> None:
    clinic.shelf = gpu_worker.shelf([folder], kept, fallback=None)
    machine.change(lost_after=0)
    (job_id,) = clinic.arrive(journeys.datasets())
    clinic.analyse(job_id)
    job = clinic.job()
    assert (job.state, job.attempts, job.reason) == ("queued", 1, "worker-lost")
    assert "Pretended GPU is lost to this process" in job.error and job.not_before is not None
    assert clinic.shelf.device_is_lost
    clinic.shelf.close()


def test_without_a_fallback_another_failure_fails_the_job(
    clinic: Journey, folder: Path, kept: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.shelf = gpu_worker.shelf([folder], kept, fallback=None)
    fail(monkeypatch, DeviceError("a kernel failed"))
    clinic.run(journeys.datasets())
    job = clinic.job()
    assert (job.state, job.reason, job.error) == ("failed", "engine", "a kernel failed")
    clinic.shelf.close()


def test_onnxruntime_without_a_gpu_says_what_to_install(folder: Path, kept: Plans) -> None:
    device = Device(engine="onnxruntime-cuda", kept=kept, threads=1)
    shelf = Shelf([folder], threads=1, device=device)
    for _ in range(2):
        assert ", in place of onnxruntime-cuda: this ONNX Runtime has no CUDAExecutionProvider" in on(shelf)
    shelf.close()


def test_whatever_the_gpu_s_runtime_refuses_is_no_reason_to_give_no_answer(
    shelf: Shelf, kept: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_worker.accept(shelf.package("a"), kept)
    real = loader.open_runner

    def refuse(package: Any, *, engine: Any, **how: Any) -> Runner:
        if engine == "tensorrt":
            raise RunnerError("an error that nobody foresaw")
        return real(package, engine=engine, **how)

    monkeypatch.setattr(loader, "open_runner", refuse)
    assert on(shelf).endswith(", in place of tensorrt: an error that nobody foresaw")
