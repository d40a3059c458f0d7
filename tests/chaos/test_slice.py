"""A short storm in the tests; `python -m benchmarks.chaos` blows the long ones."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.chaos import checker, plan, storm
from tests.chaos.checker import Report
from tests.chaos.plan import Fault, Storm
from tests.chaos.storm import Outcome, Scene

SLICE = Storm(seed=20, images=240, kills=12, seconds=60)


def test_a_seed_is_a_plan() -> None:
    assert plan.errands(SLICE) == plan.errands(SLICE)
    assert plan.faults(SLICE) == plan.faults(SLICE)
    other = Storm(seed=21, images=240, kills=12, seconds=60)
    assert plan.errands(other) != plan.errands(SLICE)
    assert plan.faults(other) != plan.faults(SLICE)
    images = {image for errand in plan.errands(SLICE) for image in errand.images if not image.variant}
    assert len(images) == 240
    kinds = [fault.kind for fault in plan.faults(SLICE)]
    assert kinds.count("kill") == 12 and len(kinds) == 15


def test_a_long_storm_breaks_everything_there_is() -> None:
    long = Storm(seed=2, images=10_000, kills=200, seconds=1200, database=True)
    faults = plan.faults(long)
    assert {fault.target for fault in faults if fault.kind == "kill"} == set(plan.KILLED)
    kinds = {"kill", "freeze", "receiver", "disk-low", "disk-full", "flush", "database"}
    assert {fault.kind for fault in faults} == kinds
    assert all(isinstance(fault, Fault) and fault.start < 1200 for fault in faults)
    steps = {step.kind for errand in plan.errands(long) for step in errand.steps}
    assert steps == {"send", "abort", "break", "pause"}


@pytest.fixture(scope="module")
def weathered() -> Iterator[tuple[Scene, Outcome]]:
    """A node that a storm has passed, and what came of it."""
    with storm.scratch() as folder, storm.scene(SLICE, folder) as scene:
        yield scene, storm.blow(scene, calm_within=240)


@pytest.mark.peer("orthanc")
@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_doubled(weathered: tuple[Scene, Outcome]) -> None:
    scene, outcome = weathered
    assert outcome.failures == []
    assert dict(outcome.report.violations) == {}
    assert outcome.report.counts["images acknowledged"] >= 240
    assert sum(count for name, count in outcome.faults.items() if name.startswith("kill ")) == 12
    # An admin finds each death among the events, with its reason
    told: dict[str, str] = dict(scene.query("SELECT kind, MIN(message) FROM events GROUP BY kind"))
    assert "ended with signal SIGKILL; it starts again in" in told["role-restarted"]
    assert "ended without a word" in told["process-lost"]


@pytest.mark.peer("orthanc")
@pytest.mark.timeout(600)
def test_the_checker_sees_every_kind_of_damage(weathered: tuple[Scene, Outcome], tmp_path: Path) -> None:
    scene, outcome = weathered
    if outcome.failures or not outcome.report.kept:
        pytest.skip("the storm itself broke something")
    objects = list(scene.receiver.objects())
    storage = tmp_path / "storage"
    shutil.copytree(scene.storage, storage, ignore=shutil.ignore_patterns("*.sock", "up.lock"))
    entries = checker.read_ledger(scene.node.made.folder / "ledger.jsonl")

    def found(held: list[pydicom.Dataset]) -> set[str]:
        report: Report = checker.check(entries, storage=storage, query=scene.query, held=held)
        return set(report.violations)

    assert found(objects) == set()
    # An object twice, one that nobody knows, one that is gone
    assert found([*objects, objects[0]]) == {"result doubled"}
    strange = copy.deepcopy(objects[0])
    strange.SOPInstanceUID = "1.2.3"
    assert found([*objects, strange]) == {"result doubled", "result unknown"}
    assert found(objects[1:]) == {"result missing"}
    # An image that is gone, one that is another, one that nobody knows
    first, second, *_ = sorted(storage.glob("spool/[0-9]*/*/*.dcm"))
    kept = first.read_bytes()
    first.unlink()
    assert found(objects) == {"image lost", "row without a file"}
    first.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert found(objects) == {"image lost"}
    first.write_bytes(kept)
    (second.parent / "1.2.3.dcm").write_bytes(kept)
    assert found(objects) == {"file without a row"}
    (second.parent / "1.2.3.dcm").unlink()
    # A result that was changed, and one that was left
    result = sorted(storage.glob("results/*/sr.dcm"))[0]
    kept = result.read_bytes()
    result.write_bytes(kept + b"\0")
    assert found(objects) == {"result changed"}
    result.write_bytes(kept)
    (result.parent / ".seg.dcm.x").write_bytes(b"")
    assert found(objects) == {"file without a row"}
