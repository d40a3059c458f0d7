"""Compiled plans on disk: each for one GPU, one compiler, one model and one precision.

    NAME-SHA256.plan   the compiler's bytes
    NAME.json          what they are of, when they were built, what the parity gate said of them; or why there are none
    NAME.lock          held while one process builds
    timing-NAME.cache  what the compiler measured on a GPU, which makes the next build faster

NAME is a digest of the key, so that a plan of another GPU, another compiler or other weights is never found. The
record is written last and names the plan by its digest: what is found is whole, whoever died when.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from engines.errors import EngineError, PlanError
from engines.manifest_entries import Strict
from engines.manifest_gpu import MOST_MEGABYTES, Precision
from engines.package import ModelPackage
from engines.whole_file import write_whole

#: What a reader of a message is to do.
REBUILD = "run `secondread engines build {model}`"


class Target(Strict):
    """Where a plan runs: another GPU, or another compiler, needs another plan."""

    #: The GPU's name, e.g. "NVIDIA H200".
    gpu: str
    #: E.g. "9.0".
    compute_capability: str
    #: The engine and its version, e.g. "tensorrt 11.4.0.106", "onnxruntime-cuda 1.31.1".
    compiler: str

    @property
    def engine(self) -> str:
        """The engine alone."""
        return self.compiler.partition(" ")[0]

    def __str__(self) -> str:
        return f"{self.gpu} ({self.compute_capability}), {self.compiler}"


class Key(Strict):
    """What a plan is a plan of."""

    target: Target
    #: Of manifest and weights: `ModelPackage.digest`.
    model_digest: str
    precision: Precision

    @property
    def name(self) -> str:
        """A digest of all that, for files."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:24]


def key_for(package: ModelPackage, target: Target, precision: Precision | None = None) -> Key:
    """The key of a package's plan, in the precision of its manifest where no other is asked for."""
    wanted = precision or package.manifest.gpu.precision
    return Key(target=target, model_digest=package.digest, precision=wanted)


class Verdict(Strict):
    """What the parity gate said: the plan's answer beside the float32 reference's."""

    # A label map of another shape differs without bound.
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="strings")

    agrees: bool
    #: What was answered about: the package's own example, or a patch of noise with smooth shapes.
    case: Literal["example", "patch"]
    engine: str
    reference: str
    #: Of a network output, as a fraction of the reference's range.
    largest_difference: float
    tolerance: float
    #: Of the label that overlaps least; None where there are none.
    dice: float | None
    min_dice: float
    #: Each in words; none where the answers agree.
    differences: tuple[str, ...] = ()
    #: Reference's time for a patch, divided by the plan's.
    speed_up: float
    judged_at: datetime


class Record(Strict):
    """What stands beside a plan, or in its place."""

    format: Literal[1] = 1
    key: Key
    model: str
    version: str
    built_at: datetime
    #: How long the compiler took.
    seconds: float = 0.0
    #: Of the plan; "" where there is none.
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    size: Annotated[int, Field(ge=0)] = 0
    #: Why there is none; "" where there is one.
    failure: str = ""
    #: Device memory that it took when it was judged.
    megabytes: Annotated[float, Field(ge=0, le=MOST_MEGABYTES)] | None = None
    verdict: Verdict | None = None

    @property
    def serves(self) -> bool:
        """Whether jobs may run on it."""
        return not self.failure and self.verdict is not None and self.verdict.agrees

    @property
    def is_refused(self) -> bool:
        """Whether the compiler or the parity gate said no, which only a person's new build or comparison changes."""
        return bool(self.failure) or (self.verdict is not None and not self.verdict.agrees)

    @property
    def state(self) -> str:
        """In a word or a sentence: what keeps it from serving, or that nothing does."""
        if self.failure:
            return f"not built: {self.failure}"
        if self.verdict is None:
            return "built, not compared with the reference yet"
        if not self.verdict.agrees:
            return f"differs from the reference: {'; '.join(self.verdict.differences)}"
        return "verified"


@dataclass(frozen=True, kw_only=True)
class Plans:
    """The folder of plans. Several processes may use it at once."""

    folder: Path

    def find(self, key: Key) -> Record | None:
        """What is known of a plan; None where nobody built it. Raises PlanError where its record is damaged."""
        path = self.folder / f"{key.name}.json"
        found = self._read(path)
        # A verdict that was copied here from another plan would have that one's answers served.
        if found is not None and found.key != key:
            raise PlanError(f"{path}: is of another plan: {REBUILD.format(model=found.model)} again")
        return found

    def records(self) -> Iterator[Record]:
        """All of them, whatever GPU they are for; those that are damaged are left out."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                found = self._read(path)
            except PlanError:
                continue
            if found is not None:
                yield found

    def read(self, record: Record) -> bytes:
        """The plan. Raises PlanError where there is none, or other bytes than were built."""
        again = REBUILD.format(model=record.model)
        if record.failure:
            raise PlanError(f"{record.model} has no plan: {record.failure}")
        path = self.path(record)
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise PlanError(f"{path}: cannot be read ({error.strerror}): {again}") from error
        if hashlib.sha256(plan).hexdigest() != record.sha256:
            raise PlanError(f"{path}: its {len(plan)} bytes are not those that were built: {again}")
        return plan

    def build_once(
        self, package: ModelPackage, key: Key, build: Callable[[], bytes], *, again: bool = False
    ) -> Record:
        """The record of the plan, built by `build` where there is none; of processes that ask at once, one builds.

        What the compiler refused is remembered, and refused without it until somebody asks `again`.
        Raises PlanError where there is no plan; EngineError where the folder cannot be written; what `build` raises
        beside that (no device, no memory) passes on, and is not remembered.
        """
        asked_at = datetime.now(UTC)
        with self._alone(key):
            found = self._usable(key)
            # Somebody may have built it while we waited for the lock.
            if found is None or (again and found.built_at < asked_at):
                found = self._built(package, key, build)
        if found.failure:
            raise PlanError(found.failure)
        return found

    def judge(self, record: Record, verdict: Verdict, *, megabytes: float | None) -> Record:
        """Write down what the parity gate said of a plan; what then stands there, where it was built anew meanwhile.

        Raises EngineError where the folder cannot be written.
        """
        with self._alone(record.key):
            found = self.find(record.key)
            if found is not None and found != record:
                return found
            return self._write(record.model_copy(update={"verdict": verdict, "megabytes": megabytes}))

    def timing_cache(self, target: Target) -> Path:
        """Where the compiler's measurements on a GPU are kept."""
        digest = hashlib.sha256(target.model_dump_json().encode()).hexdigest()[:24]
        return self.folder / f"timing-{digest}.cache"

    def _usable(self, key: Key) -> Record | None:
        """The record that is there, where its plan is whole or known to be impossible."""
        try:
            found = self.find(key)
            if found is not None and not found.failure:
                self.read(found)
        except PlanError:
            return None
        return found

    def _built(self, package: ModelPackage, key: Key, build: Callable[[], bytes]) -> Record:
        """Build it, and write plan and record."""
        for left in self.folder.glob(f"{key.name}*.partial"):
            # Of a process that was killed: we hold the lock.
            left.unlink(missing_ok=True)
        began = datetime.now(UTC)
        manifest = package.manifest
        record = Record(key=key, model=manifest.name, version=manifest.version, built_at=began)
        try:
            plan = build()
        except PlanError as error:
            return self._write(
                record.model_copy(update={"built_at": datetime.now(UTC), "failure": str(error)})
            )
        done = datetime.now(UTC)
        about = {"sha256": hashlib.sha256(plan).hexdigest(), "size": len(plan)}
        record = record.model_copy(
            update={"built_at": done, "seconds": (done - began).total_seconds(), **about}
        )
        write_whole(self.path(record), plan)
        self._write(record)
        for path in self.folder.glob(f"{key.name}-*.plan"):
            # Of earlier builds: nobody finds them any more.
            if path != self.path(record):
                path.unlink(missing_ok=True)
        return record

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """Hold the plan's lock; the kernel gives it back where this process is killed.

        Raises EngineError where something cannot be written inside the block, except for a disk that is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self.folder / f"{key.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            where = error.filename2 or error.filename or self.folder
            raise EngineError(
                f"{where}: {error.strerror}: see that nothing else is there, and that we may write {self.folder}"
            ) from error

    def path(self, record: Record) -> Path:
        """Where the plan is that a record names."""
        return self.folder / f"{record.key.name}-{record.sha256[:24]}.plan"

    def _write(self, record: Record) -> Record:
        text = record.model_dump_json(indent=1) + "\n"
        write_whole(self.folder / f"{record.key.name}.json", text.encode())
        return record

    def _read(self, path: Path) -> Record | None:
        try:
            if not path.is_file() and path.exists():
                # To read a pipe would be to wait for whoever writes to it.
                raise PlanError(f"{path}: is no file: remove it, and run `secondread engines build` again")
            return Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise PlanError(f"{path}: is damaged: run `secondread engines build` again") from error
