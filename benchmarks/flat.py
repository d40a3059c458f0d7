"""Whether memory stays flat: resident memory of each role over many studies.

    python -m benchmarks.flat [--studies 100] [--images 200]

A real `secondread up` with a tiny model gets study after study from DCMTK's dcmsend and sends its results to
storescp. After each study the resident memory (VmRSS) of every process is read, summed by role. Prints it over
time, and for each role the median of the last quarter over that of the first; the bar is 1.10. The first tenth of
the studies is left out: models, plans and pools are loaded under them. Exits 1 where the listener or the worker
grew by more.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance import installation
from tests.acceptance.installation import Installation
from tests.support import peers, phantoms
from tests.support.phantoms import Phantom
from tests.worker import journey

BAR = 1.10
#: Roles that must be flat, by the words of their command; the others are shown.
MUST = ("listen", "cpu")
ROLES = {
    "listen": " listen",
    "cpu": "--queue cpu",
    "deliver": "--queue deliver",
    "sweep": " sweep",
    "web": " web",
}


def main() -> int:
    """Send, read, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secondread-flat-") as name:
        folder = Path(name)
        with _receiver(folder) as port, _node(folder, port) as node:
            read = _run(node, folder, studies=arguments.studies, images=arguments.images)
    return _report(read)


@contextmanager
def _receiver(folder: Path) -> Iterator[int]:
    """A PACS that takes everything and keeps nothing."""
    (port,) = installation.free_ports(1)
    command = [peers.path("storescp"), "--ignore", "--fork", "--aetitle", "SINK", str(port)]
    with (folder / "storescp.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _node(folder: Path, port: int) -> Iterator[Installation]:
    """`secondread up` with the tiny model."""
    journey.write_model(folder / "models" / "tiny")
    made = installation.configure(
        folder / "node",
        models=[str(folder / "models")],
        peers=[
            {"name": "scanner", "ae_title": installation.SCANNER, "host": "127.0.0.1"},
            {"name": "sink", "ae_title": "SINK", "host": "127.0.0.1", "port": port},
        ],
        routes=[{"name": "all ct", "when": {"Modality": "CT"}, "run": ["tiny"], "send_to": ["sink"]}],
    )
    with installation.running(made) as running:
        yield running


def _run(node: Installation, folder: Path, *, studies: int, images: int) -> dict[str, list[float]]:
    """Send the studies one after the other; resident megabytes by role after each."""
    read: dict[str, list[float]] = {role: [] for role in ROLES}
    began = time.monotonic()
    print(f"{'study':>6} {'s':>6} " + " ".join(f"{role:>9}" for role in ROLES) + "   MB resident")
    for number in range(1, studies + 1):
        made = phantoms.datasets(Phantom(shape=(images, 48, 64), patient_id=f"FLAT-{number}"))
        files = phantoms.write(made, folder / "study")
        sent = node.dcmsend(folder / "study")
        assert sent.returncode == 0, sent.stderr
        node.done(str(made[0].StudyInstanceUID), seconds=120)
        assert len(files) == images
        shutil.rmtree(folder / "study")
        for role, megabytes in _resident(node).items():
            read[role].append(megabytes)
        if number == 1 or number % max(1, studies // 20) == 0:
            now = " ".join(f"{read[role][-1]:9.1f}" for role in ROLES)
            print(f"{number:6} {time.monotonic() - began:6.0f} {now}", flush=True)
    return read


def _resident(node: Installation) -> dict[str, float]:
    """Resident megabytes of each role's processes together."""
    assert node.process is not None
    found = dict.fromkeys(ROLES, 0.0)
    for pid in installation.children(node.process.pid):
        command = installation.command_line(pid)
        role = next((role for role, words in ROLES.items() if words in command), None)
        if role is not None:
            found[role] += sum(map(_megabytes, [pid, *installation.descendants(pid)]))
    return found


def _megabytes(pid: int) -> float:
    """A process' resident memory."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0
    )


def _report(read: dict[str, list[float]]) -> int:
    """The ratios; 1 where one that must be flat is not."""
    grown = 0
    for role, values in read.items():
        steady = values[len(values) // 10 :]
        quarter = max(1, len(steady) // 4)
        first, last = statistics.median(steady[:quarter]), statistics.median(steady[-quarter:])
        ratio = last / first if first else 0.0
        must = role in MUST
        verdict = ("flat" if 1 / BAR <= ratio <= BAR else "NOT FLAT") if must else ""
        grown += verdict == "NOT FLAT"
        print(f"{role:>8}: {first:7.1f} MB -> {last:7.1f} MB, ratio {ratio:.3f}; bar {BAR:.2f} {verdict}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
