"""`secondread demo`: the main job on the shipped real CT, on embedded defaults, with pictures."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from db import jobs, studies
from db.base import Database
from db.errors import NotFound
from dicom_node import senders
from dicom_node.senders import Destination, Outcome, Verdict
from engines import printing
from worker import assets, demo_pacs, demo_report, pictures, settings, status, supervise, views, words
from worker.demo_pacs import DemoPacs
from worker.demo_report import Shown
from worker.errors import WorkerError
from worker.folder import read as read_folder
from worker.settings import Settings
from worker.shelf import Shelf

_SENDER = "DEMO-CT"
#: Longest wait for everything to be ready, and for the results.
_READY_SECONDS = 90.0
_RESULT_SECONDS = 180.0


def run(out: Path, *, keep: bool, console: Console) -> None:
    """Run the demo in a new folder under `out`. Raises WorkerError where a step fails."""
    began = time.monotonic()
    source = assets.demo() / "ct"
    if not source.is_dir():
        raise WorkerError(f"{source}: the demo CT is missing from this installation")
    folder = (out / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True)
    console.print(
        f"[bold]secondread demo[/]: a real chest CT, a model on the CPU, results in a PACS\n  in {folder}"
    )
    with demo_pacs.running(folder / "pacs") as pacs:
        config = _write_config(folder, pacs)
        with _up(config, folder, console):
            shown = _main_job(source, folder, config, pacs, console=console)
            seconds = time.monotonic() - began
            _tell(shown, seconds, console, keep=keep)
            if keep:
                _stay(shown, pacs, console)
            console.print("stopping everything that it started")
    console.print(f"[green]done[/]; the demo took {seconds:.0f} s")


def _write_config(folder: Path, pacs: DemoPacs) -> Path:
    """A configuration like a site's own: a sender, a PACS, one route."""
    config = folder / "config.yaml"
    content = {
        "node": {"host": "127.0.0.1", "port": demo_pacs.free_port(11112)},
        "web": {"port": demo_pacs.free_port(8080)},
        "storage": str(folder / "storage"),
        "models": [str(assets.models())],
        "peers": [
            {"name": "ct scanner", "ae_title": _SENDER, "host": "127.0.0.1"},
            {"name": "demo pacs", "ae_title": demo_pacs.AE_TITLE, "host": "127.0.0.1", "port": pacs.port},
        ],
        "routes": [
            {"name": "chest ct", "when": {"Modality": "CT"}, "run": ["chest-ct"], "send_to": ["demo pacs"]}
        ],
    }
    config.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return config


@contextmanager
def _up(config: Path, folder: Path, console: Console) -> Iterator[None]:
    """A real `secondread up` in a process of its own, for as long as the block runs."""
    command = [sys.executable, "-m", "worker.cli", "up", "--config", str(config)]
    output = folder / "up.log"
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        with console.status("starting listener, workers, sweep and page"):
            _wait_until_ready(process, output)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=supervise.GRACE_SECONDS + 30)


def _wait_until_ready(process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait for the line that says so. Raises WorkerError with the end of the log."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        text = output.read_text(encoding="utf-8", errors="replace")
        if "secondread is ready" in text:
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    tail = "\n".join(output.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    raise WorkerError(f"`secondread up` did not become ready; {output} ends with:\n{tail}")


def _main_job(source: Path, folder: Path, config: Path, pacs: DemoPacs, *, console: Console) -> Shown:
    """Send the CT, wait for the results, ask the PACS what it holds."""
    configured = settings.load(config)
    uid = str(read_folder(source).series[0].view.attributes["StudyInstanceUID"])
    with _bars(console) as progress:
        started = time.monotonic()
        _send(source, configured, progress)
        sent = time.monotonic()
        with Database(configured.database_url) as database:
            study, job = _wait(database, uid, progress)
    finished = time.monotonic()
    if job.state != "done":
        raise WorkerError(f"the job ended as {job.state}: {job.reason}: {job.error}; see {folder / 'up.log'}")
    return Shown(
        folder=folder,
        settings=configured,
        study=study,
        job=job,
        segments=Shelf(configured.models).package(job.model).segments,
        pacs_name=pacs.name,
        held=pacs.held(),
        seconds={"send": sent - started, "answer": finished - sent},
    )


def _bars(console: Console) -> Progress:
    """Progress bars on a terminal; nothing elsewhere, where the lines below say it."""
    return Progress(
        TextColumn("  {task.description:<42}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _send(source: Path, configured: Settings, progress: Progress) -> None:
    """C-STORE of the CT as the scanner would do it. Raises WorkerError where an image is refused."""
    paths = sorted(source.glob("*.dcm"))
    task = progress.add_task(f"C-STORE of {len(paths)} CT images", total=len(paths))
    refused: list[Outcome] = []

    def answered(outcome: Outcome) -> None:
        progress.advance(task)
        if outcome.verdict is not Verdict.DELIVERED:
            refused.append(outcome)

    node = Destination(
        name="secondread",
        ae_title=configured.node.ae_title,
        host="127.0.0.1",
        port=configured.node.port,
        calling_ae_title=_SENDER,
    )
    senders.open_sender(node).send(paths, answered)
    if refused:
        raise WorkerError(f"{len(refused)} images were refused; the first: {refused[0].comment}")


def _wait(database: Database, uid: str, progress: Progress) -> tuple[views.StudyLine, views.JobDetail]:
    """Follow the study until its jobs have ended. Raises WorkerError where that takes too long."""
    steps = {"receiving": 1, "queued": 2, "running": 3, "delivering": 4}
    task = progress.add_task("waiting for the study to be complete", total=5)
    deadline = time.monotonic() + _RESULT_SECONDS
    while time.monotonic() < deadline:
        stage = "receiving"
        with database.read() as session:
            try:
                study = studies.by_uid(session, uid)
            except NotFound:
                study = None
            if study is not None and study.jobs:
                stage = study.jobs[-1].state
                if study.state == "done":
                    progress.update(task, completed=5, description="the results are in the PACS")
                    line = status.study_lines(session, [study])[0]
                    return line, status.job_detail(session, jobs.newest(session, study_id=study.id)[0].id)
        words = {"receiving": "quiet time: is the study complete?", "running": "the model runs, on the CPU"}
        progress.update(task, completed=steps.get(stage, 0), description=words.get(stage, stage))
        time.sleep(0.1)
    raise WorkerError(f"no result after {_RESULT_SECONDS:.0f} s; ask `secondread why {uid}`")


def _tell(shown: Shown, seconds: float, console: Console, *, keep: bool) -> None:
    """Say what came back, and where to look."""
    pictures = _collect_pictures(shown)
    report = demo_report.write(shown.folder / "report.html", shown, pictures, seconds=seconds)
    job = shown.job
    found_by = escape(f"{job.model} {job.model_version} on {job.engine}")
    console.print(f"\n[bold]What the model found[/]  {found_by}", soft_wrap=True)
    for measured in job.measurements:
        where = measured.segment or words.TOGETHER
        console.print(
            f"  {measured.meaning:<40} {where:<12} {measured.value:>9.1f} {printing.unit(measured.unit)}",
            markup=False,
        )
    for finding in job.findings:
        presence = "present" if finding.present else "absent"
        console.print(f"  {finding.meaning:<40} {presence}", markup=False)
    console.print(f"\n[bold]What the PACS holds[/]  {shown.pacs_name}")
    for held in shown.held:
        console.print(f"  {held.sop_class:<28} {held.series_description}", markup=False, soft_wrap=True)
        console.print(f"  {'':<28} {held.sop_instance_uid}", markup=False, soft_wrap=True)
    stages = "  ".join(f"{stage} {value:.2f}" for stage, value in job.seconds.items())
    console.print("\n[bold]Seconds[/]")
    console.print(
        f"  C-STORE in {shown.seconds['send']:.2f}, until the results were in the PACS {shown.seconds['answer']:.2f}"
    )
    console.print(
        f"  of which {shown.settings.node.quiet_seconds:.0f} s quiet time, and in the job: {stages}"
    )
    console.print("\n[bold]Where to look[/]")
    console.print(f"  report          {report}", markup=False, soft_wrap=True)
    console.print(f"  pictures        {pictures[0].parent}", markup=False, soft_wrap=True)
    if not keep:
        console.print("  status page     run it again with --keep: everything then stays, until Ctrl-C")
    console.print("  For demonstration only: the model is not a medical device.")


def _collect_pictures(shown: Shown) -> list[Path]:
    """Copies of the job's pictures beside the report."""
    folder = shown.folder / "pictures"
    folder.mkdir()
    source = shown.settings.results / shown.job.identity
    # They are drawn while the results leave, so they may come a moment after the end of the job.
    supervise.wait_until(
        lambda: (source / f"{pictures.LAST}.png").exists(), timeout=20, stop=threading.Event()
    )
    made = sorted(source.glob("*.png"))
    return [Path(shutil.copy(picture, folder / picture.name)) for picture in made]


def _stay(shown: Shown, pacs: DemoPacs, console: Console) -> None:
    """Leave everything running until Ctrl-C."""
    web = f"http://{shown.settings.web.host}:{shown.settings.web.port}"
    console.print("\n[bold]Everything keeps running[/]")
    console.print(f"  status page     {web}/studies/{shown.study.study_instance_uid}", soft_wrap=True)
    if pacs.page:
        console.print(f"  the PACS' page  {pacs.page}", soft_wrap=True)
    console.print("Stop with Ctrl-C.")
    supervise.stop_on_signals().wait()
