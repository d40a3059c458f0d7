"""Where a model runs: on the GPU that is configured, or on the engine of the CPU that takes its place.

A model that the GPU does not take says so: its description names why. Whether the GPU takes it by now is looked at
again before a later job, never in the middle of one.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from engines import loader
from engines.errors import DeviceFull, DeviceLost, RunnerError
from engines.loader import Engine
from engines.package import ModelPackage
from worker.device import Device
from worker.views import IN_PLACE
from worker.warm import Network, Warm

logger = logging.getLogger(__name__)

#: A device that failed at a model is not tried for it again before so many seconds are over.
REST_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    """Why the device did not take a model."""

    why: str
    #: What was known of its plan then.
    state: object
    #: Not before (monotonic), unless its plan is another by then.
    again_at: float


class Placing:
    """Opens models where they belong, and keeps them in `warm`.

    `engine` runs on the CPU, alone or where `device` does not take a model; None: nothing takes its place.
    """

    def __init__(
        self, warm: Warm, *, engine: Engine | None, threads: int | None, device: Device | None = None
    ) -> None:
        self._warm = warm
        self._engine = engine
        self._threads = threads
        self.device = device
        self._refused: dict[str, _Refusal] = {}
        #: Whether the device was full in the job in hand already.
        self._was_full = False

    def place(self, package: ModelPackage) -> Network:
        """The package's network, opened where it is not open. Raises EngineError."""
        name = package.manifest.name
        if self.device is not None:
            self._try_device(package, self.device)
        if self._warm.get(name) is None:
            assert self._engine is not None
            engine = self._engine
            self._warm.open(
                package, lambda: loader.open_runner(package, engine=engine, threads=self._threads)
            )
        network = self._warm.used(name)
        if self.device is not None and not network.on_device and name in self._refused:
            # One line, which stands on pages and in objects.
            why = " ".join(self._refused[name].why.split())
            network.runner.description = f"{network.description}{IN_PLACE}{self.device.engine}: {why}"
        return network

    def give_way(self, error: RunnerError) -> bool:
        """What the job in hand has on the device leaves it, which failed; whether another attempt is worth it.

        It is where something takes its place, and where other models could be closed on a device that was full. All
        runners of the job are to be asked for again. A device that is lost loses every model.
        """
        failed = [name for name in self._warm.on_device if name in self._warm.in_use]
        if self.device is None or not failed:
            return False
        if isinstance(error, DeviceLost):
            self._lose(self.device, error)
            return self._engine is not None
        others = [name for name in self._warm.on_device if name not in self._warm.in_use]
        again = isinstance(error, DeviceFull) and not self._was_full and bool(others)
        self._was_full = self._was_full or isinstance(error, DeviceFull)
        for name in others if again else ():
            self._warm.close(name, "the GPU's memory is all used")
        for name in failed:
            if not again:
                network = self._warm.get(name)
                assert network is not None
                self._refuse(network.package, self.device, error, rest=REST_SECONDS)
            self._warm.close(name, f"the GPU failed: {error}")
        self._warm.in_use.difference_update(failed)
        return again or self._engine is not None

    def end_job(self) -> None:
        """The job in hand is over."""
        self._was_full = False

    def _try_device(self, package: ModelPackage, device: Device) -> None:
        """Open the package on the device, where it is not yet, and that is worth a try; else remember why not.

        Raises what the device raises where nothing takes its place.
        """
        name = package.manifest.name
        network, refused = self._warm.get(name), self._refused.get(name)
        if network is not None and network.on_device:
            if not device.refuses(package):
                return
            self._warm.close(name, "its plan is refused by now")
        if self._engine is not None and refused is not None and not _worth_a_try(refused, device, package):
            return
        try:
            self._open(package, device, self._admit(package, device))
            self._refused.pop(name, None)
        except RunnerError as error:
            # Whatever it is, it says nothing of the CPU.
            if isinstance(error, DeviceLost):
                self._lose(device, error)
            elif refused is None or refused.why != str(error):
                logger.warning("model %s is not run on %s: %s", name, device.engine, error)
            # Memory may be free before the next job.
            rest = 0.0 if isinstance(error, DeviceFull) else REST_SECONDS
            self._refuse(package, device, error, rest=rest)
            if self._engine is None:
                raise

    def _open(self, package: ModelPackage, device: Device, needed: int) -> None:
        """Open it there; where the memory does not suffice after all, beside nothing but what is in use."""
        try:
            self._warm.open(package, lambda: device.open(package), on_device=needed)
        except DeviceFull:
            idle = self._idle(package)
            if not idle:
                raise
            for name in idle:
                self._warm.close(name, "the GPU's memory is all used")
            self._warm.open(package, lambda: device.open(package), on_device=needed)

    def _admit(self, package: ModelPackage, device: Device) -> int:
        """Close idle models on the device until the package fits; bytes that it needs.

        Raises DeviceFull where it cannot fit, DeviceError.
        """
        needed, idle = device.need(package), self._idle(package)
        sizes = [network.device_size for name in idle if (network := self._warm.get(name))]
        most = self._free(device) + sum(sizes)
        if needed > most:
            raise DeviceFull(
                f"it needs {needed / 2**20:.0f} MB of the GPU's memory, and {max(most, 0) / 2**20:.0f} MB are free for "
                "it: close what else uses the GPU, or set work.gpu_megabytes higher"
            )
        for name in idle:
            if needed <= self._free(device):
                break
            self._warm.close(name, "work.gpu_megabytes is all used")
        return needed

    def _idle(self, package: ModelPackage) -> list[str]:
        """The models on the device that no job has in hand."""
        return [
            name for name in self._warm.on_device if name not in self._warm.in_use | {package.manifest.name}
        ]

    def _free(self, device: Device) -> float:
        """Bytes of the device that models may still take. Raises DeviceError."""
        budget, free = device.budget(), device.free()
        within = float("inf") if budget is None else float(budget - self._warm.device_size)
        return min(within, float("inf") if free is None else float(free))

    def _lose(self, device: Device, error: DeviceLost) -> None:
        """Nothing more is tried on the device, and every model leaves it."""
        if not device.lost:
            logger.error("the GPU is lost to this process: %s", error)
        device.lost = str(error)
        for name in self._warm.on_device:
            network = self._warm.get(name)
            assert network is not None
            self._refuse(network.package, device, error, rest=REST_SECONDS)
            self._warm.close(name, "the GPU is lost")
            self._warm.in_use.discard(name)

    def _refuse(self, package: ModelPackage, device: Device, error: RunnerError, *, rest: float) -> None:
        self._refused[package.manifest.name] = _Refusal(
            why=str(error), state=device.state_of(package), again_at=time.monotonic() + rest
        )


def _worth_a_try(refused: _Refusal, device: Device, package: ModelPackage) -> bool:
    """Whether the device may take by now what it did not take."""
    if device.lost:
        return False
    return time.monotonic() >= refused.again_at or device.state_of(package) != refused.state
