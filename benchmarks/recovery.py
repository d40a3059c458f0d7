"""How soon work goes on after everything was killed, and after Redis lost all it held.

    python -m benchmarks.recovery [--rounds 3] [--studies 24]

A real `secondread up` with its default lease and a tiny model, and a real Orthanc. First round by round: studies
wait for their analyses, everything is killed (SIGKILL) after the first results, `up` is started again; from its
"ready" to the next result may take 15 s. Then the same with Redis killed, and with its data flushed, while jobs
are queued: from the moment that it answers to the next job claimed may take two sweep intervals. Exits 1 beyond.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tests.chaos import killer, storm
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Errand, Image, Step, Storm
from tests.chaos.storm import Scene
from tests.chaos.traffic import Traffic
from worker.sections import Work
from worker.sweep import CARE_SECONDS

#: Seconds from ready to the first result.
BAR_RESULT = 15.0
#: Seconds from a Redis that answers to the next claimed job.
BAR_CLAIM = 2 * CARE_SECONDS
PATIENCE = 120.0


def main() -> int:
    """Measure, and compare with the bars."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--studies", type=int, default=24, help="that wait when it happens, each round")
    arguments = parser.parse_args()
    rounds = arguments.rounds * 3
    chosen = Storm(
        seed=15,
        images=20 * arguments.studies * rounds,
        kills=0,
        seconds=0,
        lease=Work().lease_seconds,
    )
    worst = {"everything killed": 0.0, "Redis killed": 0.0, "Redis flushed": 0.0}
    # Whoever ends us wants nothing to be left: the blocks below tidy up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with storm.scratch() as folder, storm.scene(chosen, folder) as scene:
        for number in range(rounds):
            what = list(worst)[number % 3]
            studies = range(number * arguments.studies, (number + 1) * arguments.studies)
            after = {
                "everything killed": after_the_end_of_everything,
                "Redis killed": after_a_killed_redis,
                "Redis flushed": after_a_flushed_redis,
            }[what](scene, studies)
            worst[what] = max(worst[what], after)
            all_done(scene, studies)
    bars = {"everything killed": BAR_RESULT, "Redis killed": BAR_CLAIM, "Redis flushed": BAR_CLAIM}
    for what, seconds in worst.items():
        print(f"{what}: worst {seconds:.1f} s; bar {bars[what]:.1f} s; ratio {seconds / bars[what]:.2f} x")
    return 0 if all(seconds <= bars[what] for what, seconds in worst.items()) else 1


def after_the_end_of_everything(scene: Scene, studies: range) -> float:
    """Seconds from ready to the next result in the PACS."""
    before = scene.receiver.count()
    send(scene, studies)
    until(lambda: scene.receiver.count() >= before + 4, "the first results")
    node = scene.node
    node.kill(node.find("everything"))
    assert node.made.process is not None
    node.made.process.wait()
    held, running = scene.receiver.count(), jobs(scene, "running")
    took = node.start()
    ready = time.monotonic()
    until(lambda: scene.receiver.count() > held, "a result after the restart")
    after = time.monotonic() - ready
    print(
        f"everything killed with {running} jobs running and {jobs(scene, 'queued')} queued: ready after {took:.1f} s, "
        f"the next result {after:.1f} s later",
        flush=True,
    )
    return after


def after_a_killed_redis(scene: Scene, studies: range) -> float:
    """Seconds from a new Redis that answers to the next claimed job."""
    return after_a_loss(scene, studies, lambda: scene.node.kill(scene.node.find("broker")), "Redis killed")


def after_a_flushed_redis(scene: Scene, studies: range) -> float:
    """Seconds from the loss to the next claimed job."""
    return after_a_loss(scene, studies, lambda: killer.flush(scene.node), "Redis flushed")


def after_a_loss(scene: Scene, studies: range, lose: Callable[[], object], what: str) -> float:
    """Queue the studies' jobs while nobody takes them, lose their messages, let the worker go on."""
    worker = [*scene.node.find("cpu"), *scene.node.find("cpu-child")]
    for pid in worker:
        os.kill(pid, signal.SIGSTOP)
    send(scene, studies)
    nudged = "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND nudged_at IS NOT NULL"
    until(lambda: scene.query(nudged)[0][0] >= len(studies), "all jobs to be queued")
    lose()
    for pid in worker:
        os.kill(pid, signal.SIGCONT)
    until(lambda: killer.ping(scene.node), "Redis to answer")
    back = datetime.now(UTC)
    # The worker may have held one message when it was stopped: its job does not count.
    claimed = (
        f"SELECT started_at FROM jobs WHERE started_at > '{back:%Y-%m-%d %H:%M:%S.%f}' ORDER BY started_at"
    )
    until(lambda: len(scene.query(claimed)) >= 2, "jobs to be claimed")
    second = datetime.fromisoformat(scene.query(claimed)[1][0]).replace(tzinfo=UTC)
    after = (second - back).total_seconds()
    print(
        f"{what} with {len(studies)} jobs queued: the next is claimed {after:.1f} s after it answers",
        flush=True,
    )
    return after


def send(scene: Scene, studies: range) -> None:
    """Send studies, several at once, until all is acknowledged."""
    slices = scene.storm.slices
    errands = [
        Errand(
            start=0,
            steps=(Step(kind="send", images=tuple(Image(study, number) for number in range(slices))),),
        )
        for study in studies
    ]
    Traffic(scene.storm, errands, scene.node.made.dicom_port, Ledger()).run()


def all_done(scene: Scene, studies: range) -> None:
    """Wait until nothing of these or earlier studies is under way."""
    done = "SELECT COUNT(*) FROM studies WHERE state = 'done'"
    until(lambda: scene.query(done)[0][0] >= studies.stop, "all studies to be done")


def jobs(scene: Scene, state: str) -> int:
    """How many jobs are in a state."""
    return int(scene.query(f"SELECT COUNT(*) FROM jobs WHERE state = '{state}'")[0][0])


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:.0f} s in vain for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
