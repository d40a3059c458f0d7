"""A private real Orthanc: its own folder, ports and settings, gone at the end."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.senders import Destination
from tests.support import peers

_START_SECONDS = 30.0
_PLUGIN_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")


@dataclass(frozen=True, kw_only=True)
class Orthanc:
    """A running Orthanc."""

    ae_title: str
    dicom_port: int
    http_port: int
    log: Path
    process: subprocess.Popen[bytes]
    #: Authorization header for its REST, where it asks for one.
    authorization: str = ""

    def destination(self, **changes: Any) -> Destination:
        """This Orthanc as a C-STORE destination."""
        known = {"name": "orthanc", "ae_title": self.ae_title, "host": "127.0.0.1", "port": self.dicom_port}
        return Destination(**{**known, **changes})

    def stow_destination(self, **changes: Any) -> Destination:
        """This Orthanc as a STOW-RS destination."""
        url = f"http://127.0.0.1:{self.http_port}/dicom-web"
        return Destination(**{"name": "orthanc-web", "kind": "stow", "url": url, **changes})

    def rest(self, path: str, *, method: str = "GET", body: object = None) -> Any:
        """JSON of a REST path, e.g. "/instances?expand"."""
        return json.loads(self.raw(path, method=method, body=body) or b"null")

    def raw(self, path: str, *, method: str = "GET", body: object = None) -> bytes:
        """Bytes of a REST path, e.g. "/instances/{id}/file"."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.http_port}{path}"
        headers = {"Authorization": self.authorization} if self.authorization else {}
        with urllib.request.urlopen(
            urllib.request.Request(url, data=data, method=method, headers=headers), timeout=30
        ) as answer:
            content: bytes = answer.read()
            return content

    def upload(self, path: Path) -> str:
        """Give it a file; its own identifier of the instance."""
        url = f"http://127.0.0.1:{self.http_port}/instances"
        request = urllib.request.Request(url, data=path.read_bytes(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(json.loads(answer.read())["ID"])

    def ask_commitment(self, modality: str, resources: list[str]) -> str:
        """Have it ask a peer whether it holds these; the transaction's UID."""
        path = f"/modalities/{modality}/storage-commitment"
        return str(self.rest(path, method="POST", body={"Resources": resources})["ID"])

    def commitment(self, transaction_uid: str) -> dict[str, Any]:
        """What it knows of an answer to that by now."""
        return dict(self.rest(f"/storage-commitment/{transaction_uid}"))

    def instances(self) -> dict[str, str]:
        """SOP Instance UID -> Orthanc's own identifier, of everything it holds."""
        expanded = self.rest("/instances?expand")
        return {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in expanded}

    def file(self, sop_instance_uid: str) -> bytes:
        """The stored Part 10 file of an instance."""
        return self.raw(f"/instances/{self.instances()[sop_instance_uid]}/file")

    def add_modality(self, name: str, *, ae_title: str, port: int, host: str = "127.0.0.1") -> None:
        """Make a peer known, so that Orthanc may send to it and it may ask for storage commitment."""
        self.rest(f"/modalities/{name}", method="PUT", body={"AET": ae_title, "Host": host, "Port": port})

    def clear(self) -> None:
        """Forget every study."""
        for patient in self.rest("/patients"):
            self.rest(f"/patients/{patient}", method="DELETE")


@contextmanager
def running(
    folder: Path,
    *,
    ae_title: str = "ORTHANC",
    settings: Mapping[str, Any] | None = None,
    authorization: str = "",
) -> Iterator[Orthanc]:
    """Start an Orthanc in `folder` and wait until it answers; `settings` are merged over the plain ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(3):  # a free port may be taken by another between our look and Orthanc's bind
        orthanc = _start(folder, ae_title, settings or {}, authorization)
        if _wait_until_ready(orthanc):
            break
        _stop(orthanc.process)
        if attempt == 2:
            raise RuntimeError(f"Orthanc did not start:\n{orthanc.log.read_text(errors='replace')[-3000:]}")
    try:
        yield orthanc
    finally:
        _stop(orthanc.process)


def _start(folder: Path, ae_title: str, settings: Mapping[str, Any], authorization: str) -> Orthanc:
    dicom_port, http_port = _free_ports(2)
    configuration = folder / "orthanc.json"
    plain = _configuration(folder, ae_title, dicom_port, http_port)
    configuration.write_text(json.dumps({**plain, **settings}, indent=1))
    log = folder / "orthanc.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [peers.path("Orthanc"), "--verbose", str(configuration)], stdout=output, stderr=output, cwd=folder
        )
    return Orthanc(
        ae_title=ae_title,
        dicom_port=dicom_port,
        http_port=http_port,
        log=log,
        process=process,
        authorization=authorization,
    )


def _configuration(folder: Path, ae_title: str, dicom_port: int, http_port: int) -> dict[str, Any]:
    return {
        "Name": "secondread tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": ae_title,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "UnknownSopClassAccepted": False,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpVerbose": False,
        "Plugins": [plugin] if (plugin := dicomweb_plugin()) else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        "DicomModalities": {},
    }


def dicomweb_plugin() -> str | None:
    """The DICOMweb plugin's shared object, wherever the distribution put it."""
    for folder in _PLUGIN_FOLDERS:
        for found in sorted(Path(folder).glob("libOrthancDicomWeb.so*")):
            return str(found)
    return None


def _free_ports(count: int) -> list[int]:
    """Free ports: Orthanc cannot bind port 0 and tell; all are held until all are chosen."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait_until_ready(orthanc: Orthanc) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and orthanc.process.poll() is None:
        try:
            orthanc.rest("/system")
            with socket.create_connection(("127.0.0.1", orthanc.dicom_port), timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
