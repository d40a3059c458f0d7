"""The task "segmentation": a label for each voxel of the source, and probabilities where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import components, ensemble, fit, grids, labels, pad, postprocess, preprocess, splines, way_back
from engines.answer import Answer, Case
from engines.findings import NO_UNIT, PROBABILITY, Map
from engines.manifest_outputs import Label, SegmentationOutput
from engines.volume import Geometry, Volume

#: A logit that leaves no doubt, and is still a number to interpolate with.
_SURE = 20.0


def answer(case: Case) -> Answer:
    """The label map on the volume's grid, and the probabilities that the manifest wants."""
    manifest, geometry = case.package.manifest, case.volume.geometry
    output = manifest.outputs[0]
    assert isinstance(output, SegmentationOutput)
    mask = np.zeros(geometry.shape, dtype=postprocess.mask_dtype(len(output.labels) + 1))
    wanted = [label for label in output.labels if label.probability]
    shares = {label.index: np.zeros(mask.shape, np.float32) for label in wanted}

    def turned(array: NDArray[Any]) -> NDArray[Any]:
        # A view in the model's axes: what is written to it lands where the source's voxels are.
        whole = preprocess.turn(Volume(array=array, geometry=geometry), manifest.reference).array
        return whole[case.seen.region]

    backward = postprocess.Backward(
        turned(mask),
        case.seen.geometry.within(case.seen.inner).shape,
        activation=output.activation,
        interpolate=output.interpolate,
        steps=grids.steps(case.seen.source, case.seen.geometry, manifest.reference),
        matrices=_matrices(case, output, turned(mask).shape),
        numbers=[label.index for label in output.labels],
        probabilities={number: turned(share) for number, share in shares.items()},
        halves=output.precision == "float16",
        threads=case.threads,
    )
    if shares or not _made_on_device(case, output, turned(mask), backward.way):
        slabs = ensemble.sweep(case, output, classes=fit.channels(output), background=_background(output))
        for slab in case.clock.each("infer", slabs):
            with case.clock.stage("postprocess"):
                start, logits = pad.trimmed(slab.start, slab.logits, case.seen.inner)
                if logits.shape[1]:
                    backward.write(start, logits)
    with case.clock.stage("postprocess"):
        _clean(mask, geometry, output.labels)
    return Answer(mask=mask, maps=tuple(_probability(label, shares[label.index]) for label in wanted))


def _made_on_device(
    case: Case, output: SegmentationOutput, mask: NDArray[Any], way: way_back.WayBack
) -> bool:
    """Fill the label map where one network answers alone, and leaves its logits on a GPU that has room for sums."""
    if case.members or not case.runner.leaves_on_device:
        return False
    # Such a runner is there, so pycuda is.
    from engines import device_labels, trt

    assert isinstance(case.runner, trt.TensorRTRunner)
    wanted = device_labels.Wanted(
        mask=mask,
        way=way,
        tiling=case.package.manifest.windows,
        output_name=output.name,
        classes=fit.channels(output),
        background=_background(output),
        inner=case.seen.inner,
    )
    with case.clock.stage("infer"):
        return device_labels.fill(
            case.runner, case.seen.arrays, wanted, constants=case.prompts, progress=case.report
        )


def _background(output: SegmentationOutput) -> list[float]:
    """What the network would say of each channel where there is nothing."""
    if output.activation == "sigmoid":
        return [-_SURE] * len(output.labels)
    other = 0.0 if output.activation == "none" else -_SURE
    return [1.0 if output.activation == "none" else 0.0, *[other] * len(output.labels)]


def _matrices(
    case: Case, output: SegmentationOutput, shape: tuple[int, ...]
) -> Sequence[way_back.Weights] | None:
    """How nnU-Net brings an output back to a source of `shape`; None where the manifest asks for no such way."""
    if output.splines is None:
        return None
    own = case.seen.source.spacing
    asked = grids.asked_spacing(case.seen.source, case.package.manifest.reference) or own
    return splines.axes(
        case.seen.geometry.within(case.seen.inner).shape, shape, (asked, own), output.splines
    ).matrices


def _probability(label: Label, array: NDArray[np.float32]) -> Map:
    """The map of a label's probability."""
    return Map(key=label.key, name=PROBABILITY, unit=NO_UNIT, segment_number=label.index, array=array)


def _clean(mask: NDArray[Any], geometry: Geometry, declared: Sequence[Label]) -> None:
    """Clear what the manifest does not want of each label, in place."""
    for label in declared:
        if label.keep_largest:
            components.keep_largest(mask, label.index, corners=label.connected_by == "corners")
        # Sizes are those of volumes: the manifest of a planar model has none.
        if label.min_component_ml and geometry.voxel_volume_mm3 is not None:
            voxels = label.min_component_ml * 1000 / geometry.voxel_volume_mm3
            components.drop_components(
                mask, label.index, smaller_than=voxels, corners=label.connected_by == "corners"
            )
    if geometry.voxel_volume_mm3 is not None:
        _drop_small(mask, geometry.voxel_volume_mm3, declared)


def _drop_small(mask: NDArray[Any], voxel_mm3: float, declared: Sequence[Label]) -> None:
    """Clear the labels that are smaller than the manifest wants them, in place."""
    if not any(label.min_volume_ml for label in declared):
        return
    voxels = labels.counts(mask, len(declared))
    for label in declared:
        millilitres = voxels[label.index] * voxel_mm3 / 1000
        if 0 < millilitres < label.min_volume_ml:
            for plane in mask:
                plane[plane == label.index] = 0
