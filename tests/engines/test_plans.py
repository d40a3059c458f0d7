"""Plans on disk: found by what they are of, whole or not at all, built once by whoever comes first."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engines import package as model_package
from engines import plans
from engines.errors import DeviceFull, EngineError, PlanError
from engines.package import ModelPackage
from engines.plans import Plans, Target, Verdict
from tests.engines import build as packages
from tests.engines import nets
from tests.support import disks

H200 = Target(gpu="NVIDIA H200", compute_capability="9.0", compiler="tensorrt 11.4.0.106")


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return model_package.open_package(packages.write(tmp_path / "model", nets.affine(channels=3)))


@pytest.fixture
def kept(tmp_path: Path) -> Plans:
    return Plans(folder=tmp_path / "plans")


def _never() -> bytes:
    raise AssertionError("it is there already")


def test_a_plan_is_built_once_and_read_back(kept: Plans, package: ModelPackage) -> None:
    key = plans.key_for(package, H200)
    assert kept.find(key) is None
    record = kept.build_once(package, key, lambda: b"a plan")
    assert kept.build_once(package, key, _never) == record == kept.find(key)
    assert (kept.read(record), record.size, record.state) == (
        b"a plan",
        6,
        "built, not compared with the reference yet",
    )
    assert list(kept.records()) == [record]


@pytest.mark.parametrize(
    "other",
    [
        Target(gpu="NVIDIA L4", compute_capability="9.0", compiler="tensorrt 11.4.0.106"),
        Target(gpu="NVIDIA H200", compute_capability="8.9", compiler="tensorrt 11.4.0.106"),
        Target(gpu="NVIDIA H200", compute_capability="9.0", compiler="tensorrt 10.13.3.9"),
    ],
    ids=str,
)
def test_a_plan_for_another_gpu_or_compiler_is_not_found(
    kept: Plans, package: ModelPackage, other: Target
) -> None:
    kept.build_once(package, plans.key_for(package, H200), lambda: b"a plan")
    assert kept.find(plans.key_for(package, other)) is None


def test_a_plan_in_another_precision_is_another(kept: Plans, package: ModelPackage) -> None:
    kept.build_once(package, plans.key_for(package, H200, "float16"), lambda: b"half")
    assert plans.key_for(package, H200) == plans.key_for(package, H200, "float16")
    assert kept.find(plans.key_for(package, H200, "bfloat16")) is None


@pytest.mark.parametrize("damage", ["truncated", "tampered", "gone"])
def test_a_damaged_plan_is_refused_by_name_and_built_anew(
    kept: Plans, package: ModelPackage, damage: str
) -> None:
    key = plans.key_for(package, H200)
    record = kept.build_once(package, key, lambda: b"a plan")
    (path,) = kept.folder.glob("*.plan")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"a pl" if damage == "truncated" else b"A plan")
    with pytest.raises(PlanError, match=rf"{path.name}.*secondread engines build"):
        kept.read(record)
    again = kept.build_once(package, key, lambda: b"another plan")
    assert kept.read(again) == b"another plan"
    assert len(list(kept.folder.glob("*.plan"))) == 1


def test_a_plan_that_fills_the_disk_leaves_it_to_others(tmp_path: Path, package: ModelPackage) -> None:
    with disks.small_disk(tmp_path / "plans", 2) as folder:
        kept, key = Plans(folder=folder), plans.key_for(package, H200)
        with pytest.raises(OSError, match="No space left on device"):
            kept.build_once(package, key, lambda: bytes(3 * disks.MEGABYTE))
        assert kept.find(key) is None
        assert disks.free(folder) > 1.9 * disks.MEGABYTE
        assert kept.read(kept.build_once(package, key, lambda: b"a plan")) == b"a plan"


def test_a_damaged_record_is_refused_by_name_and_built_anew(kept: Plans, package: ModelPackage) -> None:
    key = plans.key_for(package, H200)
    kept.build_once(package, key, lambda: b"a plan")
    (path,) = kept.folder.glob("*.json")
    path.write_text(path.read_text()[:40])
    with pytest.raises(PlanError, match=path.name):
        kept.find(key)
    assert list(kept.records()) == []
    assert kept.read(kept.build_once(package, key, lambda: b"again")) == b"again"


@pytest.mark.parametrize(
    "values",
    [{"megabytes": 1e308}, {"size": -1}, {"sha256": "../" * 20}, {"sha256": "a\0b"}],
    ids=["memory without bound", "less than nothing", "a way out of the folder", "no name of a file"],
)
def test_a_record_of_nonsense_is_a_damaged_one(
    kept: Plans, package: ModelPackage, values: dict[str, Any]
) -> None:
    key = plans.key_for(package, H200)
    kept.build_once(package, key, lambda: b"a plan")
    path = kept.folder / f"{key.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(PlanError, match="is damaged"):
        kept.find(key)
    assert kept.build_once(package, key, lambda: b"anew") == kept.find(key)


def test_a_record_under_another_plan_s_name_lets_nothing_serve(kept: Plans, package: ModelPackage) -> None:
    half, whole = (plans.key_for(package, H200, precision) for precision in ("float16", "float32"))
    for key in (half, whole):
        kept.build_once(package, key, lambda: b"a plan")
    (kept.folder / f"{half.name}.json").replace(kept.folder / f"{whole.name}.json")
    with pytest.raises(PlanError, match="is of another plan: run `secondread engines build"):
        kept.find(whole)
    record = kept.build_once(package, whole, lambda: b"float32")
    assert (kept.find(whole), kept.read(record)) == (record, b"float32")


@pytest.mark.parametrize("suffix", [".json", ".lock", ".plan"])
def test_a_folder_where_a_file_belongs_is_named(kept: Plans, package: ModelPackage, suffix: str) -> None:
    key = plans.key_for(package, H200)
    kept.build_once(package, key, lambda: b"a plan")
    (path,) = kept.folder.glob(f"{key.name}*{suffix}")
    path.unlink()
    path.mkdir()
    with pytest.raises(EngineError, match=f"{path}: Is a directory: see that nothing else is there"):
        kept.build_once(package, key, lambda: b"a plan", again=True)


def test_a_file_where_the_folder_of_plans_belongs_is_named(kept: Plans, package: ModelPackage) -> None:
    kept.folder.touch()
    with pytest.raises(EngineError, match=f"{kept.folder}: File exists"):
        kept.build_once(package, plans.key_for(package, H200), _never)


def test_a_pipe_in_a_record_s_place_holds_nobody_up(kept: Plans, package: ModelPackage) -> None:
    key = plans.key_for(package, H200)
    kept.folder.mkdir()
    os.mkfifo(kept.folder / f"{key.name}.json")
    with pytest.raises(PlanError, match="is no file: remove it"):
        kept.find(key)
    assert list(kept.records()) == []


def test_what_the_compiler_refuses_is_remembered_until_somebody_asks_again(
    kept: Plans, package: ModelPackage
) -> None:
    def refuse() -> bytes:
        raise PlanError("node 3 (Frob): no such operator")

    key = plans.key_for(package, H200)
    for build in (refuse, _never):
        with pytest.raises(PlanError, match="no such operator"):
            kept.build_once(package, key, build)
    record = kept.find(key)
    assert record is not None and record.state == "not built: node 3 (Frob): no such operator"
    assert not record.serves
    with pytest.raises(PlanError, match="has no plan: node 3"):
        kept.read(record)
    assert kept.build_once(package, key, lambda: b"a plan", again=True).size == 6


def test_a_device_that_is_full_is_not_remembered(kept: Plans, package: ModelPackage) -> None:
    def full() -> bytes:
        raise DeviceFull("needs 4000 MB, 200 are free")

    key = plans.key_for(package, H200)
    with pytest.raises(DeviceFull):
        kept.build_once(package, key, full)
    assert kept.find(key) is None
    assert kept.build_once(package, key, lambda: b"a plan").size == 6


def test_the_gate_s_word_stands_beside_the_plan_until_it_is_built_again(
    kept: Plans, package: ModelPackage
) -> None:
    key = plans.key_for(package, H200)
    record = kept.build_once(package, key, lambda: b"a plan")
    verdict = _verdict(agrees=False, largest=float("inf"))
    judged = kept.judge(record, verdict, megabytes=120.5)
    assert kept.find(key) == judged and not judged.serves
    assert judged.state == "differs from the reference: label 1: Dice 0.2"

    newer = kept.build_once(package, key, lambda: b"a newer plan", again=True)
    # Said of the earlier one, too late
    assert kept.judge(record, _verdict(agrees=True), megabytes=1) == newer
    assert kept.find(key) == newer and newer.verdict is None
    assert kept.judge(newer, _verdict(agrees=True), megabytes=1).serves


def _verdict(*, agrees: bool, largest: float = 0.001) -> Verdict:
    return Verdict(
        agrees=agrees,
        case="example",
        engine="tensorrt 11.4.0.106 NVIDIA H200 float16",
        reference="onnxruntime 1.31.0 CPU float32",
        largest_difference=largest,
        tolerance=0.02,
        dice=1.0 if agrees else 0.2,
        min_dice=0.995,
        differences=() if agrees else ("label 1: Dice 0.2",),
        speed_up=12.5,
        judged_at=datetime.now(UTC),
    )


def _ask(folder: Path, model: Path, marks: Path) -> None:
    package = model_package.open_package(model)

    def build() -> bytes:
        (marks / str(os.getpid())).touch()
        time.sleep(0.5)
        return b"a plan"

    kept = Plans(folder=folder)
    assert kept.read(kept.build_once(package, plans.key_for(package, H200), build)) == b"a plan"


def test_of_eight_workers_that_ask_at_once_one_builds(
    kept: Plans, package: ModelPackage, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_ask, args=(kept.folder, package.folder, marks)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert len(list(marks.iterdir())) == 1


def _build_for_ever(folder: Path, model: Path, began: Path) -> None:
    package = model_package.open_package(model)

    def build() -> bytes:
        kept = Plans(folder=folder)
        (kept.folder / f"{plans.key_for(package, H200).name}.json.7.partial").write_text("{")
        began.touch()
        time.sleep(600)
        return b""

    Plans(folder=folder).build_once(package, plans.key_for(package, H200), build)


def test_a_builder_that_is_killed_leaves_the_plan_to_the_next(
    kept: Plans, package: ModelPackage, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    context = multiprocessing.get_context("spawn")
    builder = context.Process(target=_build_for_ever, args=(kept.folder, package.folder, began))
    builder.start()
    while not began.exists():
        assert builder.is_alive()
        time.sleep(0.05)
    assert builder.pid is not None
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    record = kept.build_once(package, plans.key_for(package, H200), lambda: b"a plan")
    assert kept.read(record) == b"a plan"
    assert not list(kept.folder.glob("*.partial"))
