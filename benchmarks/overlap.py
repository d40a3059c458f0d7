"""Jobs at the same time: studies in a minute, and memory, for several ways of sharing the cores.

    python -m benchmarks.overlap [--studies 8] [--data demo/ct] [--rounds 2]

Each way is so many warm worker processes (work.jobs_at_once) with so many threads for the network in each
(work.threads). They take the same studies from one queue and do what a job does: read, infer, write and read back
the Segmentation and the report. Models are loaded, and one study answered, before the clock starts. The ways take
turns, --rounds times; the best of each counts. Memory is the sum of the processes' peaks; pages that they share
count in each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node import results, series
from dicom_node.results.context import ResultContext
from engines import loader, package, predict
from engines.runner import Runner
from worker import assets, machine, version


@dataclass(frozen=True, kw_only=True)
class Way:
    """How many jobs at once, and the threads of each."""

    jobs: int
    threads: int


def ways(cores: int) -> list[Way]:
    """One job with all cores; two that share them; two that each want all; as many as cores."""
    shared = [Way(jobs=2, threads=max(1, cores // 2)), Way(jobs=2, threads=cores), Way(jobs=cores, threads=1)]
    return list(dict.fromkeys([Way(jobs=1, threads=cores), *shared]))


def job(opened: package.ModelPackage, runner: Runner, paths: list[Path], folder: Path, threads: int) -> None:
    """What a worker does with one."""
    source = series.read_series(paths)
    found = predict.predict(opened, runner, source.volume, threads=threads)
    context = ResultContext(
        source=source,
        job_identity=folder.name,
        model=found.model,
        engine=found.engine,
        created_at=datetime.now(UTC),
        secondread_version=version.VERSION,
    )
    results.make_results(context, found, opened.manifest.results, folder)


def work(way: Way, data: Path, folder: Path, waiting: Any, ready: Any, peaks: Any) -> None:
    """One worker process: jobs until a number below 0 comes."""
    opened = package.open_package(assets.models() / "chest-ct")
    paths = sorted(data.rglob("*.dcm"))
    with closing(loader.open_runner(opened, threads=way.threads)) as runner:
        job(opened, runner, paths, folder / f"first-{os.getpid()}", way.threads)
        machine.forget_peak()
        ready.wait()
        while (number := waiting.get()) >= 0:
            job(opened, runner, paths, folder / f"job-{number}", way.threads)
    peaks.put(machine.peak_bytes())


def run(way: Way, data: Path, studies: int) -> tuple[float, float]:
    """Seconds for all studies, and megabytes of all processes."""
    context = multiprocessing.get_context("spawn")
    waiting, peaks, ready = context.Queue(), context.Queue(), context.Barrier(way.jobs + 1)
    with tempfile.TemporaryDirectory(prefix="secondread-overlap-") as name:
        shared = (way, data, Path(name), waiting, ready, peaks)
        processes = [context.Process(target=work, args=shared) for _ in range(way.jobs)]
        for process in processes:
            process.start()
        ready.wait()
        began = time.perf_counter()
        for number in [*range(studies), *[-1] * way.jobs]:
            waiting.put(number)
        megabytes = sum(peaks.get() for _ in processes) / 2**20
        took = time.perf_counter() - began
        for process in processes:
            process.join()
    return took, megabytes


def main() -> None:
    """Measure each way in turn, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--data", type=Path, default=assets.demo() / "ct")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[Way, list[tuple[float, float]]] = {way: [] for way in ways(os.cpu_count() or 1)}
    for _ in range(arguments.rounds):
        for way, measured in found.items():
            measured.append(run(way, arguments.data, arguments.studies))
            print(f"{way.jobs} x {way.threads}: {measured[-1][0]:.1f} s", flush=True)
    alone = min(took for took, _ in next(iter(found.values())))
    for way, measured in found.items():
        took, megabytes = min(measured)
        print(
            f"{way.jobs} at once, {way.threads} threads each: {arguments.studies / took * 60:.1f} studies a minute, "
            f"{alone / took:.2f} x of one at a time, {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    main()
