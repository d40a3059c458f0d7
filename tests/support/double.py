"""The GPU's libraries as doubles on the CPU (tests/double), and the pretended machine that they see."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "double"
#: As tests/double/pycuda/condition.py has it.
VARIABLE = "SECONDREAD_TEST_GPU"

_OURS = (
    "engines.cuda",
    "engines.build",
    "engines.trt",
    "engines.device_memory",
    "engines.device_sums",
    "engines.device_labels",
)
_THEIRS = ("pycuda", "tensorrt", "cuda")


class Machine:
    """What the doubles pretend; see tests/double/pycuda/condition.py for what there is to change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, Any] = {}
        self.change()

    def change(self, **values: Any) -> None:
        """From now on, for every process that looks at this machine."""
        self._values |= values
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._values), encoding="utf-8")
        partial.replace(self._path)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to see it."""
        before = os.environ.get("PYTHONPATH")
        return {
            "PYTHONPATH": os.pathsep.join([str(FOLDER), *([before] if before else [])]),
            VARIABLE: str(self._path),
        }


@contextmanager
def installed(folder: Path) -> Iterator[Machine]:
    """In this process the doubles are what `import tensorrt` finds; a new machine, whose device nobody opened."""
    machine = Machine(folder / "gpu.json")
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder / "gpu.json")
    sys.path.insert(0, str(FOLDER))
    _forget()
    try:
        yield machine
    finally:
        _forget()
        sys.path.remove(str(FOLDER))
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def _forget() -> None:
    """Modules keep what they saw: the next import sees the machine as it is then."""
    for name in [*sys.modules]:
        if name in _OURS or name.partition(".")[0] in _THEIRS:
            del sys.modules[name]
    importlib.invalidate_caches()
    engines = sys.modules.get("engines")
    for name in _OURS:
        if engines is not None and hasattr(engines, name.partition(".")[2]):
            delattr(engines, name.partition(".")[2])
