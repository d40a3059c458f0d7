"""A bundle's preprocessing as a manifest's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines.importing.monai_chain import Arguments, Step, Unsupported, taken
from engines.manifest_inputs import of_three_axes

#: Steps that change nothing but types, shapes of arrays and where they lie.
_NEUTRAL = frozenset(
    {
        "LoadImage", "EnsureChannelFirst", "AddChannel", "AsChannelFirst", "EnsureType", "ToTensor", "CastToType",
        "ToDevice", "SelectItems", "DeleteItems", "Identity", "ToNumpy",
    }
)  # fmt: skip

#: MONAI's letters for the head and the feet; ours are none of its.
_LETTERS = str.maketrans("SI", "HF", "HF")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a bundle brings an image before its network."""

    #: Directions of the axes in this project's letters; None where the bundle takes them as they are.
    orientation: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    sampling: str = "box"
    #: The step that leaves the background away.
    crop: dict[str, Any] | None = None
    intensity: dict[str, Any] | None = None
    #: Whether intensities are scaled before resampling or after it.
    scaled: str = "before"
    #: Whether statistics of intensities are those of each channel.
    channel_wise: bool = True

    @property
    def resampled(self) -> bool:
        """Whether the network's grid is another one than the image's."""
        return self.spacing_mm is not None or self.size is not None


def seen(chain: Sequence[Step], unsupported: Unsupported) -> Seen:
    """What the chain does to the image, in the order in which it stands; the rest goes to `unsupported`."""
    found = Seen()
    key = next((_keys(step)[:1] for step in chain if step.name == "LoadImage"), [])
    for step in chain:
        if key and _keys(step) and key[0] not in _keys(step):
            continue
        if step.name not in _NEUTRAL:
            found = taken(found, step, _STEPS, unsupported)
    return found


def _keys(step: Step) -> list[Any]:
    """The entries of a dictionary that the step is about."""
    keys = step.arguments.get("keys", [])
    return keys if isinstance(keys, list) else [keys]


def _orientation(found: Seen, step: Step, arguments: Arguments, unsupported: Unsupported) -> Seen:
    """Orientation(d): MONAI's letters say, like ours, where an axis runs to."""
    axcodes = str(arguments.take("axcodes", "")).upper()
    arguments.refuse("as_closest_canonical", (False,), False)
    arguments.refuse("labels", (None,), None)
    arguments.refuse("lazy", (False, True), False)
    if found.resampled:
        unsupported.add(step.where, "it comes after resampling: put Orientation before Spacing")
    try:
        return replace(found, orientation=of_three_axes(axcodes.translate(_LETTERS)))
    except ValueError:
        unsupported.add(
            step.where,
            f"axcodes: {axcodes} is not supported; one of L and R, one of A and P, one of S and I are",
        )
        return found


def _spacing(found: Seen, step: Step, arguments: Arguments, unsupported: Unsupported) -> Seen:
    """Spacing(d): a grid of exactly that spacing from the first voxel on."""
    pixdim = arguments.take("pixdim", 1.0)
    pixdim = list(pixdim) if isinstance(pixdim, list | tuple) else [pixdim]
    pixdim = [*pixdim, *pixdim[-1:] * (3 - len(pixdim))]
    arguments.refuse("mode", ("bilinear",), "bilinear")
    arguments.refuse("padding_mode", ("border",), "border")
    for key in ("diagonal", "scale_extent"):
        arguments.refuse(key, (False,), False)
    for key in ("min_pixdim", "max_pixdim"):
        arguments.refuse(key, (None,), None)
    # Where the grid is meant exactly, whose corners count makes no difference to it.
    for key in ("align_corners", "recompute_affine", "dtype", "image_only", "ensure_same_shape", "lazy"):
        arguments.take(key)
    _once(found, step, unsupported)
    if not pixdim or not all(isinstance(one, int | float) and one > 0 for one in pixdim):
        unsupported.add(step.where, f"pixdim: {pixdim} is not supported; a length in mm for each axis is")
        return found
    return replace(found, spacing_mm=tuple(float(one) for one in pixdim[:3]), sampling="first-voxel")


def _resize(found: Seen, step: Step, arguments: Arguments, unsupported: Unsupported) -> Seen:
    """Resize(d) by linear interpolation: every image at one size."""
    size = arguments.take("spatial_size")
    arguments.refuse("mode", ("trilinear", "bilinear"), "area")
    for key, plain in (("size_mode", "all"), ("align_corners", None), ("anti_aliasing", False)):
        arguments.refuse(key, (plain, False) if key == "align_corners" else (plain,), plain)
    for key in ("anti_aliasing_sigma", "dtype", "lazy"):
        arguments.take(key)
    _once(found, step, unsupported)
    if not (isinstance(size, list) and len(size) == 3 and all(isinstance(n, int) and n > 0 for n in size)):
        unsupported.add(step.where, f"spatial_size: {size} is not supported; three numbers of voxels are")
        return found
    return replace(found, size=tuple(size), sampling="box-linear")


def _once(found: Seen, step: Step, unsupported: Unsupported) -> None:
    """Note a second resampling."""
    if found.resampled:
        unsupported.add(step.where, "the image is resampled twice; once is supported")


def _foreground(found: Seen, step: Step, arguments: Arguments, unsupported: Unsupported) -> Seen:
    """CropForeground(d), of what is above 0 in the image itself."""
    margin = arguments.take("margin", 0)
    source = arguments.take("source_key")
    arguments.refuse("select_fn", (None,), None)
    arguments.refuse("channel_indices", (None,), None)
    arguments.refuse("k_divisible", (1,), 1)
    # Without a margin no box leaves the image, whatever would be done there.
    for key in ("allow_smaller", "mode", "start_coord_key", "end_coord_key", "lazy", "return_coords"):
        arguments.take(key)
    if source is not None and source not in _keys(step):
        unsupported.add(step.where, f"source_key: {source} is not the image")
    if margin != 0:
        unsupported.add(step.where, f"margin: {margin} is not supported; 0 is")
    if found.resampled or found.intensity is not None or found.crop is not None:
        unsupported.add(
            step.where, "it is supported once, before the image is resampled and its intensities scaled"
        )
    return replace(found, crop={"kind": "crop", "above": 0.0})


def _range(found: Seen, step: Step, arguments: Arguments, unsupported: Unsupported) -> Seen:
    """ScaleIntensityRange(d): linear, and clipped to the target range where it is."""
    low, high = arguments.take("a_min"), arguments.take("a_max")
    to = (arguments.take("b_min"), arguments.take("b_max"))
    clip = bool(arguments.take("clip", False))
    arguments.take("dtype")
    if None in to and (clip or to != (None, None)):
        unsupported.add(step.where, "b_min and b_max are supported both or not at all")
    if not all(isinstance(one, int | float) for one in (low, high)) or low == high:
        unsupported.add(step.where, "a_min and a_max must be two numbers that differ")
        return found
    target = (0.0, 1.0) if None in to else to
    if not all(isinstance(one, int | float) for one in target) or target[0] == target[1]:
        unsupported.add(step.where, "b_min and b_max must be two numbers that differ")
        return found
    ends = [float(one) for one in target]
    entry = {"kind": "linear", "low": float(low), "high": float(high), "to": ends, "clip": clip}
    return _scaled(found, step, entry, unsupported)


def _normalise(found: Seen, step: Step, arguments: Arguments, unsupported: Unsupported) -> Seen:
    """NormalizeIntensity(d): by the image's own mean and deviation, or by given ones."""
    subtrahend, divisor = arguments.take("subtrahend"), arguments.take("divisor")
    nonzero = bool(arguments.take("nonzero", False))
    found = replace(found, channel_wise=bool(arguments.take("channel_wise", False)))
    arguments.take("dtype")
    if subtrahend is None and divisor is None:
        return _scaled(found, step, {"kind": "z-score", "nonzero": nonzero}, unsupported)
    numbers = all(isinstance(one, int | float) for one in (subtrahend, divisor))
    if not numbers or not divisor or nonzero:
        unsupported.add(step.where, "subtrahend and divisor are supported as two numbers, without nonzero")
        return found
    low = float(subtrahend)
    entry = {"kind": "linear", "low": low, "high": low + float(divisor), "to": [0.0, 1.0], "clip": False}
    return _scaled(found, step, entry, unsupported)


def _min_max(found: Seen, step: Step, arguments: Arguments, unsupported: Unsupported) -> Seen:
    """ScaleIntensity(d): the image's own range to [minv, maxv]."""
    to = [arguments.take("minv", 0.0), arguments.take("maxv", 1.0)]
    arguments.refuse("factor", (None,), None)
    found = replace(found, channel_wise=bool(arguments.take("channel_wise", False)))
    arguments.take("dtype")
    if not all(isinstance(one, int | float) for one in to) or to[0] == to[1]:
        unsupported.add(step.where, "minv and maxv must be two numbers that differ")
        return found
    return _scaled(found, step, {"kind": "min-max", "to": [float(one) for one in to]}, unsupported)


def _scaled(found: Seen, step: Step, entry: dict[str, Any], unsupported: Unsupported) -> Seen:
    """The image with its intensities scaled."""
    if found.intensity is not None:
        unsupported.add(step.where, "intensities are scaled twice; once is supported")
    return replace(found, intensity=entry, scaled="after" if found.resampled else "before")


_STEPS = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "CropForeground": _foreground,
    "Resize": _resize,
    "ScaleIntensityRange": _range,
    "NormalizeIntensity": _normalise,
    "ScaleIntensity": _min_max,
}
