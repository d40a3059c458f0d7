"""The files of an nnU-Net v2 results folder, held to what nnU-Net writes: a damaged one is told by its key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from engines.errors import PackageError

#: Of a wrong value so many signs are shown.
_SHOWN = 80


@dataclass(kw_only=True)
class Refusals:
    """What no package can say, collected, so that all of it is told at once."""

    file: Path
    problems: list[str] = field(default_factory=list)

    def add(self, key: str, value: object, why: str) -> None:
        """Note that `key` has a `value` that is not supported, and why."""
        self.problems.append(f"{self.file}: {key}: {value}: {why}")

    def settle(self) -> None:
        """Raise PackageError with every problem, a line each, where there are any."""
        if self.problems:
            raise PackageError("\n".join(self.problems))


class Part(BaseModel):
    """A mapping of which the keys below are read, each where it is there; others may be anything."""

    model_config = ConfigDict(extra="ignore", strict=True)


_Count = Annotated[int, Field(gt=0)]
_Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Order = Annotated[int, Field(ge=0)]


class _Resampling(Part):
    """How images or labels are resampled."""

    is_seg: bool = False
    order: _Order = 0
    order_z: _Order = 0
    force_separate_z: bool | None = None
    separate_z_anisotropy_threshold: float = 0.0


class _Architecture(Part):
    """What a network is built of."""

    network_class_name: str = ""
    arch_kwargs: dict[str, Any] = {}
    imported: Annotated[list[str], Field(alias="_kw_requires_import")] = []


class Configuration(Part):
    """One configuration with what it inherits."""

    patch_size: Annotated[list[_Count], Field(min_length=2, max_length=3)]
    spacing: list[_Length]
    normalization_schemes: list[str]
    use_mask_for_norm: list[bool]
    previous_stage: str | None = None
    resampling_fn_data_kwargs: _Resampling = _Resampling()
    resampling_fn_seg_kwargs: _Resampling = _Resampling()
    resampling_fn_probabilities_kwargs: _Resampling = _Resampling()
    architecture: _Architecture = _Architecture()
    # Instead of an architecture, before nnU-Net 2.4:
    n_conv_per_stage_encoder: list[_Count] = []
    n_conv_per_stage_decoder: list[_Count] = []
    UNet_base_num_features: _Count = 1
    unet_max_num_features: _Count = 1

    @field_validator("spacing")
    @classmethod
    def _is_that_of_the_patch(cls, spacing: list[float], others: ValidationInfo) -> list[float]:
        patch = others.data.get("patch_size", spacing)
        if len(spacing) != len(patch):
            raise ValueError(f"it must be one length for each of the {len(patch)} axes of patch_size")
        return spacing


class _Named(Part):
    """A configuration by itself, which may inherit the rest."""

    inherits_from: str | None = None


class _Plans(Part):
    """plans.json."""

    configurations: dict[str, _Named] = {}
    transpose_forward: list[int] = [0, 1, 2]
    foreground_intensity_properties_per_channel: dict[str, dict[str, Any]] | None = None
    foreground_intensity_properties_by_modality: dict[str, dict[str, Any]] | None = None

    @field_validator("transpose_forward")
    @classmethod
    def _names_each_axis(cls, given: list[int]) -> list[int]:
        if sorted(given) != [0, 1, 2]:
            raise ValueError("it must name each of the axes 0, 1 and 2 once")
        return given


def _numbers(given: Any) -> list[int]:
    """A label's number, or those of a region: nnU-Net takes whatever int() takes."""
    try:
        return [int(one) for one in (given if isinstance(given, list) else [given])]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("it must be a number, or a list of numbers") from None


def _number(given: str) -> str:
    """A channel's number as a key."""
    if not given.isdecimal():
        raise ValueError("channels are called by their numbers, from 0 on")
    return given


_Channels = dict[Annotated[str, AfterValidator(_number)], Any]


class _Dataset(Part):
    """dataset.json."""

    labels: dict[str, Annotated[list[int], PlainValidator(_numbers)]]
    regions_class_order: list[int] | None = None
    channel_names: _Channels | None = None
    modality: _Channels | None = None


class Checkpoint(Part):
    """What is read of a fold's checkpoint. Weights that are none are told when they are loaded."""

    network_weights: dict[str, Any]
    init_args: dict[str, Any]
    trainer_name: str
    inference_allowed_mirroring_axes: Sequence[_Order] | None = None


_FILES: Mapping[str, type[Part]] = {"plans.json": _Plans, "dataset.json": _Dataset}


def read(folder: Path, name: str) -> dict[str, Any]:
    """plans.json or dataset.json. Raises PackageError where it cannot be read: every key that is of another kind."""
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    # What is nested too deeply is a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"{path}: it cannot be read as JSON: {error}: copy it again") from error
    if not isinstance(content, dict):
        raise PackageError(f"{path}: it must be a mapping of keys: copy it again")
    require(_FILES[name], content, path)
    return content


def require(kind: type[Part], content: Mapping[str, Any], file: Path, key: str = "") -> None:
    """Raise PackageError, a line for each, where keys of `content`, which stands at `key`, are of another kind."""
    refusals = Refusals(file=file)
    try:
        kind.model_validate(content)
    except pydantic.ValidationError as error:
        for problem in error.errors():
            place = _dotted((*([key] if key else []), *problem["loc"]))
            refusals.add(place, _shown(problem), f"{_why(problem)}: correct it, or copy the file again")
    refusals.settle()


def _dotted(location: Iterable[int | str]) -> str:
    """("configurations", "base", "spacing", 0) as configurations.base.spacing[0]."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]"]
    return "".join(parts).lstrip(".")


def _shown(problem: Any) -> str:
    """The wrong value, or the beginning of it."""
    return "nothing" if problem["type"] == "missing" else repr(problem["input"])[:_SHOWN]


def _why(problem: Any) -> str:
    """What pydantic, or a validator here, says is wrong."""
    return str(problem["msg"]).removeprefix("Value error, ").partition(" or instance of ")[0]
