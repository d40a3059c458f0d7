"""Random windows through the kernels, with nothing but the pretended device: for a process that a sanitiser watches.

python -m tests.engines.windows_on_device FOLDER
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from engines import placement, way_back, window_sums
from engines.manifest_tiling import Tiling
from tests.support import double

CLASSES, SHAPE, SOURCE = 3, (9, 14, 11), (13, 9, 21)


def main(folder: Path) -> None:
    """Mirrored, padded, counted, rounded, and interpolated along all axes; prints how many voxels have each label."""
    with double.installed(folder):
        from pycuda import driver

        from engines import cuda
        from engines.device_labels import DeviceLabels, Wanted
        from engines.device_memory import Memory, ptx
        from engines.device_sums import DeviceSums

        settings = Tiling(patch=(4, 16, 6), weighting="nnunet", mirror_axes=(0, 2))
        layout = placement.plan(SHAPE, settings)
        shape = (SHAPE[0], 16, SHAPE[2])
        weights = window_sums.weights_for(shape, layout, settings)
        background = window_sums.background_of(CLASSES, ())
        sums = DeviceSums(classes=CLASSES, shape=shape, layout=layout, weights=weights, background=background)
        way = way_back.WayBack.to(
            SOURCE,
            SHAPE,
            activation="softmax",
            interpolate="probabilities",
            steps=(None, None, None),
            matrices=None,
            numbers=(),
            probabilities=False,
            halves=True,
        )
        mask = np.zeros(SOURCE, np.uint8)
        wanted = Wanted(
            mask=mask,
            way=way,
            tiling=settings,
            output_name="logits",
            classes=CLASSES,
            background=(),
            inner=(slice(None), slice(None), slice(None)),
        )
        device, rng = cuda.device(), np.random.default_rng(0)
        with device.current(), ExitStack() as held:
            kernels = device.kernels(ptx())
            assert kernels is not None
            labels = DeviceLabels(wanted, sums)
            memory = Memory(kernels, {**sums.sizes, **labels.sizes}, {**sums.constants, **labels.constants})
            memory.allocate(held)
            labels.begin(memory)
            logits = cuda.Buffer((1, CLASSES, *layout.patch), np.dtype(np.float32))
            held.callback(logits.free)
            lane = driver.Stream()
            for window in layout.windows:
                lane.synchronize()
                logits.host[...] = rng.normal(0, 1, logits.host.shape)
                logits.to_device(lane)
                labels.add(cuda.OnDevice(address=logits.address, stream=lane), [window], 1)
            labels.end()
    sys.stdout.write(f"{np.bincount(mask.ravel()).tolist()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
