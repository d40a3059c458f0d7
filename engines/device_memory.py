"""Named pieces of the GPU's memory, a stream, and the kernels that are run on it. Used under `Device.current`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from importlib import resources
from typing import Any

from numpy.typing import NDArray
from pycuda import driver

#: Threads of a block.
_THREADS = 256

#: The arguments of the kernels in kernels/labels.cu, as Python's struct has them.
_ARGUMENTS = {
    "look": "PqP",
    "mirror": "PPiiiiiif",
    "add": "PPPPiiiiiiiiiiii",
    "finish": "PPPPPPPiiiiiiiiiiii",
    "label": "PPPPPPPPPPPPfiiiiiiiiiiiii",
}


def ptx() -> bytes:
    """The kernels, as NVIDIA's drivers compile them."""
    return resources.files("engines").joinpath("kernels/labels.ptx").read_bytes()


class Memory:
    """What a job holds on the device."""

    def __init__(
        self, kernels: driver.Module, sizes: Mapping[str, int], constants: Mapping[str, NDArray[Any]]
    ) -> None:
        """`sizes` are in bytes; `constants` are arrays that the kernels read. Nothing is taken yet."""
        self._kernels = {
            name: kernels.get_function(name).prepare(arguments) for name, arguments in _ARGUMENTS.items()
        }
        self._constants = constants
        self._sizes = {**sizes, **{name: array.nbytes for name, array in constants.items()}}
        self._addresses: dict[str, int] = {}

    @property
    def nbytes(self) -> int:
        """What it takes on the device."""
        return sum(self._sizes.values())

    def allocate(self, held: ExitStack) -> None:
        """Take it, filled with 0; `held` gives it back, once what is queued is done. Raises pycuda's errors."""
        self.stream = driver.Stream()
        for name, size in self._sizes.items():
            allocated = driver.mem_alloc(size)
            held.callback(allocated.free)
            self._addresses[name] = int(allocated)
        held.callback(self.stream.synchronize)
        # The copies are made from these, later.
        self._pinned = [
            driver.pagelocked_empty(array.shape, array.dtype) for array in self._constants.values()
        ]
        for (name, array), pinned in zip(self._constants.items(), self._pinned, strict=True):
            pinned[...] = array
            driver.memcpy_htod_async(self._addresses[name], pinned, self.stream)
        for name, size in self._sizes.items():
            if name not in self._constants:
                self.clear(name, 0, size)

    def at(self, *names: str) -> list[int]:
        """Addresses; 0 of what there is not."""
        return [self._addresses.get(name, 0) for name in names]

    def clear(self, name: str, begin: int, size: int) -> None:
        """Fill bytes with 0, where there are any of that name."""
        if name in self._addresses:
            driver.memset_d8_async(self._addresses[name] + begin, 0, size, self.stream)

    def launch(self, kernel: str, count: int, *arguments: Any) -> None:
        """Queue a kernel with `count` threads."""
        grid = (-(-count // _THREADS), 1)
        self._kernels[kernel].prepared_async_call(grid, (_THREADS, 1, 1), self.stream, *arguments)
