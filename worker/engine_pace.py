"""How fast a model's network is on this machine's engines: its plan, the fallback and the reference, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from engines import fit, loader, manifest_prompts, tiling
from engines.errors import DeviceError, PlanError
from engines.loader import Engine
from engines.package import ModelPackage
from engines.plans import Plans
from engines.runner import Runner
from engines.windows import Network, Window
from worker import parity
from worker.pace import rank


class EnginePace(BaseModel):
    """One engine."""

    #: What it is asked for: "openvino", "tensorrt", ...
    asked: str
    #: As it calls itself; "" where it is missing.
    engine: str = ""
    #: Why it was not measured; "" where it was.
    missing: str = ""
    #: Seconds for a patch, one call after the other: half of the calls took no longer, nine of ten, 99 of 100.
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    #: Patches in a second where the next is sent before the last is back.
    per_second: float = 0.0
    #: Times the reference's patches in a second; 0 where it is missing.
    speed_up: float = 0.0
    #: Device memory that the open network holds; None on a CPU.
    megabytes: float | None = None
    #: Seconds of a patch in each stage, where the engine tells: stages of several patches overlap.
    stages: dict[str, float] = {}


class EnginesPace(BaseModel):
    """A model's network on all of them; the reference is the last."""

    model: str
    version: str
    #: What it was shown.
    patch: str
    rounds: int
    engines: list[EnginePace]


@dataclass(kw_only=True, eq=False)
class _Lap:
    """An open network, and the seconds of its calls."""

    asked: Engine
    runner: Runner
    network: Network
    took: list[float] = field(default_factory=list)

    def run(self, patches: Mapping[str, NDArray[np.float32]], calls: int) -> float:
        """Seconds for so many calls of full batches."""
        windows = [Window(corner=(0, 0, 0))] * (self.network.batch * calls)
        began = time.perf_counter()
        for _ in self.network.answers(patches, windows):
            pass
        return time.perf_counter() - began


def measure(
    package: ModelPackage,
    kept: Plans,
    *,
    engines: Sequence[Engine],
    threads: int | None,
    rounds: int,
    progress: Callable[[int], None],
) -> EnginesPace:
    """Show each of `engines`, the reference last, the same patch of noise in turn; `progress` hears of each round.

    A plan is measured whatever the parity gate says of it. Raises EngineError; an engine whose device or plan is not
    there is only missing.
    """
    patches = parity.patches(package.manifest)
    with ExitStack() as opened:
        found: dict[Engine, _Lap | str] = {
            engine: _opened(package, kept, engine, threads, opened) for engine in engines
        }
        laps = [lap for lap in found.values() if isinstance(lap, _Lap)]
        for lap in laps:
            # The first call of a network is slower than all others.
            lap.run(patches, 1)
        for number in range(rounds):
            for lap in laps:
                lap.took.append(lap.run(patches, 1) / lap.network.batch)
            progress(number)
        paces = [
            _pace(lap, patches, rounds) if isinstance(lap, _Lap) else EnginePace(asked=engine, missing=lap)
            for engine, lap in found.items()
        ]
    slowest = paces[-1].per_second
    return EnginesPace(
        model=package.manifest.name,
        version=package.manifest.version,
        patch=" x ".join(map(str, package.manifest.windows.patch)),
        rounds=rounds,
        engines=[
            pace.model_copy(update={"speed_up": pace.per_second / slowest if slowest else 0.0})
            for pace in paces
        ],
    )


def _opened(
    package: ModelPackage, kept: Plans, engine: Engine, threads: int | None, opened: ExitStack
) -> _Lap | str:
    """The network on an engine, or why there is none."""
    try:
        runner = loader.open_runner(package, engine=engine, threads=threads, kept=kept, unverified=True)
    except (DeviceError, PlanError) as error:
        return str(error)
    opened.callback(runner.close)
    fit.check_runner(package, runner)
    settings = package.manifest.windows.model_copy(update={"skip_at_most": None})
    prompts = manifest_prompts.given(package.manifest.prompts, {})
    return _Lap(asked=engine, runner=runner, network=tiling.network_for(runner, settings, prompts))


def _pace(lap: _Lap, patches: Mapping[str, NDArray[np.float32]], rounds: int) -> EnginePace:
    """What an engine's calls took; and how many there are in a second, several of them under way."""
    before = _stages(lap.runner)
    together = lap.run(patches, rounds)
    shown = rounds * lap.network.batch
    return EnginePace(
        asked=lap.asked,
        engine=lap.runner.description,
        p50=rank(lap.took, 0.5),
        p90=rank(lap.took, 0.9),
        p99=rank(lap.took, 0.99),
        per_second=shown / together,
        megabytes=lap.runner.device_bytes / 2**20 if lap.runner.device_bytes else None,
        stages={name: (total - before[name]) / shown for name, total in _stages(lap.runner).items()},
    )


def _stages(runner: Any) -> dict[str, float]:
    """The seconds that a runner counts by stage; none where it does not."""
    return dict(getattr(runner, "seconds", {}))
