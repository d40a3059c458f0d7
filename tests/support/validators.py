"""What programs that others wrote say of an object, and read from it."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import peers

#: The validator's style sheet exceeds the limits that newer Java has on XPath expressions.
_JAVA = "-Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0"

_NRRD_TYPES: dict[str, Any] = {
    "unsigned char": np.uint8,
    "short": np.int16,
    "unsigned short": np.uint16,
    "float": np.float32,
}


def run(program: str, *arguments: str | Path) -> str:
    """What the program says, on either stream."""
    done = subprocess.run(
        [peers.path(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "JAVA_TOOL_OPTIONS": _JAVA},
    )
    return done.stdout + done.stderr


def errors(said: str) -> list[str]:
    """The lines that are complaints."""
    return [line for line in said.splitlines() if "Error" in line]


def labels(segmentation: Path, folder: Path, numbers: tuple[int, ...]) -> dict[int, list[tuple[int, ...]]]:
    """Where dcmqi finds the voxels of each segment or label, as `located` gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ("--inputDICOM", segmentation, "--outputDirectory", folder, "--outputType", "nrrd")
    said = run("segimage2itkimage", *arguments)
    written = sorted(folder.glob("*.nrrd"))
    assert written, said
    # A label map is one image of all labels, a BINARY Segmentation one for each.
    return {
        number: read_nrrd(folder / f"{number}.nrrd" if len(written) > 1 else written[0], number)
        for number in numbers
    }


def located(index: NDArray[np.int64], affine: NDArray[np.float64]) -> list[tuple[int, ...]]:
    """Points in the patient, in hundredths of a millimetre, sorted."""
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return sorted(map(tuple, np.rint(points * 100).astype(int).tolist()))


def read_nrrd(path: Path, label: int) -> list[tuple[int, ...]]:
    """The points of the voxels of this label."""
    array, affine = nrrd(path)
    return located(np.argwhere(array == label), affine)


def nrrd(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The voxels and where they lie, LPS mm."""
    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    assert fields["space"] == "left-posterior-superior"
    raw = gzip.decompress(data) if fields["encoding"] == "gzip" else data
    sizes = [int(size) for size in fields["sizes"].split()]
    array = np.frombuffer(raw, _NRRD_TYPES[fields["type"]]).reshape(sizes, order="F")
    affine = np.eye(4)
    for axis, direction in enumerate(fields["space directions"].split()):
        affine[:3, axis] = vector(direction)
    affine[:3, 3] = vector(fields["space origin"])
    return array, affine


def vector(text: str) -> list[float]:
    """An nrrd vector, e.g. "(1,0,0)"."""
    return [float(part) for part in text.strip("()").split(",")]
