"""The GPU as one worker process has it: which models may run on it, with how much memory, and whether it is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from engines import gpu, loader, plans
from engines.errors import DeviceError, DeviceLost, PlanError
from engines.loader import Engine
from engines.package import ModelPackage
from engines.plans import Plans, Record
from engines.runner import Runner
from worker.settings import Settings

#: Of what is free when the device is first used: the rest is for what libraries take beside their models.
_SHARE_OF_FREE = 0.9


@dataclass(kw_only=True, eq=False)
class Device:
    """A process' GPU. It is not touched before a model is asked for: a CUDA context does not survive a fork."""

    engine: Engine
    kept: Plans
    threads: int | None = None
    #: Bytes that the models of this process may take; None: their share of what is free at first.
    most: int | None = None
    #: Processes that share it.
    processes: int = 1
    #: Why nothing more can be done on it in this process; "" while it works.
    lost: str = field(default="", init=False)

    def open(self, package: ModelPackage) -> Runner:
        """The package's network. Raises PlanError, DeviceError, PackageError, RunnerError."""
        if self.lost:
            raise DeviceLost(self.lost)
        most = package.manifest.gpu.megabytes
        if most is None and self.most is not None:
            most = self.most / 2**20
        return loader.open_runner(
            package, engine=self.engine, threads=self.threads, kept=self.kept, megabytes=most
        )

    def plan(self, package: ModelPackage) -> Record | None:
        """What is known of its plan; None where there is none. Raises PlanError, DeviceError."""
        if self.lost:
            raise DeviceLost(self.lost)
        return self.kept.find(plans.key_for(package, gpu.target(self.engine)))

    def refuses(self, package: ModelPackage) -> bool:
        """Whether its plan is known by now to be none to serve from: a person had it built or compared anew."""
        try:
            record = self.plan(package)
        except (PlanError, DeviceError):
            # That says nothing of a plan that is open.
            return False
        return record is not None and record.is_refused

    def state_of(self, package: ModelPackage) -> object:
        """What is another where the package's plan is another: cheap, asked before each job."""
        try:
            return self.plan(package)
        except (PlanError, DeviceError) as error:
            return str(error)

    def need(self, package: ModelPackage) -> int:
        """Bytes that the package will take on it: as its manifest says, as was measured, at least its plan or weights.

        Nothing where it has no plan that serves: it is refused for that. Raises PlanError, DeviceError.
        """
        record = self.plan(package)
        if record is None or not record.serves:
            return 0
        megabytes = package.manifest.gpu.megabytes or record.megabytes
        if megabytes is not None:
            return int(megabytes * 2**20)
        # ONNX Runtime's plan is a line of text, and it does not say what it takes.
        return max(record.size, package.weights.stat().st_size)

    def budget(self) -> int | None:
        """Bytes that all its models may take together; None where nobody says, and nobody can. Raises DeviceError."""
        if self.most is None:
            free = self.free()
            self.most = None if free is None else int(free * _SHARE_OF_FREE / self.processes)
        return self.most

    def in_words(self) -> str:
        """What it is, and what is free on it. Raises DeviceError, which says what is missing."""
        target, memory = gpu.target(self.engine), self.memory()
        if memory is None:
            return str(target)
        free, total = memory
        return f"{target}; {free / 2**20:.0f} of {total / 2**20:.0f} MB are free"

    def free(self) -> int | None:
        """Bytes that are free on it now; None where only its own runtime knows. Raises DeviceError."""
        memory = self.memory()
        return None if memory is None else memory[0]

    def memory(self) -> tuple[int, int] | None:
        """Bytes that are free on it, and that it has; None where only its own runtime knows. Raises DeviceError."""
        try:
            return gpu.memory()
        except DeviceLost:
            raise
        except DeviceError:
            # ONNX Runtime needs no pycuda, which would say.
            if self.engine == "tensorrt":
                raise
            return None


def of(settings: Settings) -> Device | None:
    """The device that the configuration wants; None where networks are to run on the CPU."""
    work = settings.work
    if not work.on_gpu:
        return None
    return Device(
        engine=work.engine,
        kept=Plans(folder=settings.plans),
        threads=work.threads,
        most=None if work.gpu_megabytes is None else int(work.gpu_megabytes * 2**20),
        processes=work.jobs_at_once,
    )
