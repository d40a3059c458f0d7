"""One model's whole answer about one volume: preprocess, infer, postprocess, measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import labels, measure, postprocess, preprocess, tiling
from engines.errors import OutputError
from engines.findings import PROBABILITY, Code, Findings, Map
from engines.manifest import Label
from engines.package import ModelPackage
from engines.preprocess import Prepared
from engines.runner import Runner, usable_cores
from engines.volume import Geometry, Volume

#: Threads beyond this do not make pre- and postprocessing faster: memory is the limit.
_MOST_THREADS = 4

#: The share of the progress bar that ends with each stage.
_PREPROCESSED, _INFERRED = 0.05, 0.95

#: UCUM's unity (PS3.16 CID 7181).
_NO_UNIT = Code(value="1", scheme="UCUM", meaning="no units")

Progress = Callable[[float], None]


def predict(
    package: ModelPackage,
    runner: Runner,
    volume: Volume,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Findings:
    """Answer about `volume` with the open network of `package`.

    The mask lies on the volume's own grid and the measurements are of its own values. `progress` is
    called with a growing fraction up to 1. `threads` bounds the work outside the network; None means
    as many as this process may use, four at most.
    Raises VolumeError where the volume cannot be used, RunnerError where the runtime fails and
    OutputError where the network's answer cannot be.
    """
    report = progress or _ignore
    count = threads or min(_MOST_THREADS, usable_cores())
    manifest = package.manifest
    check_runner(package, runner)
    measure.check_units(manifest, volume)
    clock = _Clock()
    with clock.stage("preprocess"):
        prepared = preprocess.prepare(volume, manifest.inputs[0], threads=count)
    report(_PREPROCESSED)
    mask, maps = _segment(package, runner, prepared, volume, clock=clock, report=report, threads=count)
    with clock.stage("measure"):
        measurements = measure.measure(manifest, volume, mask, threads=count)
        impossible = measure.impossible(manifest, volume.geometry)
        findings = measure.conclude(manifest, measurements)
    report(1.0)
    return Findings(
        model=package.identity,
        geometry=volume.geometry,
        mask=mask,
        segments=package.segments,
        measurements=measurements,
        findings=findings,
        impossible=impossible,
        maps=maps,
        engine=runner.description,
        seconds=clock.seconds,
    )


def check_runner(package: ModelPackage, runner: Runner) -> None:
    """Raise OutputError where the network's inputs and outputs are not those that the manifest names."""
    entry, output = package.manifest.inputs[0], package.manifest.outputs[0]
    names = [spec.name for spec in runner.inputs]
    if names != [entry.name]:
        raise OutputError(f'the network has the inputs {names}; the manifest names "{entry.name}" alone')
    shapes = {spec.name: spec.shape for spec in runner.outputs}
    if output.name not in shapes:
        raise OutputError(f'the network has the outputs {sorted(shapes)}; the manifest names "{output.name}"')
    shape, classes = shapes[output.name], len(output.labels) + 1
    if len(shape) != 5 or shape[1] not in (None, classes):
        raise OutputError(
            f'output "{output.name}" has shape {shape}; the manifest\'s labels and the background need '
            f"(1, {classes}, slices, rows, columns)"
        )


def _segment(
    package: ModelPackage,
    runner: Runner,
    prepared: Prepared,
    volume: Volume,
    *,
    clock: _Clock,
    report: Progress,
    threads: int,
) -> tuple[NDArray[Any], tuple[Map, ...]]:
    """The label map on the volume's grid, and the probabilities that the manifest wants."""
    entry, output = package.manifest.inputs[0], package.manifest.outputs[0]
    mask = np.zeros(volume.geometry.shape, dtype=postprocess.mask_dtype(len(output.labels) + 1))
    wanted = [label for label in output.labels if label.probability]
    shares = {label.index: np.zeros(mask.shape, np.float32) for label in wanted}

    def turned(array: NDArray[Any]) -> NDArray[Any]:
        # A view in the model's axes: what is written to it lands where the source's voxels are.
        return preprocess.turn(Volume(array=array, geometry=volume.geometry), entry).array

    backward = postprocess.Backward(
        turned(mask),
        prepared.geometry.shape,
        activation=output.activation,
        probabilities={number: turned(share) for number, share in shares.items()},
        threads=threads,
    )
    slabs = tiling.sweep(
        runner,
        prepared.array,
        package.manifest.tiling,
        input_name=entry.name,
        output_name=output.name,
        classes=len(output.labels) + 1,
        progress=lambda done: report(_PREPROCESSED + (_INFERRED - _PREPROCESSED) * done),
    )
    for slab in clock.each("infer", slabs):
        with clock.stage("postprocess"):
            backward.write(slab.start, slab.logits)
    with clock.stage("postprocess"):
        _clean(mask, volume.geometry, output.labels)
    return mask, tuple(_probability(label, shares[label.index]) for label in wanted)


def _probability(label: Label, array: NDArray[np.float32]) -> Map:
    """The map of a label's probability."""
    return Map(key=label.key, name=PROBABILITY, unit=_NO_UNIT, segment_number=label.index, array=array)


def _clean(mask: NDArray[Any], geometry: Geometry, declared: Sequence[Label]) -> None:
    """Clear what the manifest does not want of each label, in place."""
    for label in declared:
        if label.keep_largest:
            postprocess.keep_largest(mask, label.index)
        # Sizes are those of volumes: the manifest of a planar model has none.
        if label.min_component_ml and geometry.voxel_volume_mm3 is not None:
            voxels = label.min_component_ml * 1000 / geometry.voxel_volume_mm3
            postprocess.drop_components(mask, label.index, smaller_than=voxels)
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


def _ignore(_: float) -> None:
    """Progress that nobody watches."""


class _Clock:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def each(self, name: str, slabs: Iterator[tiling.Slab]) -> Iterator[tiling.Slab]:
        """Time what an iterator does to make its items, not what is done with them."""
        while True:
            with self.stage(name):
                slab = next(slabs, None)
            if slab is None:
                return
            yield slab
