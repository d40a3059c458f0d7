"""The demo's receiving PACS: a private Orthanc where one is installed, else a small storage SCP of ours."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydicom.uid import UID

from dicom_node.archive import Archive
from worker.errors import WorkerError

AE_TITLE = "DEMOPACS"
_START_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """An object that the PACS holds, as it says itself."""

    sop_class: str
    series_description: str
    sop_instance_uid: str


class DemoPacs(ABC):
    """A PACS to send results to and to ask what it holds."""

    #: For people.
    name: str
    #: The address of its own page, while it runs; "" where it has none.
    page: str = ""
    port: int

    @abstractmethod
    def held(self) -> list[Held]:
        """What it holds."""


class _Own(DemoPacs):
    """Our own storage SCP."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.name = "a small receiving PACS of its own"
        self.port = archive.port

    def held(self) -> list[Held]:
        return [
            Held(
                sop_class=UID(row.sop_class_uid).name,
                series_description="",
                sop_instance_uid=row.sop_instance_uid,
            )
            for row in self._archive.received
        ]


class _Orthanc(DemoPacs):
    """An Orthanc, asked by REST."""

    def __init__(self, port: int, http_port: int) -> None:
        self.port = port
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=10)
        version = self._client.get("/system").json()["Version"]
        self.name = f"Orthanc {version}"
        self.page = f"http://127.0.0.1:{http_port}/"

    def held(self) -> list[Held]:
        answers = [
            (series, instance)
            for series in self._client.get("/series", params={"expand": ""}).json()
            for instance in series["Instances"]
        ]
        return [self._held(series, instance) for series, instance in answers]

    def _held(self, series: dict[str, dict[str, str]], instance: str) -> Held:
        tags = self._client.get(f"/instances/{instance}/simplified-tags").json()
        return Held(
            sop_class=UID(tags["SOPClassUID"]).name,
            series_description=series["MainDicomTags"].get("SeriesDescription", ""),
            sop_instance_uid=tags["SOPInstanceUID"],
        )


@contextmanager
def running(folder: Path) -> Iterator[DemoPacs]:
    """A receiving PACS that lives while the block runs; its files go to `folder`."""
    executable = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if executable is None:
        with Archive(folder, ae_title=AE_TITLE) as archive:
            yield _Own(archive)
        return
    folder.mkdir(parents=True)
    port, http_port = free_port(), free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(_configuration(folder, port, http_port), indent=1))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([executable, str(configuration)], stdout=log, stderr=log, cwd=folder)
    try:
        _wait(process, http_port, folder / "orthanc.log")
        yield _Orthanc(port, http_port)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _configuration(folder: Path, port: int, http_port: int) -> dict[str, object]:
    """An Orthanc on this machine only, with nothing but storage."""
    return {
        "Name": "secondread demo",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
    }


def _wait(process: subprocess.Popen[bytes], http_port: int, log: Path) -> None:
    """Wait until Orthanc answers. Raises WorkerError."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{http_port}/system", timeout=2).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
            continue
        return
    raise WorkerError(f"the demo's Orthanc did not start; see {log}")


def free_port(wanted: int = 0) -> int:
    """`wanted` where it is free on this machine, else another free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise WorkerError("this machine has no free port")
