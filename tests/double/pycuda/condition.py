"""What the pretended machine is like: a JSON file that a test writes, read again whenever it changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "SECONDREAD_TEST_GPU"

USUAL: dict[str, Any] = {
    "gpu": "Pretended GPU",
    "compute_capability": [9, 0],
    "tensorrt": "11.4.0.106",
    # Of CUDA that the driver is for, as cuDriverGetVersion says it.
    "driver": 13000,
    "devices": 1,
    "megabytes": 4096,
    # Patches until the device breaks; null: it holds.
    "lost_after": None,
    # Operators that the parser does not know.
    "refuses": [],
    "full_at_build": False,
    "seconds_of_build": 0.0,
    # Whether work on a stream can be recorded into a graph.
    "records": True,
    # Whether the driver knows the version of PTX that kernels are shipped in.
    "reads_ptx": True,
    # Added to the float outputs of every plan.
    "bias": 0.0,
}

_read: tuple[tuple[int, int], dict[str, Any]] | None = None


def get(key: str) -> Any:
    """A value of today's machine."""
    return _now()[key]


def _now() -> dict[str, Any]:
    global _read
    path = os.environ.get(VARIABLE)
    if not path:
        return USUAL
    status = Path(path).stat()
    stamp = (status.st_mtime_ns, status.st_ino)
    if _read is None or _read[0] != stamp:
        _read = (stamp, USUAL | json.loads(Path(path).read_text(encoding="utf-8")))
    return _read[1]
