"""`secondread up` refuses what cannot work, and starts everything else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicom_node import echo, senders
from dicom_node.archive import Archive
from dicom_node.senders import Destination, Outcome
from tests.support import phantoms
from tests.worker import journey as journeys
from worker import sections, up
from worker.errors import ConfigurationError, DiskFull
from worker.settings import Settings


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody holds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _free(count: int) -> list[int]:
    """Ports that nobody holds just now."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [server.getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()


def _settings(storage: Path, **values: Any) -> Settings:
    dicom, web = _free(2)
    plain = {
        "storage": storage,
        "models": (storage / "models",),
        "node": sections.Node(host="127.0.0.1", port=dicom, processes=1),
        "web": sections.Web(port=web),
        "routes": (),
    }
    return Settings(**plain | values)


def test_what_can_work_is_let_go_on(tmp_path: Path) -> None:
    journeys.write_model(tmp_path / "models" / "tiny")
    route = sections.Route(name="a", when={}, run=("tiny",))
    up.check(_settings(tmp_path, routes=(route,)))


def test_every_problem_is_named_at_once(tmp_path: Path, taken: int) -> None:
    journeys.write_model(tmp_path / "models" / "tiny")
    journeys.write_model(tmp_path / "models" / "broken")
    (tmp_path / "models" / "broken" / "model.onnx").write_bytes(b"other")
    configured = _settings(
        tmp_path,
        node=sections.Node(host="127.0.0.1", port=taken),
        web=sections.Web(port=taken),
        routes=(sections.Route(name="chest ct", when={}, run=("chest-ct", "tiny")),),
    )
    with pytest.raises(ConfigurationError) as caught:
        up.check(configured)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "broken" in lines[0] and "model.onnx" in lines[0]
    assert lines[1] == "routes.chest ct.run: there is no usable model 'chest-ct'; usable: ['tiny']"
    assert lines[2].startswith(f"node.port: 127.0.0.1:{taken} cannot be had (Address already in use)")
    assert lines[3].startswith(f"web.port: 127.0.0.1:{taken} cannot be had")
    assert lines[4].startswith(f"web.port: {taken} is also node.port")


def test_one_port_for_two_is_named(tmp_path: Path) -> None:
    [port] = _free(1)
    configured = _settings(
        tmp_path, node=sections.Node(host="127.0.0.1", port=port), web=sections.Web(port=port)
    )
    with pytest.raises(ConfigurationError, match=rf"(?m)^web\.port: {port} is also node\.port"):
        up.check(configured)


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    configured = _settings(tmp_path, web=sections.Web(host="192.0.2.1", port=8080))
    with pytest.raises(ConfigurationError, match=r"web\.port: 192\.0\.2\.1:8080 cannot be had"):
        up.check(configured)


def test_a_host_that_has_no_address_is_named(tmp_path: Path) -> None:
    configured = _settings(tmp_path, web=sections.Web(host="no-such-host.invalid", port=8080))
    with pytest.raises(ConfigurationError, match=r"web\.port: no-such-host\.invalid:8080 cannot be had"):
        up.check(configured)


def test_port_0_is_for_tests(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.port: 0 is for tests"):
        up.check(_settings(tmp_path, node=sections.Node(port=0)))


def test_the_roles_of_one_machine(tmp_path: Path) -> None:
    configured = _settings(tmp_path, node=sections.Node(processes=3))
    names = [role.name for role in up.roles(configured)]
    assert names == ["broker", "listen-1", "listen-2", "listen-3", "cpu", "deliver", "sweep", "web"]
    elsewhere = _settings(tmp_path, broker="redis://broker/0")
    assert "broker" not in [role.name for role in up.roles(elsewhere)]
    # What any of them serves on the GPU is judged beside the work (docs/decisions/0160)
    for engine in ("tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt"):
        on_gpu = _settings(tmp_path, work=sections.Work(engine=engine))
        assert [role.name for role in up.roles(on_gpu)][-5:] == ["gpu", "deliver", "sweep", "web", "plans"]


def test_as_many_analyses_at_once_as_are_wanted(tmp_path: Path) -> None:
    for wanted in (1, 3):
        configured = _settings(tmp_path, work=sections.Work(jobs_at_once=wanted))
        (command,) = [role.command for role in up.roles(configured) if role.name == "cpu"]
        assert command[-4:] == ["--queue", "cpu", "--concurrency", str(wanted)]


def test_a_full_disk_is_a_sentence_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    (tmp_path / "models").mkdir()
    monkeypatch.setattr("worker.up.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(DiskFull, match=f"^the disk of {tmp_path} is full: make room$"):
        up.run(_settings(tmp_path), threading.Event())


# Really run ---------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("SECONDREAD_")}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "worker.cli", *arguments]


def _configure(tmp_path: Path, **values: Any) -> tuple[Path, int, int]:
    """A configuration with one tiny model; its file and its ports."""
    dicom, web = _free(2)
    journeys.write_model(tmp_path / "models" / "tiny")
    content: dict[str, Any] = {
        "node": {"host": "127.0.0.1", "port": dicom, "quiet_seconds": 0.5, "require_known_peers": False}
        | {"min_free_mb": 1},
        "web": {"port": web},
        "storage": "data",
        "models": ["models"],
        "routes": [{"name": "chest ct", "when": {"Modality": "CT"}, "run": ["tiny"]}],
    }
    path = tmp_path / "secondread.yaml"
    path.write_text(yaml.safe_dump(content | values))
    return path, dicom, web


@contextmanager
def _up(config: Path) -> Iterator[subprocess.Popen[str]]:
    """Everything, ready."""
    log = config.parent / "up.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            _command("up", "--config", str(config)),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_environment(),
        )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "secondread is ready\n", log.read_text()
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()


def _why(config: Path) -> dict[str, Any]:
    asked = subprocess.run(
        _command("why", journeys.STUDY, "--json", "--config", str(config)),
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    return dict(json.loads(asked.stdout)) if asked.returncode == 0 else {}


def test_everything_runs_and_the_patient_is_in_no_log(tmp_path: Path) -> None:
    """In by C-STORE, a model, SEG and SR out by C-STORE; then a clean end and nothing left behind."""
    with Archive(tmp_path / "pacs", ae_title="PACS") as archive:
        peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": archive.port}
        route = {"name": "chest ct", "when": {"Modality": "CT"}, "run": ["tiny"], "send_to": ["pacs"]}
        config, dicom, web = _configure(tmp_path, peers=[peer], routes=[route])
        with _up(config):
            node = Destination(name="node", ae_title="SECONDREAD", host="127.0.0.1", port=dicom)
            assert echo.verify(node).healthy
            answers: list[Outcome] = []
            files = phantoms.write(journeys.datasets(), tmp_path / "files")
            senders.open_sender(node).send(files, answers.append)
            assert [answer.status for answer in answers] == [0] * 6
            # A study that fails, too
            bad = journeys.datasets(study_uid="1.2.9", series_uid="1.2.9.1", shape=(1, 32, 40))
            senders.open_sender(node).send(phantoms.write(bad, tmp_path / "bad"), answers.append)
            assert archive.wait_for(2, 60)
            answer = _until_done(config)
            with urllib.request.urlopen(f"http://127.0.0.1:{web}/readyz", timeout=10) as ready:
                assert ready.status == 200
            second = subprocess.run(
                _command("up", "--config", str(_elsewhere(config))),
                capture_output=True,
                text=True,
                env=_environment(),
                check=False,
                timeout=60,
            )
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr.startswith("starting; ready in about")
        assert "another `secondread up` runs on this storage" in second.stderr
        assert "Traceback" not in second.stderr
    assert [job["state"] for job in answer["jobs"]] == ["done"]
    assert {one["state"] for one in answer["jobs"][0]["deliveries"]} == {"sent"}
    log = (tmp_path / "up.log").read_text()
    assert not [token for token in journeys.TOKENS if token in log]
    assert "Traceback" not in log and "ended with" not in log, log


def _until_done(config: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        answer = _why(config)
        if answer and answer["study"]["state"] == "done":
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def _elsewhere(config: Path) -> Path:
    """The same storage with other ports."""
    content = yaml.safe_load(config.read_text())
    content["node"]["port"], content["web"]["port"] = _free(2)
    path = config.with_name("second.yaml")
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_held_storage_is_refused(tmp_path: Path) -> None:
    config, _, _ = _configure(tmp_path)
    (tmp_path / "data" / "run").mkdir(parents=True)
    with (tmp_path / "data" / "run" / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asked = subprocess.run(
            _command("up", "--config", str(config)),
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
            timeout=60,
        )
    assert asked.returncode == 1
    assert "another `secondread up` runs on this storage" in asked.stderr
