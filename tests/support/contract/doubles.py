"""What stands in for TensorRT, pycuda and CUDA in tests (tests/double), as a surface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.contract.surface import Surface, lacking

FOLDER = Path(__file__).resolve().parents[2] / "double"
_SCRIPT = Path(__file__).resolve().parent / "python_surface.py"


def offered(module: str, folder: Path = FOLDER) -> Surface:
    """What the double of a module offers, the double being a package in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), module], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-4000:]
    surface: Surface = json.loads(done.stdout)
    return surface


def invented(double: Surface, typings: Surface) -> list[str]:
    """What the double has that the typings do not know, or that it takes otherwise: one sentence for each name.

    How the double makes its objects is its own affair where the real class has no constructor.
    """
    real_constructors = {path for path in typings if path.endswith(".__init__")}
    asked = {
        path: entry
        for path, entry in double.items()
        if not path.endswith(".__init__") or path in real_constructors
    }
    return lacking(asked, typings)
