"""Senders that behave like PACS: several at once, in any order, and again until they are told it is safe."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from tests.chaos.ledger import Acknowledged, Ledger
from tests.chaos.plan import Errand, Image, Step, Storm
from tests.support import phantoms
from tests.support.entity import Entity
from tests.support.listening import CT, EXPLICIT, Wire, store_command, value

CALLING = "SCANNER"
CALLED = "SECONDREAD"
#: Waits before what was not acknowledged is sent again; the last one repeats.
BACK_OFF_SECONDS = (0.3, 0.6, 1.2, 2.5, 5.0)
#: Senders at work at once.
SENDERS = 8
#: How long a sender waits for an answer before it gives the association up.
ANSWER_SECONDS = 15.0
#: Nobody's root: these studies are of no patient.
ROOT = "1.2.826.0.1.3680043.8.498.77"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image, ready to send."""

    ds: Dataset
    data: bytes
    #: What the ledger says once it is acknowledged.
    entry: Acknowledged


class Traffic:
    """Runs a storm's errands, each at its time, and waits until all is acknowledged."""

    def __init__(self, storm: Storm, errands: Sequence[Errand], port: int, ledger: Ledger) -> None:
        self._storm = storm
        self._errands = errands
        self._port = port
        self._ledger = ledger
        self._stop = threading.Event()
        self.failures: list[BaseException] = []

    def run(self) -> None:
        """Every errand to its end; returns when the last image is acknowledged, or `stop` is called."""
        began = time.monotonic()
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="sender") as pool:
            for errand in self._errands:
                self._stop.wait(max(0.0, began + errand.start - time.monotonic()))
                pool.submit(self._watched, errand)

    def stop(self) -> None:
        """Give up whatever is not acknowledged yet."""
        self._stop.set()

    def _watched(self, errand: Errand) -> None:
        try:
            self._run(errand)
        except BaseException as error:
            self.failures.append(error)
            raise

    def _run(self, errand: Errand) -> None:
        for step in errand.steps:
            if step.kind == "pause":
                self._stop.wait(step.seconds)
            elif step.kind == "send":
                self._until_acknowledged(step.images, pause=step.seconds)
            elif step.kind == "abort":
                self._associate(step.images, abort=True)
            else:
                self._break_off(step)
        self._until_acknowledged([image for image in errand.images if not self._is_safe(image)])

    def _is_safe(self, image: Image) -> bool:
        entry = sample(self._storm, image).entry
        return self._ledger.has(entry.sop_instance_uid, entry.sha256)

    def _until_acknowledged(self, images: Sequence[Image], *, pause: float = 0.0) -> None:
        """Send on one association after another until each was answered with 0x0000 once."""
        left = list(images)
        attempt = 0
        while left and not self._stop.is_set():
            before = len(left)
            left = self._associate(left, pause=pause)
            attempt = 0 if len(left) < before else attempt + 1
            if left:
                self._ledger.count("came again")
                self._stop.wait(BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)])

    def _associate(self, images: Sequence[Image], *, pause: float = 0.0, abort: bool = False) -> list[Image]:
        """One association; returns the images that it did not get acknowledged."""
        ae = Entity(ae_title=CALLING)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ANSWER_SECONDS
        ae.connection_timeout = 5
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", self._port, ae_title=CALLED)
        if not association.is_established:
            self._ledger.count("connections refused")
            return list(images)
        left: list[Image] = []
        for number, image in enumerate(images):
            if pause and number == len(images) // 2:
                self._stop.wait(pause)
            if not association.is_established:
                left += images[number:]
                break
            if not self._store(association, image):
                left.append(image)
        if not association.is_established:
            self._ledger.count("associations lost")
        elif abort:
            self._ledger.count("associations aborted")
            association.abort()
        else:
            association.release()
        return left

    def _store(self, association: Association, image: Image) -> bool:
        """Send one image; whether it was acknowledged."""
        made = sample(self._storm, image)
        self._ledger.count("sent")
        try:
            answer = association.send_c_store(made.ds)
        except (RuntimeError, ValueError, OSError):
            # The association ended between our look and the request.
            return False
        status = answer.Status if "Status" in answer else None
        if status == 0x0000:
            self._ledger.acknowledged(made.entry)
            return True
        self._ledger.count("no answer" if status is None else f"answered 0x{status:04X}")
        return False

    def _break_off(self, step: Step) -> None:
        """Send all images but half of the last one, and be gone."""
        self._ledger.count("connections broken")
        try:
            with Wire(self._port) as wire:
                if wire.associate({1: (CT, [EXPLICIT])})[:1] != b"\x02":
                    return
                for image in step.images[:-1]:
                    made = sample(self._storm, image)
                    self._ledger.count("sent")
                    request = store_command(CT, made.entry.sop_instance_uid)
                    wire.send_values(value(1, 0x03, request), value(1, 0x02, made.data))
                    if wire.status() == 0x0000:
                        self._ledger.acknowledged(made.entry)
                made = sample(self._storm, step.images[-1])
                wire.send_values(value(1, 0x03, store_command(CT, made.entry.sop_instance_uid)))
                wire.send_values(value(1, 0x00, made.data[: len(made.data) // 2]))
        except (OSError, AssertionError):
            logging.getLogger(__name__).debug("it broke off before we did")


@lru_cache(maxsize=64)
def _study(seed: int, study: int, slices: int) -> list[Dataset]:
    """A study's images under UIDs that follow from the seed."""
    uid = f"{ROOT}.{seed}.{study + 1}"
    phantom = phantoms.Phantom(
        shape=(slices, 64, 64),
        study_uid=uid,
        series_uid=f"{uid}.1",
        patient_id=f"STORM-{seed}-{study}",
        patient_name="Nobody^At All",
        series_description=f"Storm {study}",
    )
    made = phantoms.datasets(phantom)
    for number, ds in enumerate(made, start=1):
        ds.FrameOfReferenceUID = f"{uid}.2"
        ds.SOPInstanceUID = f"{uid}.1.{number}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return made


@lru_cache(maxsize=4096)
def sample(storm: Storm, image: Image) -> Sample:
    """An image of the plan; the same bytes every time."""
    ds = _study(storm.seed, image.study, storm.slices)[image.slice]
    if image.variant:
        meta, ds = ds.file_meta, Dataset(ds)
        ds.file_meta = meta
        ds.ImageComments = "other bytes"
    data = encode(ds, False, True)
    assert data is not None
    entry = Acknowledged(
        study_instance_uid=str(ds.StudyInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        sha256=hashlib.sha256(data).hexdigest(),
        other_bytes=bool(image.variant),
    )
    return Sample(ds=ds, data=data, entry=entry)
