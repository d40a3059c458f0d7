"""The task "image": what an image-to-image network makes of the first series, on that series' own grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engines import grids, lattice, preprocess, resampling, slabs, tiling
from engines.answer import Answer, Case
from engines.manifest_outputs import ImageOutput
from engines.volume import Volume


def answer(case: Case) -> Answer:
    """The derived image, float32, in the unit of the manifest or the source's.

    Beside the image itself there is one on the model grid, as there is of the source.
    """
    volume, reference = case.volume, case.package.manifest.reference
    output = case.package.manifest.outputs[0]
    assert isinstance(output, ImageOutput)
    made = _on_model_grid(case, output)
    array = np.zeros(volume.geometry.shape, dtype=np.float32)
    with case.clock.stage("postprocess"):
        # A view in the model's axes: what is written to it lands where the source's voxels are.
        turned = preprocess.turn(Volume(array=array, geometry=volume.geometry), reference).array
        own = output.image.scale is None
        if own:
            # Where the network sees a part of the image only, the rest stays as it is.
            np.copyto(array, volume.array, casting="unsafe")
        _bring_back(case, made[case.seen.inner], turned[case.seen.region])
        if own and case.seen.scaling.keep_zero:
            # Background that was not measured is none of the network's business, as it was none of the z-score's.
            array[volume.array == 0] = 0
    unit = output.image.unit
    return Answer(
        image=Volume(
            array=array,
            geometry=volume.geometry,
            unit=unit.value if unit is not None else volume.unit,
            window=volume.window if own and unit is None else None,
        )
    )


def _on_model_grid(case: Case, output: ImageOutput) -> NDArray[np.float32]:
    """What the network makes, in the image's unit, on the model grid."""
    shown = case.seen.arrays[case.package.manifest.reference.name][0]
    made = np.empty(case.seen.geometry.shape, dtype=np.float32)
    swept = tiling.sweep(
        case.runner,
        case.seen.arrays,
        case.package.manifest.windows,
        output_name=output.name,
        classes=1,
        constants=case.prompts,
        # No network's number: it marks the voxels that no window was inferred for.
        background=[math.nan],
        progress=case.report,
    )
    for slab in case.clock.each("infer", swept):
        with case.clock.stage("postprocess"):
            values = slab.logits[0]
            place = slice(slab.start, slab.start + len(values))
            np.copyto(values, shown[place], where=np.isnan(values))
            if output.image.scale is None:
                made[place] = case.seen.scaling.undone(values)
            else:
                made[place] = values * np.float32(output.image.scale) + np.float32(output.image.offset)
    return made


def _bring_back(case: Case, made: NDArray[np.float32], target: NDArray[np.float32]) -> None:
    """Fill `target` with `made`, resampled linearly, slice by slice.

    Linearly also where splines brought the input here: nnU-Net too brings back linearly what its network gives, for
    cubic splines overshoot.
    """
    reference, seen = case.package.manifest.reference, case.seen
    steps = grids.steps(seen.source, seen.geometry, reference)
    back, *in_plane = (None if step is None else 1 / step for step in steps)
    antialias = reference.sampling == "box"
    count = len(target)
    along = (
        resampling.axis_weights(len(made), count, antialias=antialias)
        if back is None
        else lattice.linear(len(made), count, back)
    )
    shape = (1, target.shape[1], target.shape[2])

    def fill(index: int) -> None:
        if along is None:
            plane = made[index]
        else:
            taps = slice(along.indptr[index], along.indptr[index + 1])
            plane = np.tensordot(along.data[taps], made[along.indices[taps]], axes=1)
        resampled = resampling.resample(plane[None], shape, antialias=antialias, steps=(None, *in_plane))
        target[index] = resampled[0]

    slabs.spread(fill, range(count), threads=case.threads)
