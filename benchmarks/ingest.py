"""Ingest against Orthanc: 4 associations of 200 CT images each, every image durable before its answer.

    python -m benchmarks.ingest [--rounds 5] [--data FOLDER] [--nagle]

Both servers run on this machine in turn, round by round, each time from an empty storage and with the same
senders (DCMTK's dcmsend). Orthanc runs as it comes (SQLite index, SyncStorageArea on), but with TCP_NODELAY=1,
without which it does a third; secondread's listener runs in two processes that share a port. Prints images per
second of both for each round, and the median ratio.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from dicom_node.instance import StoredInstance
from dicom_node.listener import AssociationEvent, Listener, ListenerConfig, RefusedInstance
from dicom_node.spool import Spool
from tests.support import peers
from tests.support.phantoms import Phantom, asymmetric, datasets, write

AE_TITLE = "BENCH"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running storage SCP."""

    port: int
    #: How many images it says it has.
    count: Callable[[], int]


class Silence:
    """Listener events that nobody needs."""

    def association(self, event: AssociationEvent) -> None: ...

    def instance(self, stored: StoredInstance) -> None: ...

    def refused(self, refused: RefusedInstance) -> None:
        print(f"refused: {refused.reason}", file=sys.stderr)


def make_images(folder: Path, *, series: int, images: int) -> list[Path]:
    """One folder per association: noisy 512 x 512 CT slices, about 0.5 MB each."""
    rng = np.random.default_rng(20261120)
    shape = (images, 512, 512)
    folders = []
    for number in range(series):
        noise = rng.normal(0, 20, shape).astype(np.int16)
        phantom = Phantom(shape=shape, patient_id=f"BENCH-{number}")
        target = folder / f"series{number}"
        write(datasets(phantom, asymmetric(shape) + noise), target)
        folders.append(target)
    return folders


def split(data: Path, folder: Path, *, series: int) -> list[Path]:
    """Deal the DICOM files of a folder into one folder per association, by links."""
    folders = [folder / f"series{number}" for number in range(series)]
    for target in folders:
        target.mkdir(parents=True)
    for index, path in enumerate(sorted(data.rglob("*.dcm"))):
        (folders[index % series] / f"{index:06d}.dcm").symlink_to(path.resolve())
    return folders


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until something accepts connections on the port."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def orthanc(folder: Path) -> Iterator[Server]:
    """Orthanc with an empty storage and its defaults."""
    port, http = free_port(), free_port()
    settings = {
        "Name": "benchmark",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
    }
    folder.mkdir(parents=True)
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [peers.path("Orthanc"), str(configuration)],
            stdout=log,
            stderr=log,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
    try:
        wait_for(port)
        yield Server(port=port, count=lambda: orthanc_count(http))
    finally:
        process.terminate()
        process.wait(30)


def orthanc_count(port: int) -> int:
    import httpx

    return int(httpx.get(f"http://127.0.0.1:{port}/statistics").json()["CountInstances"])


def serve(root: str, port: int, ready: Event, stop: Event) -> None:
    """One listener process."""
    spool = Spool(Path(root), watermark_bytes=1 << 30)
    config = ListenerConfig(ae_title=AE_TITLE, port=port, host="127.0.0.1", require_known_peers=False)
    with Listener(config, spool, Silence()):
        ready.set()
        stop.wait()


@contextmanager
def secondread(folder: Path, *, processes: int) -> Iterator[Server]:
    """Listener processes on one port over an empty spool."""
    context = multiprocessing.get_context("spawn")
    port, stop = free_port(), context.Event()
    started = []
    for _ in range(processes):
        ready = context.Event()
        process = context.Process(target=serve, args=(str(folder), port, ready, stop))
        process.start()
        started.append(process)
        if not ready.wait(30):
            raise TimeoutError("a listener process did not start")
    try:
        yield Server(port=port, count=lambda: len(list(folder.glob("[0-9]*/*/*.dcm"))))
    finally:
        stop.set()
        for process in started:
            process.join(30)


def send(folders: list[Path], server: Server, *, nagle: bool) -> float:
    """Send every folder at once over an association of its own; seconds until the last ends."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    if nagle:
        del environment["TCP_NODELAY"]
    command = [peers.path("dcmsend"), "-aec", AE_TITLE, "127.0.0.1", str(server.port), "+sd", "+sp", "*.dcm"]
    failures: list[str] = []

    def one(folder: Path) -> None:
        done = subprocess.run(
            [*command, str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            failures.append(done.stderr)

    threads = [threading.Thread(target=one, args=(folder,)) for folder in folders]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    if failures:
        raise RuntimeError(f"dcmsend failed: {failures[0]}")
    return seconds


def measure(server: Server, folders: list[Path], *, images: int, nagle: bool) -> float:
    """Images per second; fails where the server does not have them all."""
    seconds = send(folders, server, nagle=nagle)
    if server.count() != images:
        raise RuntimeError(f"{server.count()} of {images} images arrived")
    return images / seconds


def run(arguments: argparse.Namespace, scratch: Path) -> list[float]:
    """All rounds; the ratio of each."""
    if arguments.data is None:
        folders = make_images(scratch / "images", series=arguments.associations, images=arguments.images)
    else:
        folders = split(arguments.data, scratch / "images", series=arguments.associations)
    images = sum(1 for folder in folders for _ in folder.iterdir())
    ratios = []
    for number in range(arguments.rounds):
        with orthanc(scratch / f"orthanc{number}") as server:
            theirs = measure(server, folders, images=images, nagle=arguments.nagle)
        with secondread(scratch / f"spool{number}", processes=arguments.processes) as server:
            ours = measure(server, folders, images=images, nagle=arguments.nagle)
        ratios.append(ours / theirs)
        print(
            f"round {number + 1}: Orthanc {theirs:6.1f}/s  secondread {ours:6.1f}/s  ratio {ratios[-1]:.2f}"
        )
        shutil.rmtree(scratch / f"orthanc{number}")
        shutil.rmtree(scratch / f"spool{number}")
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--associations", type=int, default=4)
    parser.add_argument("--images", type=int, default=200, help="per association")
    parser.add_argument("--processes", type=int, default=2, help="listener processes")
    parser.add_argument("--data", type=Path, help="send these DICOM files instead of phantoms")
    parser.add_argument("--nagle", action="store_true", help="let dcmsend use Nagle's algorithm, its default")
    parser.add_argument("--bar", type=float, default=1.0, help="exit 1 below this median ratio")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ingest-") as scratch:
        ratios = run(arguments, Path(scratch))
    median = statistics.median(ratios)
    print(f"median ratio {median:.2f} (bar {arguments.bar:.2f})")
    return 0 if median >= arguments.bar else 1


if __name__ == "__main__":
    sys.exit(main())
