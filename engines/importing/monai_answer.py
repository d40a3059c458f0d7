"""A bundle's inferer and postprocessing as a manifest's window and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines.importing.monai_chain import Arguments, Step, Unsupported, taken

_NEUTRAL = frozenset(
    {
        "EnsureType",
        "ToTensor",
        "ToDevice",
        "SaveImage",
        "SelectItems",
        "DeleteItems",
        "CastToType",
        "Identity",
    }
)

#: The same as the engine's gaussian (window_sums.SIGMA).
_SIGMA = 0.125

#: The least weight in MONAI's gaussian (monai.data.utils.compute_importance_map).
_LEAST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a bundle makes of its network's values."""

    activation: str = "none"
    #: Where the network's grid is left: the values or the labels that are brought to the image's.
    inverted: str | None = None
    discretised: str | None = None
    #: Labels of which the largest component stays; () of all of them, None of none.
    largest: tuple[int, ...] | None = None
    connected_by: str = "faces"

    @property
    def interpolate(self) -> str:
        """The manifest's word for what is interpolated."""
        return self.inverted or "labels"


def window(step: Step, size: tuple[int, ...] | None, unsupported: Unsupported) -> dict[str, Any] | None:
    """The manifest's `tiling` for an inferer; None where it is not supported."""
    arguments = Arguments(step, unsupported)
    if step.name == "SimpleInferer":
        if size is None:
            unsupported.add(
                step.where, "the network sees whole images of any size: give it a SlidingWindowInferer"
            )
            return None
        return {"patch": list(size), "overlap": 0.0, "weighting": "uniform"}
    if step.name not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt"):
        unsupported.add(step.where, "this inferer is not supported")
        return None
    return _sliding(step, arguments, unsupported)


def _sliding(step: Step, arguments: Arguments, unsupported: Unsupported) -> dict[str, Any] | None:
    """A sliding window's."""
    patch, overlap = arguments.take("roi_size"), arguments.take("overlap", 0.25)
    patch = [patch] * 3 if isinstance(patch, int) else patch
    if isinstance(overlap, list) and overlap and all(one == overlap[0] for one in overlap):
        overlap = overlap[0]
    mode = arguments.take("mode", "constant")
    arguments.refuse("sigma_scale", (_SIGMA,), _SIGMA)
    arguments.refuse("padding_mode", ("constant",), "constant")
    arguments.refuse("cval", (0, 0.0), 0)
    for key in ("roi_weight_map", "with_coord"):
        arguments.refuse(key, (None, False), None)
    for key in ("sw_batch_size", "sw_device", "progress", "cache_roi_weight_map", "cpu_thresh", "buffer_steps",
                "buffer_dim"):  # fmt: skip
        arguments.take(key)
    arguments.finish()
    if not (isinstance(patch, list) and len(patch) == 3 and all(isinstance(n, int) and n > 0 for n in patch)):
        unsupported.add(step.where, f"roi_size: {patch} is not supported; three numbers of voxels are")
    elif not isinstance(overlap, int | float) or not 0 <= overlap < 1:
        unsupported.add(
            step.where, f"overlap: {overlap} is not supported; one number for all axes, from 0 to below 1, is"
        )
    elif mode not in ("constant", "gaussian"):
        unsupported.add(step.where, f"mode: {mode} is not supported; constant and gaussian are")
    else:
        tiling = {"patch": patch, "overlap": float(overlap), "placement": "fixed"}
        if mode == "constant":
            return {**tiling, "weighting": "uniform"}
        return {**tiling, "weighting": "gaussian", "least_weight": _LEAST}
    return None


def answered(chain: Sequence[Step], unsupported: Unsupported) -> Answered:
    """What the chain does to the network's output, in its order; the rest goes to `unsupported`."""
    found = Answered()
    for step in chain:
        if step.name not in _NEUTRAL:
            found = taken(found, step, _STEPS, unsupported)
    return found


def _activations(found: Answered, step: Step, arguments: Arguments, unsupported: Unsupported) -> Answered:
    """Activations(d): softmax or sigmoid."""
    softmax, sigmoid = bool(arguments.take("softmax", False)), bool(arguments.take("sigmoid", False))
    arguments.refuse("other", (None,), None)
    if found.discretised is not None:
        unsupported.add(step.where, "it comes after the values were made labels")
    if softmax == sigmoid:
        unsupported.add(step.where, "either softmax or sigmoid is supported")
    return replace(found, activation="sigmoid" if sigmoid else "softmax")


def _invert(found: Answered, step: Step, arguments: Arguments, unsupported: Unsupported) -> Answered:
    """Invert(d): back on the image's grid, by the preprocessing's interpolation or from the nearest voxel."""
    nearest = bool(arguments.take("nearest_interp", True))
    for key in ("orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix", "to_tensor"):
        arguments.take(key)
    arguments.refuse("post_func", (None,), None)
    if found.largest is not None:
        unsupported.add(
            step.where, "components are counted before it: put KeepLargestConnectedComponent behind it"
        )
    if found.discretised is not None and not nearest:
        unsupported.add(
            step.where,
            "numbers of labels cannot be interpolated: set nearest_interp, or put it before AsDiscrete",
        )
    values = "logits" if found.activation == "none" else "probabilities"
    return replace(found, inverted="labels" if nearest else values)


def _discrete(found: Answered, step: Step, arguments: Arguments, unsupported: Unsupported) -> Answered:
    """AsDiscrete(d): the largest, or what is beyond one half of a sigmoid's."""
    argmax, threshold = bool(arguments.take("argmax", False)), arguments.take("threshold")
    arguments.take("to_onehot")
    arguments.refuse("rounding", (None,), None)
    arguments.take("num_classes")
    arguments.take("n_classes")
    arguments.take("dim")
    if argmax == (threshold is not None):
        unsupported.add(step.where, "either argmax or threshold is supported")
    elif argmax and found.activation == "sigmoid":
        unsupported.add(step.where, "argmax after sigmoid is not supported; use softmax or threshold")
    elif threshold is not None and (found.activation != "sigmoid" or threshold != 0.5):
        unsupported.add(step.where, f"threshold: {threshold} is not supported; 0.5 after sigmoid is")
    return replace(found, discretised="argmax" if argmax else "threshold")


def _largest(found: Answered, step: Step, arguments: Arguments, unsupported: Unsupported) -> Answered:
    """KeepLargestConnectedComponent(d), of labels one by one."""
    applied = arguments.take("applied_labels")
    arguments.take("is_onehot")
    arguments.refuse("independent", (True,), True)
    arguments.refuse("num_components", (1,), 1)
    connectivity = arguments.take("connectivity")
    if connectivity not in (None, 1, 3):
        unsupported.add(
            step.where, f"connectivity: {connectivity} is not supported; 1 (faces) and 3 (corners) are"
        )
    if found.discretised is None:
        unsupported.add(step.where, "it comes before the values were made labels")
    labels = applied if isinstance(applied, list) else [] if applied is None else [applied]
    return replace(found, largest=tuple(labels), connected_by="faces" if connectivity == 1 else "corners")


_STEPS = {
    "Activations": _activations,
    "Invert": _invert,
    "AsDiscrete": _discrete,
    "KeepLargestConnectedComponent": _largest,
}
