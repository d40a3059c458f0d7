"""Whether anything is lost or doubled while processes die, disks fill and servers go away.

    python -m benchmarks.chaos --kills 200 --images 10000 --seed 1 [--database postgres|URL] [--commitment]

A real `secondread up` with a tiny model, real senders and a real Orthanc; the plan of traffic and faults follows
from the seed. Afterwards a checker that asks none of our own code compares the senders' ledger with files, rows
and Orthanc. Prints a summary and exits 1 where a promise was broken. Root runs it on a small disk of its own,
which is filled as well.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import plan, storm
from tests.chaos.plan import Storm
from tests.chaos.storm import Outcome

#: How many violations of a kind are shown.
SHOWN = 10


def main() -> int:
    """Blow, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="of traffic and faults; default: 6 per kill")
    parser.add_argument("--calm", type=float, default=600, help="seconds that the rest may take afterwards")
    parser.add_argument("--database", default="sqlite", help="sqlite, postgres (a private one) or a URL")
    parser.add_argument("--commitment", action="store_true", help="ask the PACS for storage commitment")
    parser.add_argument("--keep", type=Path, help="a folder for everything, kept afterwards")
    parser.add_argument("--plan", action="store_true", help="only print the plan")
    arguments = parser.parse_args()
    chosen = Storm(
        seed=arguments.seed,
        images=arguments.images,
        kills=arguments.kills,
        seconds=arguments.seconds or 6.0 * max(10, arguments.kills),
        database=arguments.database == "postgres",
    )
    print("\n".join(described(chosen)), flush=True)
    if arguments.plan:
        return 0
    # Whoever ends us wants nothing to be left: the blocks below tidy up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with storm.scratch() as folder:
        place = arguments.keep or folder
        place.mkdir(parents=True, exist_ok=True)
        with storm.scene(
            chosen, place, database=arguments.database, commitment=arguments.commitment
        ) as scene:
            outcome = storm.blow(scene, say=_say, calm_within=arguments.calm)
    print("\n".join(summary(chosen, outcome)))
    return 0 if outcome.kept else 1


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def described(chosen: Storm) -> Iterator[str]:
    """The plan in numbers."""
    errands, faults = plan.errands(chosen), plan.faults(chosen)
    steps = [step.kind for errand in errands for step in errand.steps]
    yield (
        f"seed {chosen.seed}: {chosen.studies} studies of {chosen.slices} images by {len(errands)} errands, "
        f"{steps.count('abort')} aborted, {steps.count('break')} broken; {len(faults)} faults, "
        f"{chosen.kills} of them kills, in {chosen.seconds:.0f} s"
    )
    if not chosen.studies:
        return


def summary(chosen: Storm, outcome: Outcome) -> Iterator[str]:
    """The table of docs/reliability.md."""
    found = outcome.report
    counts, wrong = found.counts, found.violations
    yield f"| seed {chosen.seed} | |"
    yield "|---|---|"
    rows = {
        "seconds of storm, until calm": f"{outcome.seconds:.0f}, {outcome.calm_seconds:.0f}",
        "instances sent, acknowledged (each once)": f"{outcome.traffic['sent']}, {counts['images acknowledged']}",
        "acknowledged instances lost": len(wrong.get("image lost", [])),
        "studies, revisions": f"{counts['studies']}, {counts['revisions']}",
        "studies stuck": len(wrong.get("study stuck", [])),
        "jobs, attempts": f"{counts['jobs']}, {counts['attempts']}",
        "results expected, in the PACS": f"{counts['results expected']}, {counts['objects in the PACS']}",
        "results doubled": len(wrong.get("result doubled", [])),
        "results missing": len(wrong.get("result missing", [])),
        "senders": _listed(outcome.traffic, without=("sent", "acknowledged")),
        "SIGKILL to": _listed(outcome.faults, only="kill "),
        "other faults": _listed(outcome.faults, without=("kill ", "missed ")),
        "not there to be hit": _listed(outcome.faults, only="missed "),
    }
    for name, value in rows.items():
        yield f"| {name} | {value} |"
    yield from (
        f"| back after {name}: median, worst | {statistics.median(took):.1f} s, {max(took):.1f} s |"
        for name, took in sorted(outcome.back.items())
    )
    for kind, sentences in sorted(wrong.items()):
        yield f"{len(sentences)} x {kind}:"
        yield from (f"    {sentence}" for sentence in sentences[:SHOWN])
    yield from (f"the harness failed: {type(error).__name__}: {error}" for error in outcome.failures)
    yield "every promise was kept" if outcome.kept else "PROMISES WERE BROKEN"


def _listed(counts: dict[str, int], *, only: str = "", without: tuple[str, ...] = ()) -> str:
    """Counts in words."""
    chosen = {
        name.removeprefix(only): count
        for name, count in sorted(counts.items())
        if name.startswith(only) and not any(name.startswith(other) for other in without)
    }
    return ", ".join(f"{name} {count}" for name, count in chosen.items()) or "none"


if __name__ == "__main__":
    sys.exit(main())
