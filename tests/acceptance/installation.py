"""A real installation: `secondread` as processes of its own, and what a user would ask it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import yaml

from tests.support import peers
from tests.support.orthanc import Orthanc

REPOSITORY = Path(__file__).parents[2]
DEMO_CT = REPOSITORY / "demo" / "ct"

#: Whoever the senders of these tests say they are.
SCANNER = "SCANNER"
_START_SECONDS = 90
_STOP_SECONDS = 60


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of secondread."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("SECONDREAD_")}
    return {**plain, "TCP_NODELAY": "1", **more}


def command(*arguments: object) -> list[str]:
    """`secondread` with these arguments."""
    return [sys.executable, "-m", "worker.cli", *map(str, arguments)]


def free_ports(count: int) -> list[int]:
    """Ports that nobody holds just now: a configuration must name them."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [server.getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()


def until(holds: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
    """Wait for something and return it; fails with `what` where it does not come."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.1)
    return found


@dataclass(kw_only=True)
class Installation:
    """One configuration, the processes that run it, and what was sent to it."""

    folder: Path
    config: Path
    dicom_port: int
    web_port: int
    #: What may stand in no log: names and identifiers of every patient that was sent.
    tokens: set[str] = field(default_factory=set)
    #: Beside the environment of these tests.
    more: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    # What a user asks

    def run(self, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A command with this configuration, to its end."""
        return subprocess.run(
            command(*arguments, "--config", self.config),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd=self.folder,
            env=environment(**self.more),
        )

    def ask(self, *arguments: object) -> Any:
        """A question's answer as JSON."""
        said = self.run(*arguments, "--json")
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    def get(self, path: str) -> Any:
        """A page of the REST API as JSON, or text where it is no JSON."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=20) as answer:
            text: str = answer.read().decode()
            return json.loads(text) if "json" in answer.headers["Content-Type"] else text

    def why(self, uid: str) -> dict[str, Any]:
        """Everything about a study; empty where it has not arrived."""
        known = {line["study_instance_uid"] for line in self.get("/api/studies?limit=500")}
        return dict(self.get(f"/api/studies/{uid}/why")) if uid in known else {}

    def done(self, uid: str, *, seconds: float = 60) -> dict[str, Any]:
        """Everything about a study, once it is done."""

        def ended() -> dict[str, Any]:
            answer = self.why(uid)
            return answer if answer and answer["study"]["state"] == "done" else {}

        found: dict[str, Any] = until(ended, f"study {uid} to be done", seconds=seconds)
        return found

    def events(self, kind: str) -> list[str]:
        """Messages of the events of a kind, newest first."""
        return [event["message"] for event in self.get("/api/events?limit=500") if event["kind"] == kind]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the embedded database."""
        path = self.folder / "data" / "secondread.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as connection:
            return connection.execute(query).fetchall()

    # Who sends

    def note(self, *files: Path) -> None:
        """Remember the patients of these files, who may be in no log."""
        for path in files:
            self.tokens |= patient_tokens(path)

    def dcmsend(self, *files: Path, calling: str = SCANNER) -> subprocess.CompletedProcess[str]:
        """DCMTK sends files, or the files of folders, over one association."""
        return self._send("dcmsend", "-v", "+r", "+sd", "-nuc", files=files, calling=calling)

    def storescu(self, *files: Path, calling: str = SCANNER) -> subprocess.CompletedProcess[str]:
        """DCMTK's other sender: it converts nothing and says each status."""
        return self._send("storescu", "-v", "+r", "+sd", files=files, calling=calling)

    def _send(self, *program: str, files: Sequence[Path], calling: str) -> subprocess.CompletedProcess[str]:
        self.note(*(found for path in files for found in (path.rglob("*.dcm") if path.is_dir() else [path])))
        return self.tell(*self.sender(*program, calling=calling), *files)

    def tell(self, *program: object) -> subprocess.CompletedProcess[str]:
        """A peer's program, to its end."""
        return subprocess.run(
            [str(part) for part in program],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=120,
            env=environment(),
        )

    def sender(self, *program: str, calling: str = SCANNER) -> list[str]:
        """The command of a DCMTK sender, up to its files."""
        ends = ["-aet", calling, "-aec", "SECONDREAD", "127.0.0.1", str(self.dicom_port)]
        return [peers.path(program[0]), *program[1:], *ends]

    # What runs

    @property
    def log(self) -> str:
        """What all processes have said."""
        return "".join(
            path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.folder.glob("*.log"))
        )

    def start(self) -> None:
        """`secondread up`, ready."""
        with (self.folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                command("up", "--config", self.config),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env=environment(**self.more),
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"secondread is ready\n", self.log

    def stop(self) -> float:
        """SIGTERM; the seconds until `up` had ended cleanly and nothing of it was left."""
        assert self.process is not None
        family = descendants(self.process.pid)
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(_STOP_SECONDS) == 0, self.log
        took = time.monotonic() - began
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert not [pid for pid in family if alive(pid)], "processes are left"
        return took

    @contextmanager
    def role_process(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """One role, started by hand; killed with all below it where it still runs at the end."""
        with (self.folder / f"{'-'.join(words)}.log").open("ab") as log:
            process = subprocess.Popen(
                command(*words, "--config", self.config),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment(**self.more),
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                end(process)

    def kill(self) -> None:
        """Whatever is left, at once: for the end of a test that broke off."""
        if self.process is not None and self.process.poll() is None:
            end(self.process)
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    def role(self, words: str) -> int:
        """The process of `up` whose command holds these words."""
        assert self.process is not None
        found = [pid for pid in children(self.process.pid) if words in command_line(pid)]
        assert found, f"no process {words} runs"
        return found[0]

    def patients_in_log(self) -> list[str]:
        """Names and identifiers that stand in the log."""
        said = self.log
        return sorted(token for token in self.tokens if token in said)


def configure(folder: Path, orthanc: Orthanc | None = None, **values: Any) -> Installation:
    """A configuration with the shipped model; `values` are merged over its sections."""
    folder.mkdir(parents=True, exist_ok=True)
    dicom, web = free_ports(2)
    senders = [
        {"name": name, "ae_title": title, "host": "127.0.0.1"}
        for name, title in (("ct scanner", SCANNER), ("odd sender", "RAW"))
    ]
    to = (
        {"name": "pacs", "ae_title": orthanc.ae_title, "host": "127.0.0.1", "port": orthanc.dicom_port}
        if orthanc
        else {}
    )
    content: dict[str, Any] = {
        "node": {"host": "127.0.0.1", "port": dicom, "quiet_seconds": 1, "long_quiet_seconds": 4}
        | {"min_free_mb": 1},
        "web": {"port": web},
        "storage": "data",
        "models": [str(REPOSITORY / "models")],
        "peers": [*senders, *([to] if to else [])],
        "routes": [
            {"name": "chest ct", "when": {"Modality": "CT"}, "run": ["chest-ct"]}
            | ({"send_to": ["pacs"]} if to else {})
        ],
    }
    for key, value in values.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, Mapping) else value
    config = folder / "secondread.yaml"
    config.write_text(yaml.safe_dump(content))
    return Installation(folder=folder, config=config, dicom_port=dicom, web_port=web)


@contextmanager
def running(made: Installation) -> Iterator[Installation]:
    """`secondread up`; at the end it stops cleanly, leaves nothing, and has named no patient."""
    try:
        made.start()
        yield made
        made.stop()
        assert made.patients_in_log() == []
    finally:
        made.kill()


def patient_tokens(path: Path) -> set[str]:
    """What a log could name a file's patient by; too short ones would be found anywhere."""
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        name = str(ds.get("PatientName", ""))
        values = [str(ds.get("PatientID", "")), str(ds.get("AccessionNumber", "")), name]
    except Exception:  # noqa: BLE001 - some of these files are broken on purpose
        return set()
    parts = [part for group in name.split("=") for part in group.split("^")]
    return {value.strip() for value in (*values, *parts) if len(value.strip()) >= 5}


# Processes


def children(pid: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == pid and after_name[0] != "Z":
            found.append(int(entry.parent.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """The processes under this one."""
    return [below for child in children(pid) for below in (child, *descendants(child))]


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process and all below it."""
    family = descendants(process.pid)
    process.kill()
    process.wait()
    for pid in family:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs: a dead one that nobody has asked for its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_line(pid: int) -> str:
    """What a process was started with, or says of itself since."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""
