"""How long a model takes and how much memory, stage by stage, on this machine."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from dicom_node import results
from dicom_node.results.context import ResultContext
from dicom_node.series import SeriesImages
from engines import example
from engines.answer import Clock
from engines.cascade import Stage
from engines.findings import Findings
from engines.loader import Engine
from engines.package import ModelPackage
from engines.runner import usable_cores
from engines.volume import Volume
from worker import golden, inference, machine, shelf, version
from worker.errors import WorkerError
from worker.series_files import Files

#: What all stages together are called.
TOTAL = "total"


class StagePace(BaseModel):
    """One stage over all rounds."""

    stage: str
    #: Seconds: half of the rounds took no longer, nine of ten, and none.
    median: float
    p90: float
    longest: float
    #: Of the total, of the medians.
    share: float
    #: The most that the process had in memory meanwhile; None where the system does not tell.
    peak_megabytes: float | None


class Pace(BaseModel):
    """A model on this machine."""

    model: str
    version: str
    engine: str
    threads: int
    #: What it was measured on, e.g. "32 x 64 x 80, the package's example".
    input: str
    rounds: int
    #: From the package on disk to the open network: once in a worker's life.
    load_seconds: float
    #: By how much the process grew by that.
    load_megabytes: float
    #: The first answer: after it everything is warm.
    first_seconds: float
    stages: list[StagePace]
    #: Answers in a minute, one after the other.
    per_minute: float


class Gauge(Clock):
    """A clock that also sees how much memory each stage needs."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block, and note the most that the process had in memory meanwhile."""
        machine.forget_peak()
        with super().stage(name):
            yield
        self.peaks[name] = max(self.peaks.get(name, 0), machine.peak_bytes())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """What is measured again and again."""

    stage: Stage
    threads: int
    #: Of the series; None for the package's example.
    files: Files | None
    #: The example's, by role; empty for a series.
    volumes: Mapping[str, Volume]
    folder: Path

    def answer(self, gauge: Gauge) -> Findings:
        """One round: as a job, where there are DICOM files."""
        manifest = self.stage.package.manifest
        if self.files is None:
            return self._predict(self.volumes, gauge)
        with gauge.stage("read"):
            source = inference.read_files(self.files, manifest.reference)
        found = self._predict({manifest.reference.called: source.volume}, gauge)
        with gauge.stage("encode"):
            results.make_results(self._context(source, found), found, manifest.results, self.folder)
        return found

    def _predict(self, volumes: Mapping[str, Volume], gauge: Gauge) -> Findings:
        found = golden.about(self.stage, volumes, threads=self.threads, clock=gauge)
        # The models that answer first are stages by their names.
        gauge.seconds |= {name: took for name, took in found.seconds.items() if name not in gauge.seconds}
        return found

    def _context(self, source: SeriesImages, found: Findings) -> ResultContext:
        return ResultContext(
            source=source,
            job_identity=self.stage.package.digest,
            model=found.model,
            engine=found.engine,
            created_at=datetime.now(UTC),
            secondread_version=version.VERSION,
        )


def measure(
    package: ModelPackage,
    source: Path | None,
    *,
    beside: Sequence[Path] = (),
    engine: Engine,
    threads: int | None,
    rounds: int,
    progress: Callable[[int], None],
) -> Pace:
    """Load the package, answer once to warm up, then `rounds` times; `progress` hears of each round.

    `source` is a folder of DICOM files of which the model takes one series; None is the package's example.
    Raises WorkerError where there is neither, SeriesError or EngineError where there is no answer.
    """
    files, volumes, said = _input(package, source)
    count = threads or usable_cores()
    before, began = machine.resident_bytes(), time.perf_counter()
    with (
        closing(shelf.holding(package, beside, engine=engine, threads=count)) as opened,
        tempfile.TemporaryDirectory(prefix="secondread-pace-") as folder,
    ):
        stage = opened.stage(package.manifest.name)
        loaded, grown = time.perf_counter() - began, machine.resident_bytes() - before
        bench = _Bench(
            stage=stage,
            threads=count,
            files=files,
            volumes=volumes,
            folder=Path(folder),
        )
        gauges = []
        for number in range(rounds + 1):
            gauges.append(gauge := Gauge())
            found = bench.answer(gauge)
            progress(number)
    stages = _stages(gauges[1:])
    return Pace(
        model=package.manifest.name,
        version=package.manifest.version,
        engine=stage.runner.description,
        threads=count,
        input=f"{' x '.join(map(str, found.geometry.shape))}, {said}",
        rounds=rounds,
        load_seconds=loaded,
        load_megabytes=grown / 2**20,
        first_seconds=sum(gauges[0].seconds.values()),
        stages=stages,
        per_minute=60 / stages[-1].median if stages[-1].median else 0.0,
    )


def _input(package: ModelPackage, source: Path | None) -> tuple[Files | None, Mapping[str, Volume], str]:
    """The files of the series, or the volumes of the example, and what that is in words."""
    if source is not None:
        if len(package.manifest.inputs) > 1:
            raise WorkerError(
                f"{package.manifest.name} looks at several series: measure it on its example, without a folder"
            )
        return golden.the_series(package, source), {}, "DICOM files"
    case = example.read(package.folder, package.manifest)
    if case is None:
        raise WorkerError(
            f"{package.manifest.name} has no example: give a folder of DICOM files, or make one with "
            "`secondread models check MODEL --record FOLDER`"
        )
    return None, case.volumes, "the package's example"


def _stages(gauges: Sequence[Gauge]) -> list[StagePace]:
    """Each stage in the order of the work, and the total."""
    totals = [sum(gauge.seconds.values()) for gauge in gauges]
    whole = rank(totals, 0.5)
    order = ("read", "preprocess", "infer", "postprocess", "measure", "encode")
    names = sorted(gauges[0].seconds, key=lambda name: order.index(name) if name in order else len(order))
    made = []
    for name in names:
        took = [gauge.seconds.get(name, 0.0) for gauge in gauges]
        made.append(_stage(name, took, max(gauge.peaks.get(name, 0) for gauge in gauges), whole))
    return [
        *made,
        _stage(TOTAL, totals, max(max(gauge.peaks.values(), default=0) for gauge in gauges), whole),
    ]


def _stage(name: str, took: Sequence[float], peak: int, whole: float) -> StagePace:
    median = rank(took, 0.5)
    return StagePace(
        stage=name,
        median=median,
        p90=rank(took, 0.9),
        longest=max(took),
        share=median / whole if whole else 0.0,
        peak_megabytes=peak / 2**20 if peak else None,
    )


def rank(values: Sequence[float], part: float) -> float:
    """The nearest-rank percentile."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]
