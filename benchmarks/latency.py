"""How long results take after the last image was acknowledged, less inference and less the quiet time.

    python -m benchmarks.latency [--data FOLDER_OF_CT] [--model NAME_OR_FOLDER_OF_PACKAGES] [--rounds 3]

A real `secondread up` and a receiving PACS; the CT goes in by C-STORE with new UIDs each round. Without
--data the images are a synthetic chest of 275 slices. The ratio is the overhead against the bar of 2 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from pydicom import dcmread
from pydicom.uid import generate_uid

from db import jobs, studies
from db.base import Database
from dicom_node import senders
from dicom_node.archive import Archive
from dicom_node.senders import Destination
from tests.support import phantoms
from worker import assets, demo_pacs, settings, status

BAR_SECONDS = 2.0
QUIET_SECONDS = 2.0
#: The stages of a job that are the model's answer; everything else is ours to keep short.
INFERENCE = ("preprocess", "infer", "postprocess", "measure")


def synthetic(folder: Path) -> list[Path]:
    """275 slices of 512 x 512 with two air-filled ellipses in a body."""
    phantom = phantoms.Phantom(shape=(275, 512, 512), spacing=(1.0, 0.78, 0.78))
    row, column = np.mgrid[-1:1:512j, -1:1:512j]
    plane = np.full((512, 512), -1000, np.int16)
    plane[(row / 0.7) ** 2 + (column / 0.9) ** 2 < 1] = 40
    for side in (-0.4, 0.4):
        plane[(row / 0.45) ** 2 + ((column - side) / 0.28) ** 2 < 1] = -850
    return phantoms.write(phantoms.datasets(phantom, np.broadcast_to(plane, phantom.shape)), folder)


def renamed(sources: Sequence[Path], folder: Path) -> list[Path]:
    """The same images as a new study."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    made = []
    for source in sources:
        ds = dcmread(source)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        made.append(folder / source.name)
        ds.save_as(made[-1])
    return made


def write_config(folder: Path, pacs: int, models: Path, model: str) -> Path:
    """One sender, one PACS, one route."""
    config = folder / "config.yaml"
    content = {
        "node": {"host": "127.0.0.1", "port": demo_pacs.free_port(), "quiet_seconds": QUIET_SECONDS},
        "web": {"port": demo_pacs.free_port()},
        "storage": str(folder / "storage"),
        "models": [str(models)],
        "peers": [
            {"name": "scanner", "ae_title": "BENCH", "host": "127.0.0.1"},
            {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs},
        ],
        "routes": [{"name": "ct", "when": {"Modality": "CT"}, "run": [model], "send_to": ["pacs"]}],
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return config


def one_round(sources: Sequence[Path], folder: Path, config: Path, archive: Archive) -> float:
    """Send, wait for both objects, print where the time went; returns the overhead in seconds."""
    configured = settings.load(config)
    paths = renamed(sources, folder)
    node = Destination(
        name="node",
        ae_title="SECONDREAD",
        host="127.0.0.1",
        port=configured.node.port,
        calling_ae_title="BENCH",
    )
    before = len(archive.received)
    senders.open_sender(node).send(paths, lambda outcome: None)
    acknowledged = time.time()
    if not archive.wait_for(before + 2, timeout=300):
        raise SystemExit("no result within 300 s")
    last = archive.received[-1].at.timestamp()
    with Database(configured.database_url) as database, database.read() as session:
        detail = status.job_detail(session, jobs.newest(session, limit=1)[0].id)
        quiet = (studies.newest(session, limit=1)[0].evidence or {})["needed_seconds"]
    inference = sum(detail.seconds.get(stage, 0.0) for stage in INFERENCE)
    overhead = last - acknowledged - inference - quiet
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in detail.seconds.items())
    print(
        f"{last - acknowledged:6.2f} s in all, quiet {quiet:.2f}, inference {inference:.2f}, "
        f"overhead {overhead:.2f} ({stages})"
    )
    return overhead


def main() -> None:
    """Run the rounds and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path, default=assets.models())
    parser.add_argument("--model", default="chest-ct")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secondread-latency-") as name:
        folder = Path(name)
        sources = (
            sorted(path for path in arguments.data.rglob("*.dcm") if path.is_file())
            if arguments.data
            else synthetic(folder / "phantom")
        )
        with Archive(folder / "pacs", ae_title="PACS") as archive:
            config = write_config(folder, archive.port, arguments.models, arguments.model)
            command = [sys.executable, "-m", "worker.cli", "up", "--config", str(config)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if "is ready" in line:
                        break
                overheads = [
                    one_round(sources, folder / f"round-{number}", config, archive)
                    for number in range(arguments.rounds)
                ]
                process.terminate()
    median = sorted(overheads)[len(overheads) // 2]
    print(
        f"median overhead {median:.2f} s, worst {max(overheads):.2f} s; bar {BAR_SECONDS:.1f} s; "
        f"ratio {median / BAR_SECONDS:.2f} x"
    )


if __name__ == "__main__":
    main()
