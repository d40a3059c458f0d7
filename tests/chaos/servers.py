"""The servers beside us that a storm stops and starts: the receiving PACS and PostgreSQL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pydicom
from pydicom.filebase import DicomBytesIO

from tests.support import peers
from tests.support.orthanc import Orthanc
from tests.support.postgres import Cluster

_START_SECONDS = 30.0


class Receiver:
    """A real Orthanc that can be stopped and started on the same ports with what it has."""

    def __init__(self, orthanc: Orthanc) -> None:
        self.orthanc = orthanc
        self._folder = orthanc.log.parent
        self._process: subprocess.Popen[bytes] = orthanc.process
        #: It forgets its peers when it ends; only who it knows may ask it for storage commitment.
        self._peer: dict[str, Any] = {}

    def know(self, **peer: Any) -> None:
        """Make a peer known, now and after each start: see `Orthanc.add_modality`."""
        self._peer = peer
        self.orthanc.add_modality(**peer)

    def stop(self) -> None:
        """It ends in order: what it acknowledged, it keeps."""
        self._process.terminate()
        self._process.wait(30)

    def start(self) -> None:
        """Start it again where it does not run, and wait until it answers."""
        if self._process.poll() is None:
            return
        command = [peers.path("Orthanc"), str(self._folder / "orthanc.json")]
        with self.orthanc.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError("Orthanc did not start again")
            time.sleep(0.05)
        if self._peer:
            self.orthanc.add_modality(**self._peer)

    def _answers(self) -> bool:
        try:
            self.orthanc.rest("/system")
            socket.create_connection(("127.0.0.1", self.orthanc.dicom_port), timeout=1).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def count(self) -> int:
        """How many objects it holds; -1 while it does not answer."""
        try:
            return int(self.orthanc.rest("/statistics")["CountInstances"])
        except (urllib.error.URLError, OSError):
            return -1

    def objects(self) -> Iterator[pydicom.Dataset]:
        """Every object that it holds, without pixels."""
        for identifier in self.orthanc.rest("/instances"):
            content = self.orthanc.raw(f"/instances/{identifier}/file")
            yield pydicom.dcmread(DicomBytesIO(content), stop_before_pixels=True)


@contextmanager
def stoppable(orthanc: Orthanc) -> Iterator[Receiver]:
    """The receiver; whatever process of it runs at the end is stopped."""
    receiver = Receiver(orthanc)
    try:
        yield receiver
    finally:
        receiver.stop()


class DatabaseServer:
    """A private PostgreSQL that can be stopped and started."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._data = cluster.socket / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Fast shutdown: connections are cut."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError):
            return
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + _START_SECONDS
        while (self._data / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._process is not None:
            self._process.wait(10)

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        if (self._data / "postmaster.pid").exists():
            return
        who: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = self._data.stat()
            who = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        command = [peers.path("postgres"), "-D", str(self._data), "-k", str(self._cluster.socket)]
        command += ["-c", "listen_addresses=", "-c", "max_connections=200"]
        log = Path(self._cluster.socket, "again.log")
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, cwd="/", **who)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._cluster.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return
