"""Plans that are missing are built beside the work, one at a time, and only while the device's memory allows it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from engines import gpu, plans
from engines.errors import DeviceFull, DeviceLost, PlanError
from engines.package import ModelPackage
from engines.plans import Plans, Record
from tests.support import gpu_worker
from tests.support.double import Machine
from tests.support.listening import until
from tests.worker import journey as journeys
from worker import doctor, plan_keeper, sections
from worker.settings import Settings
from worker.shelf import Shelf


@pytest.fixture
def configured(tmp_path: Path) -> Settings:
    """Two models that a route runs, and one that none does."""
    (tmp_path / "storage").mkdir()
    for name in ("a", "b", "idle"):
        journeys.write_model(tmp_path / "models" / name, name=name, gpu=gpu_worker.FLOAT32)
    return Settings(
        storage=tmp_path / "storage",
        models=(tmp_path / "models",),
        node=sections.Node(min_free_mb=1),
        routes=(sections.Route(name="ct", when={"Modality": "CT"}, run=("b", "a")),),
        work=sections.Work(engine="tensorrt"),
    )


class Keeper:
    """Looks, and what came of it."""

    def __init__(self, configured: Settings) -> None:
        self._configured = configured
        self.kept = Plans(folder=configured.plans)
        self.prepared: list[str] = []
        self.told: list[str] = []
        self.errors: dict[str, Exception] = {}

    def look(self) -> bool:
        return plan_keeper.look(self._configured, self._prepare, self.told.append)

    def _prepare(self, package: ModelPackage) -> Record:
        self.prepared.append(package.manifest.name)
        if package.manifest.name in self.errors:
            raise self.errors[package.manifest.name]
        return gpu_worker.accept(package, self.kept)


@pytest.fixture
def keeper(configured: Settings) -> Keeper:
    return Keeper(configured)


def test_what_routes_run_is_built_once(machine: Machine, keeper: Keeper) -> None:
    assert keeper.look() and keeper.prepared == ["a", "b"]
    assert keeper.told == [
        f"the plan of {name} 1.0.0 for Pretended GPU (9.0), tensorrt 11.4.0.106: verified" for name in "ab"
    ]
    assert keeper.look() and keeper.prepared == ["a", "b"]


def test_a_plan_that_was_built_and_not_judged_is_judged(machine: Machine, keeper: Keeper) -> None:
    gpu.build(Shelf([keeper._configured.models[0]]).package("a"), keeper.kept)
    assert keeper.look() and keeper.prepared == ["a", "b"]


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_plan_that_was_damaged_is_built_again(machine: Machine, keeper: Keeper, damage: str) -> None:
    assert keeper.look()
    key = plans.key_for(Shelf(keeper._configured.models).package("a"), gpu.target())
    (path,) = keeper.kept.folder.glob(f"{key.name}-*.plan")
    whole = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(whole[:-1])
    healthy, remark = examined(keeper._configured)["plan a"]
    assert not healthy and path.name in remark and remark.endswith("; jobs run on openvino meanwhile")
    assert keeper.look() and keeper.prepared == ["a", "b", "a"]
    assert examined(keeper._configured)["plan a"] == (True, "verified")
    assert path.read_bytes() == whole


def test_what_the_compiler_or_the_gate_refused_is_left_to_a_person(machine: Machine, keeper: Keeper) -> None:
    machine.change(refuses=["Conv", "Concat", "Sub", "Mul", "Add", "Greater", "Cast", "Relu", "Clip"])
    package = Shelf([keeper._configured.models[0]]).package("a")
    with pytest.raises(PlanError):
        gpu.build(package, keeper.kept)
    machine.change(refuses=[])
    gpu_worker.accept(Shelf([keeper._configured.models[0]]).package("b"), keeper.kept, agrees=False)
    assert keeper.look() and keeper.prepared == []


def test_without_a_device_nothing_is_built_and_it_is_tried_again(machine: Machine, keeper: Keeper) -> None:
    machine.change(devices=0)
    assert not keeper.look() and keeper.prepared == []
    machine.change(devices=1)
    assert keeper.look() and keeper.prepared == ["a", "b"]


def test_a_build_waits_while_jobs_need_the_memory(machine: Machine, keeper: Keeper) -> None:
    machine.change(megabytes=plan_keeper.LEAST_FREE // 2**20 - 1)
    assert not keeper.look() and keeper.prepared == [] and keeper.told == []
    machine.change(megabytes=plan_keeper.LEAST_FREE // 2**20)
    assert keeper.look()


def test_a_build_waits_while_the_disk_is_needed_for_results(machine: Machine, keeper: Keeper) -> None:
    configured = keeper._configured
    more_than_there_is = shutil.disk_usage(configured.storage).total // 2**20
    keeper._configured = configured.model_copy(update={"node": sections.Node(min_free_mb=more_than_there_is)})
    assert not keeper.look() and keeper.prepared == [] and keeper.told == []
    keeper._configured = configured
    assert keeper.look()


def test_a_disk_that_a_plan_fills_holds_up_no_other(machine: Machine, keeper: Keeper) -> None:
    keeper.errors["a"] = OSError(errno.ENOSPC, "No space left on device")
    assert not keeper.look() and keeper.prepared == ["a", "b"]
    folder = keeper.kept.folder
    assert keeper.told[0] == f"the plan of a could not be made: the disk of {folder} is full: make room"


def test_one_that_cannot_be_built_now_holds_up_no_other(machine: Machine, keeper: Keeper) -> None:
    keeper.errors["a"] = DeviceFull("no memory")
    assert not keeper.look() and keeper.prepared == ["a", "b"]
    assert keeper.told[0] == "the plan of a could not be made: no memory"
    # On a device that is lost nothing more is tried
    keeper.errors["a"] = DeviceLost("lost")
    assert not keeper.look() and keeper.prepared == ["a", "b", "a"]


def test_it_looks_again_sooner_where_something_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan_keeper, "SOON_SECONDS", 0.01)
    stop, log = threading.Event(), tmp_path / "log"
    command = [sys.executable, "-c", f"open({str(log)!r}, 'a').write('x'); raise SystemExit(1)"]
    keeping = threading.Thread(target=plan_keeper.keep, args=(command, stop))
    keeping.start()
    until(lambda: log.exists() and len(log.read_text()) >= 2, "a second look")
    stop.set()
    keeping.join(10)
    assert not keeping.is_alive()


def test_a_build_under_way_ends_with_it(tmp_path: Path) -> None:
    stop, log = threading.Event(), tmp_path / "log"
    code = f"import os, time; open({str(log)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    keeping = threading.Thread(target=plan_keeper.keep, args=([sys.executable, "-c", code], stop))
    keeping.start()
    until(lambda: log.exists() and bool(log.read_text()), "the look to begin")
    pid = int(log.read_text())
    stop.set()
    keeping.join(10)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


def test_a_build_that_is_killed_leaves_nothing_that_is_found(machine: Machine, keeper: Keeper) -> None:
    # Given a process that is killed while it compiles
    machine.change(seconds_of_build=600)
    package = Shelf([keeper._configured.models[0]]).package("a")
    child = os.fork()
    if child == 0:
        gpu.build(package, keeper.kept)
        os._exit(0)
    until(lambda: any(keeper.kept.folder.glob("*.lock")), "the build to begin")
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    machine.change(seconds_of_build=0)
    # Then there is no plan, and the next look builds it
    assert keeper.kept.find(plans.key_for(package, gpu.target())) is None
    assert keeper.look() and keeper.prepared == ["a", "b"]


# What the doctor says ----------------------------------------------------------------------------------


def examined(configured: Settings) -> dict[str, tuple[bool, str]]:
    return {found.subject: (found.healthy, found.remark) for found in doctor._gpu(configured)}


def test_the_doctor_knows_the_device_and_the_plans(
    machine: Machine, configured: Settings, keeper: Keeper
) -> None:
    found = examined(configured)
    assert found["gpu"] == (
        True,
        "Pretended GPU (9.0), tensorrt 11.4.0.106; 4096 of 4096 MB are free",
    )
    assert found["plan a"] == (
        False,
        "there is none: `up` builds it, or run `secondread engines build a`; jobs run on openvino meanwhile",
    )
    keeper.look()
    gpu_worker.accept(Shelf(configured.models).package("a"), keeper.kept, megabytes=12)
    found = examined(configured)
    assert (found["plan a"], found["plan b"]) == ((True, "verified, 12 MB"), (True, "verified"))
    assert "plan idle" not in found


def test_the_doctor_says_what_is_missing(machine: Machine, configured: Settings) -> None:
    machine.change(devices=0)
    ((healthy, remark),) = examined(configured).values()
    assert not healthy and "no CUDA-capable device" in remark
    assert remark.endswith("; jobs run on openvino meanwhile")
    work = sections.Work(engine="tensorrt", fallback="none")
    ((_, remark),) = examined(configured.model_copy(update={"work": work})).values()
    assert remark.endswith("; jobs fail meanwhile (work.fallback)")
    assert examined(configured.model_copy(update={"work": sections.Work()})) == {}
    by_onnxruntime = configured.model_copy(update={"work": sections.Work(engine="onnxruntime-cuda")})
    ((healthy, remark),) = examined(by_onnxruntime).values()
    assert not healthy and "has no CUDAExecutionProvider: put onnxruntime-gpu in its place" in remark
