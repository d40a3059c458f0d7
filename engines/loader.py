"""Opens a package's network on the backend that is asked for."""

from __future__ import annotations

from typing import Literal

from engines.manifest import Manifest
from engines.package import ModelPackage
from engines.runner import Runner, usable_cores

#: The backends that can run a package, the default first.
Engine = Literal["openvino", "onnxruntime"]


def open_runner(package: ModelPackage, *, engine: Engine = "openvino", threads: int | None = None) -> Runner:
    """Open the package's network; close it, or use it as a context manager.

    The network's input is fixed to the manifest's patch, one at a time: a static shape is what CPU
    backends are fastest and leanest with. `threads` is how many CPU threads inference may use; None
    means all that this process may run on.
    Raises PackageError where the weights changed since the package was opened, RunnerError where the
    runtime refuses the network.
    """
    shapes = _shapes(package.manifest)
    weights = package.read_weights()
    count = threads or usable_cores()
    # Imported here: a process that runs one backend, or none, does not pay for the others.
    if engine == "openvino":
        from engines import ov

        return ov.OpenVINORunner(weights, shapes=shapes, threads=count)
    from engines import ort

    return ort.ONNXRuntimeRunner(weights, shapes=shapes, threads=count)


def _shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """The shape of each input of the graph: one window of all its channels."""
    windows = manifest.windows
    deep = windows.patch[0] + 2 * windows.context
    return {name: (1, count, deep, *windows.patch[1:]) for name, count in manifest.channels.items()}
