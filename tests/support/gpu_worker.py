"""Plans that are built on the pretended GPU and accepted, for tests of what serves from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines import gpu
from engines.package import ModelPackage
from engines.plans import Plans, Record, Verdict
from worker.device import Device
from worker.sections import Engine
from worker.shelf import Shelf

#: Half precision is another test's.
FLOAT32 = {"precision": "float32"}


def verdict(*, agrees: bool = True, differences: tuple[str, ...] = ()) -> Verdict:
    """What the parity gate says."""
    return Verdict(
        agrees=agrees,
        case="patch",
        engine="tensorrt",
        reference="onnxruntime",
        largest_difference=0.0,
        tolerance=0.02,
        dice=None,
        min_dice=0.995,
        differences=differences,
        speed_up=1.0,
        judged_at=datetime(2026, 11, 20, tzinfo=UTC),
    )


def accept(package: ModelPackage, kept: Plans, *, megabytes: float | None = None, **said: Any) -> Record:
    """Build a package's plan, and have it judged."""
    return kept.judge(gpu.build(package, kept), verdict(**said), megabytes=megabytes)


def shelf(
    folders: Sequence[Path],
    kept: Plans,
    *,
    fallback: Engine | None = "openvino",
    megabytes: float | None = None,
    memory: float | None = None,
) -> Shelf:
    """A worker's shelf on the GPU; `megabytes` of its memory, `memory` of the process'."""
    most = None if megabytes is None else int(megabytes * 2**20)
    device = Device(engine="tensorrt", kept=kept, threads=1, most=most)
    return Shelf(folders, engine=fallback, threads=1, megabytes=memory, device=device)
