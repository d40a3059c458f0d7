"""A package's `example/`: an input, and what its model answered about it when the example was made.

It is data only: arrays without pickled objects, and JSON.

    input.npz      for each input's role: ROLE.voxels (slices, rows, columns), ROLE.affine (4 x 4, index ->
                   LPS mm), and perhaps ROLE.unit (UCUM), ROLE.scale, ROLE.in_patient (see `Geometry`)
    expected.npz   mask, a label map; image, what an image-to-image model made; where there are any
    expected.json  measurements, findings, boxes, and how much may differ
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from engines.errors import EngineError, PackageError
from engines.manifest import Manifest
from engines.manifest_entries import Strict
from engines.volume import Geometry, Point, Scale, Volume

FOLDER = "example"
INPUT, ARRAYS, VALUES = "input.npz", "expected.npz", "expected.json"

#: The Frame of Reference UID of all that an example holds.
_FRAME = "2.25.1"

#: What an example's arrays may take when they are unpacked: a small file may claim to hold terabytes.
_MOST_BYTES = 2 * 2**30


class ExpectedMeasurement(Strict):
    """One number."""

    key: str
    #: The segment that it is of; null for the whole image or all together.
    segment: int | None = None
    value: float
    #: By how much it may differ; null: as the example says for all.
    tolerance: Annotated[float, Field(ge=0)] | None = None


class ExpectedFinding(Strict):
    """One statement."""

    key: str
    present: bool


class ExpectedBox(Strict):
    """One box of a detector, see `Box`."""

    key: str
    score: float
    low: Point
    high: Point


class Expected(Strict):
    """What `expected.json` says."""

    format: Literal[1] = 1
    #: Least overlap of each label with its own in expected.npz, 0 to 1.
    minimum_dice: Annotated[float, Field(gt=0, le=1)] = 0.995
    #: Least intersection over union of a box with the one that was expected.
    minimum_iou: Annotated[float, Field(gt=0, le=1)] = 0.9
    #: By how much a number may differ, as a fraction of it, and beside that.
    relative: Annotated[float, Field(ge=0)] = 0.005
    absolute: Annotated[float, Field(ge=0)] = 1e-3
    measurements: tuple[ExpectedMeasurement, ...] = ()
    findings: tuple[ExpectedFinding, ...] = ()
    boxes: tuple[ExpectedBox, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """An input and its answer."""

    #: By the roles of the manifest's inputs.
    volumes: Mapping[str, Volume]
    expected: Expected
    #: Label map on the first input's grid; None where the model makes none.
    mask: NDArray[Any] | None = None
    #: What an image-to-image model made, on that grid.
    image: NDArray[Any] | None = None


def read(folder: Path, manifest: Manifest) -> Example | None:
    """The example of the package in `folder`; None where it has none.

    Raises PackageError, which names the file and what to do, where it cannot be used.
    """
    place = folder / FOLDER
    if not place.is_dir():
        return None
    volumes = read_input(place / INPUT, manifest)
    arrays = _arrays(place / ARRAYS) if (place / ARRAYS).exists() else {}
    shape = volumes[manifest.reference.called].geometry.shape
    for name, array in arrays.items():
        if name not in ("mask", "image") or array.shape != shape:
            raise PackageError(
                f"{place / ARRAYS}: {name} {array.shape}: only mask and image belong there, of the shape of "
                f"the input, {shape}: record the example again"
            )
    return Example(
        volumes=volumes,
        expected=_values(place / VALUES),
        mask=arrays.get("mask"),
        image=arrays.get("image"),
    )


def read_input(path: Path, manifest: Manifest) -> dict[str, Volume]:
    """The volumes of an input.npz, by role. Raises PackageError."""
    arrays = _arrays(path)
    volumes = {}
    for entry in manifest.inputs:
        role = entry.called
        missing = [part for part in ("voxels", "affine") if f"{role}.{part}" not in arrays]
        if missing:
            raise PackageError(f"{path}: there is no {role}.{missing[0]}: it needs one for each input's role")
        try:
            volumes[role] = _volume(role, arrays)
        except (EngineError, ValueError, TypeError) as error:
            raise PackageError(f"{path}: {role}: {error}: record the example again") from error
    return volumes


def _volume(role: str, arrays: Mapping[str, NDArray[Any]]) -> Volume:
    """One input's volume."""
    voxels = arrays[f"{role}.voxels"]
    if voxels.ndim != 3 or not np.issubdtype(voxels.dtype, np.number):
        raise ValueError(f"voxels are numbers along (slice, row, column), not {voxels.dtype} {voxels.shape}")
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    geometry = Geometry(
        shape=shape,
        affine=arrays[f"{role}.affine"],
        scale=Scale(str(arrays.get(f"{role}.scale", Scale.VOLUME.value))),
        in_patient=bool(arrays.get(f"{role}.in_patient", True)),
        # All affines of a file are of one patient.
        frame_of_reference_uid=_FRAME,
    )
    unit = str(arrays.get(f"{role}.unit", "1"))
    return Volume(
        array=voxels,
        geometry=geometry,
        unit=unit,
        frames=arrays.get(f"{role}.frames"),
        further=tuple(arrays.get(f"{role}.further", ())),
    )


def write(folder: Path, example: Example) -> None:
    """Write the example of the package in `folder`; the same example gives the same bytes."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    given: dict[str, Any] = {}
    for role, volume in example.volumes.items():
        given |= {
            f"{role}.voxels": volume.array,
            f"{role}.affine": volume.geometry.affine,
            f"{role}.unit": np.array(volume.unit),
            f"{role}.scale": np.array(volume.geometry.scale.value),
            f"{role}.in_patient": np.array(volume.geometry.in_patient),
        }
        if volume.frames is not None:
            given[f"{role}.frames"] = volume.frames
        if volume.further:
            given[f"{role}.further"] = np.stack(volume.further)
    (place / INPUT).write_bytes(_packed(given))
    made = {"mask": example.mask, "image": example.image}
    wanted = {name: array for name, array in made.items() if array is not None}
    if wanted:
        (place / ARRAYS).write_bytes(_packed(wanted))
    else:
        (place / ARRAYS).unlink(missing_ok=True)
    (place / VALUES).write_text(example.expected.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as a compressed .npz; numpy's own would hold the time of writing."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array) if array.ndim else array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            file.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return packed.getvalue()


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz. Raises PackageError; an object in it is refused, never unpickled."""
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
        if size > _MOST_BYTES:
            raise PackageError(f"{path}: unpacked it takes {size / 2**30:.0f} GiB: give a smaller example")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise PackageError(f"{path}: there is no such file: record the example again") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        said = "it holds objects, which are code" if "pickle" in str(error) else "this is no .npz of arrays"
        raise PackageError(f"{path}: {said}: record the example again") from error


def _values(path: Path) -> Expected:
    """What expected.json says. Raises PackageError."""
    try:
        return Expected.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}: record the example again") from error
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, problem["loc"])) or "the file"
        raise PackageError(
            f"{path}: {key}: {problem['msg']}: correct it, or record the example again"
        ) from error
