"""Kernels on the CPU: the CUDA source that a PTX file was made of, compiled as C++ and run thread by thread."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "on_the_cpu"
SOURCES = Path(__file__).resolve().parents[3] / "engines" / "kernels"

#: Where a test wants other options of the compiler, such as its sanitisers.
OPTIONS = "SECONDREAD_TEST_KERNEL_OPTIONS"

_TYPES: dict[str, Any] = {
    "P": ctypes.c_void_p,
    "i": ctypes.c_int,
    "q": ctypes.c_longlong,
    "f": ctypes.c_float,
}
_KERNEL = re.compile(r"__global__ void (\w+)\(")


class Kernel:
    """One function of a source."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        described = getattr(library, f"arguments_of_{name}")
        described.restype = ctypes.c_char_p
        #: As Python's struct has them.
        self.arguments: str = described().decode()
        self._launch = getattr(library, f"launch_{name}")

    def run(self, sizes: tuple[int, ...], values: list[int | float]) -> None:
        """All threads of all blocks; pointers are addresses on this machine."""
        held = [_TYPES[letter](value) for letter, value in zip(self.arguments, values, strict=True)]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
        self._launch((ctypes.c_uint * 6)(*sizes), pointers)


def of(ptx: bytes) -> dict[str, Kernel] | None:
    """The kernels by name; None where it is none of our PTX files."""
    (source, *_) = [
        path.with_suffix(".cu") for path in SOURCES.glob("*.ptx") if path.read_bytes() == ptx
    ] or [None]
    if source is None:
        return None
    names = _KERNEL.findall(source.read_text(encoding="utf-8"))
    library = ctypes.CDLL(str(_compiled(source, names)))
    entries = set(re.findall(r"\.visible \.entry (\w+)\(", ptx.decode()))
    return {name: Kernel(library, name) for name in names if name in entries}


def _compiled(source: Path, names: list[str]) -> Path:
    """The library, compiled once for all tests. Products and sums are rounded one by one, as in the PTX."""
    program = "\n".join(
        ['#include "grid.h"', f'#include "{source}"', *(f"KERNEL({name})" for name in names), ""]
    )
    options = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", f"-I{FOLDER}"]
    options += os.environ.get(OPTIONS, "").split()
    parts = [program, source.read_text(), *(path.read_text() for path in sorted(FOLDER.iterdir())), *options]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    library = Path(tempfile.gettempdir()) / f"secondread-kernels-{os.getuid()}-{digest}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        command = ["g++", *options, "-x", "c++", "-", "-o", str(partial)]
        subprocess.run(command, input=program, text=True, check=True)
        partial.replace(library)
    return library
