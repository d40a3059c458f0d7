"""Compiled plans are made beside the work: what the routes' models lack is built and judged, one at a time.

What needs the GPU runs in a process of its own that ends when it is done: a CUDA context would keep a part of the
device's memory as long as its process lives.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

from dicom_node.errors import NO_SPACE
from engines import gpu, plans
from engines.errors import DeviceError, DeviceLost, EngineError, PlanError
from engines.package import ModelPackage
from engines.plans import Plans, Record, Target
from worker import device as devices
from worker import space, supervise
from worker.device import Device
from worker.errors import DiskFull
from worker.settings import Settings
from worker.shelf import Shelf

logger = logging.getLogger(__name__)

#: Between two looks where something was left to be done: at first, and at most. A compiler takes minutes.
SOON_SECONDS, LATE_SECONDS = 30.0, 600.0
#: Between two looks where all was done: packages and plans may be changed by hand.
LATER_SECONDS = 3600.0
#: A build is left for later where less of the device's memory is free: jobs go first.
LEAST_FREE = 512 * 2**20
#: Of its weights, what a build takes beside them: layers' outputs, and the ways to compute them that are compared.
_TIMES_WEIGHTS = 8

#: Of all that runs here this comes last (nice(2)).
NICENESS = 15

#: Builds and judges a package's plan. Raises EngineError.
Prepare = Callable[[ModelPackage], Record]


def keep(command: Sequence[str], stop: threading.Event) -> None:
    """Run `command`, which is to be a look (`look`), now and then, until `stop` is set.

    It ends with 0 where all is done. A look that is under way then is ended: nothing that is half done is found.
    """
    failures = 0
    while not stop.is_set():
        done = _run(command, stop)
        failures = 0 if done else failures + 1
        wait = LATER_SECONDS if done else min(SOON_SECONDS * 2 ** (failures - 1), LATE_SECONDS)
        stop.wait(wait)


def _run(command: Sequence[str], stop: threading.Event) -> bool:
    """One look; whether it had nothing left to do."""
    linux = sys.platform == "linux"
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        preexec_fn=partial(supervise.die_with_parent, os.getpid()) if linux else None,
    )
    while process.poll() is None:
        if stop.wait(0.2):
            process.terminate()
            process.wait()
    return process.returncode == 0


def look(settings: Settings, prepare: Prepare, tell: Callable[[str], None]) -> bool:
    """Build and judge what the routes' models lack; whether nothing is left to be tried again.

    `tell` gets a sentence about each that was tried. What the compiler refused, and what the gate did, is settled
    until a person builds it again.
    """
    device = devices.of(settings)
    if device is None:
        return True
    try:
        target = gpu.target(device.engine)
        waiting = [
            each
            for each in Shelf(settings.models).routed(settings)
            if not _settled(device.kept, each, target)
        ]
        return all([_has_room(each, settings) and _prepared(each, device, prepare, tell) for each in waiting])
    except DeviceError as error:
        logger.warning("no plan can be built now: %s", error)
        return False


def _settled(kept: Plans, package: ModelPackage, target: Target) -> bool:
    """Whether a package's plan is judged and whole, or known to be impossible."""
    try:
        record = kept.find(plans.key_for(package, target))
        if record is not None and record.serves:
            # One that was removed, or damaged, serves nobody.
            kept.read(record)
    except PlanError:
        return False
    return record is not None and (record.serves or record.is_refused)


def _has_room(package: ModelPackage, settings: Settings) -> bool:
    """Whether the disk takes a plan, which is about as large as the weights, beside what is kept of it for results."""
    free = space.free_bytes(settings.storage)
    needed = space.needed_bytes(settings) + package.weights.stat().st_size
    if free < needed:
        logger.warning(
            "the plan of %s waits: of the disk %s must be free for it, and %s are",
            package.manifest.name,
            space.megabytes(needed),
            space.megabytes(free),
        )
    return free >= needed


def _prepared(package: ModelPackage, device: Device, prepare: Prepare, tell: Callable[[str], None]) -> bool:
    """Build and judge one; False where it is to be tried again. Raises DeviceError where the device is lost."""
    name, free, needed = package.manifest.name, device.free(), need(package)
    if free is not None and free < needed:
        logger.info(
            "the plan of %s waits: it needs %.0f MB of the GPU's memory to be built, and %.0f MB are free",
            name,
            needed / 2**20,
            free / 2**20,
        )
        return False
    logger.info("the plan of %s is built", name)
    try:
        record = prepare(package)
    except PlanError as error:
        # It is remembered, and refused from now on.
        tell(f"{name} has no plan: {error}")
        return True
    except DeviceLost:
        raise
    except EngineError as error:
        tell(f"the plan of {name} could not be made: {error}")
        return False
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        tell(f"the plan of {name} could not be made: {DiskFull(device.kept.folder)}")
        return False
    tell(f"the plan of {name} {package.manifest.version} for {record.key.target}: {record.state}")
    return True


def need(package: ModelPackage) -> int:
    """Bytes of the device's memory that must be free for a build."""
    wanted = package.manifest.gpu.megabytes
    if wanted is not None:
        return max(int(wanted * 2**20), LEAST_FREE)
    return max(_TIMES_WEIGHTS * package.weights.stat().st_size, LEAST_FREE)
