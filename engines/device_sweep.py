"""A label map that is made on the GPU: the windows' logits never leave it, only their labels do.

The kernels (kernels/labels.cu) do what `window_sums` and `postprocess` do on the host. They run on a stream of their
own, in the order of the windows, beside the network's next windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from pycuda import driver

from engines import placement, tiling
from engines.cuda import OnDevice
from engines.device_labels import DeviceLabels, Wanted
from engines.device_memory import Memory, ptx
from engines.device_sums import DeviceSums
from engines.placement import Plan
from engines.window_sums import background_of, weights_for
from engines.windows import Network, Window

if TYPE_CHECKING:
    from engines.trt import TensorRTRunner

#: Of the device's free memory, what may be taken.
_SHARE = 0.9


def fill(
    runner: TensorRTRunner,
    feeds: Mapping[str, NDArray[np.float32]],
    wanted: Wanted,
    *,
    constants: Mapping[str, NDArray[Any]],
    progress: Callable[[float], None] | None = None,
) -> bool:
    """Run the network over `feeds` as `tiling.sweep` does, and fill the label map; False, with nothing done, where the
    device cannot: its memory does not suffice, its driver is older than the kernels, or the plan answers otherwise.

    Raises OutputError where the network answers with what is not finite, DeviceError.
    """
    layout = placement.plan(tiling.shape3(feeds), wanted.tiling)
    network = tiling.network_for(runner, wanted.tiling, constants)
    if not _fits(runner, wanted, (network.batch, wanted.classes, *layout.patch)):
        return False
    with runner.device.current():
        kernels = runner.device.kernels(ptx())
        return kernels is not None and _filled(kernels, network, feeds, wanted, layout, progress)


def _filled(
    kernels: driver.Module,
    network: Network,
    feeds: Mapping[str, NDArray[np.float32]],
    wanted: Wanted,
    layout: Plan,
    progress: Callable[[float], None] | None,
) -> bool:
    """The same, where the plan and the driver are right; what it holds on the device is gone when it returns."""
    with ExitStack() as held:
        padded = tiling.padded_for(feeds, layout, wanted.tiling)
        shape = tiling.shape3(padded, wanted.tiling.context)
        sums = DeviceSums(
            classes=wanted.classes,
            shape=shape,
            layout=layout,
            weights=weights_for(shape, layout, wanted.tiling),
            background=background_of(wanted.classes, wanted.background),
        )
        labels = DeviceLabels(wanted, sums)
        held.callback(labels.free)
        memory = Memory(kernels, {**sums.sizes, **labels.sizes}, {**sums.constants, **labels.constants})
        try:
            if memory.nbytes > _SHARE * driver.mem_get_info()[0]:
                return False
            memory.allocate(held)
        except driver.MemoryError:
            # Another process was faster.
            return False
        labels.begin(memory)
        _run(labels, network, padded, layout.windows, progress)
        return True


def _run(
    labels: DeviceLabels,
    network: Network,
    arrays: Mapping[str, NDArray[np.float32]],
    windows: Sequence[Window],
    progress: Callable[[float], None] | None,
) -> None:
    """All windows, then what is left."""
    runner = cast("TensorRTRunner", network.runner)
    runner.note_labels(labels.nbytes)

    def infer(batches: Iterator[Mapping[str, NDArray[Any]]]) -> Iterator[OnDevice]:
        return runner.each_on_device(batches, labels.name)

    # Closed at once where something goes wrong: the network's own streams are then waited for.
    with closing(network.each(arrays, windows, infer, progress=progress)) as answers:
        for (chosen, count), answer in answers:
            labels.add(answer, chosen, count)
    labels.end()


def _fits(runner: TensorRTRunner, wanted: Wanted, shape: tuple[int, ...]) -> bool:
    """Whether the plan answers with logits in float32 of `shape`; in 2D, of one slice, without its axis."""
    (spec,) = (one for one in runner.outputs if one.name == wanted.output_name)
    flat = (*shape[:2], *shape[3:]) if shape[2] == 1 else shape
    return spec.dtype == np.float32 and spec.shape in (shape, flat)
