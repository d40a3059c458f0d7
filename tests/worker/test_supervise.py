"""Real child processes: kept alive, stopped in order, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker import supervise
from worker.supervise import Child, Role, Supervisor

#: Says that it runs, and how it ends: `python -c SCRIPT log name seconds-to-finish`.
SCRIPT = """
import pathlib, signal, sys, time
log, name, linger = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def say(what):
    with log.open("a") as file:
        file.write(f"{name} {what}\\n")
def finish(*received):
    say("asked")
    time.sleep(linger)
    say("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
say("runs")
while True:
    time.sleep(0.01)
"""

#: Takes no notice of SIGTERM.
DEAF = SCRIPT.replace(
    "signal.signal(signal.SIGTERM, finish)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
)


def _role(
    log: Path,
    name: str,
    *,
    linger: float = 0.0,
    script: str = SCRIPT,
    last: bool = False,
    **environment: str,
) -> Role:
    command = [sys.executable, "-S", "-c", script, str(log), name, str(linger)]
    return Role(name=name, command=command, environment=environment, outlives_others=last)


def _said(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@contextmanager
def _watched(supervisor: Supervisor) -> Iterator[threading.Event]:
    """The supervisor at work; it stops its children at the block's end."""
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.watch, args=(stop,))
    with supervisor:
        thread.start()
        try:
            yield stop
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the children say what happens to them."""
    return tmp_path / "log"


def test_every_role_runs_with_its_environment(log: Path) -> None:
    script = SCRIPT.replace('say("runs")', "import os; say(os.environ['COLOUR'])")
    roles = [_role(log, "a", script=script, COLOUR="red"), _role(log, "b", script=script, COLOUR="blue")]
    with _watched(Supervisor(roles)):
        _until(lambda: len(_said(log)) == 2)
    assert sorted(_said(log)[:2]) == ["a red", "b blue"]


def test_a_child_that_dies_is_started_again_alone(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor([_role(log, "a"), _role(log, "b")])
    with _watched(supervisor):
        _until(lambda: len(_said(log)) == 2)
        process = supervisor.children[0].process
        assert process is not None
        process.kill()
        _until(lambda: _said(log).count("a runs") == 2)
        assert supervisor.children[0].restarts == 1
    assert _said(log).count("b runs") == 1
    assert "a ended with signal SIGKILL; it starts again in 1.0 s" in caplog.text


def test_a_child_that_keeps_dying_waits_longer_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child(Role(name="a", command=[sys.executable, "-S", "-c", "raise SystemExit(3)"]))
    now, waits = 1000.0, []
    for _ in range(8):
        child.tend(now)
        assert child.process is not None
        child.process.wait(20)
        started = now
        # Not before its time
        child.tend(now)
        assert child.process is None
        while child.process is None:
            now += 0.25
            child.tend(now)
        waits.append(now - started)
    assert waits == [1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0, 30.0]
    assert "exit code 3" in caplog.text
    # One that ran steadily begins with the first wait
    child.process.wait(20)
    child.tend(now + supervise.STEADY_SECONDS + 1)
    assert "starts again in 0.5 s" in caplog.text
    child.wait(time.monotonic() + 5)


def test_a_command_that_cannot_be_run_does_not_end_the_watch(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor([Role(name="gone", command=["/nonexistent/program"]), _role(log, "b")])
    with _watched(supervisor):
        _until(lambda: _said(log) == ["b runs"])
        _until(lambda: "gone cannot be started (No such file or directory)" in caplog.text)


def test_all_are_asked_at_once_and_the_broker_when_they_have_ended(log: Path) -> None:
    """A worker that finishes what it has in hand still talks to the broker."""
    roles = [_role(log, "broker", last=True), _role(log, "a", linger=0.5), _role(log, "b", linger=0.3)]
    with _watched(Supervisor(roles)):
        _until(lambda: len(_said(log)) == 3)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    said = _said(log)[3:]
    assert sorted(said[:2]) == ["a asked", "b asked"]
    assert said[2:] == ["b ended", "a ended", "broker asked", "broker ended"]


def test_a_child_that_does_not_finish_is_killed(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervise, "GRACE_SECONDS", 0.5)
    supervisor = Supervisor(
        [_role(log, "broker", last=True), _role(log, "deaf", script=DEAF), _role(log, "b")]
    )
    with _watched(supervisor):
        _until(lambda: len(_said(log)) == 3)
        pids = [child.process.pid for child in supervisor.children if child.process]
    assert not [pid for pid in pids if _alive(pid)]
    assert "deaf did not finish in 0.5 s and is killed" in caplog.text
    assert {"b ended", "broker ended"} <= set(_said(log))


def test_children_stop_where_the_block_breaks_off(log: Path) -> None:
    supervisor = Supervisor([_role(log, "a")])
    with pytest.raises(ZeroDivisionError), supervisor:
        supervisor.start("a")
        _until(lambda: _said(log) == ["a runs"])
        raise ZeroDivisionError
    assert _said(log) == ["a runs", "a asked", "a ended"]


def test_only_the_named_start_at_once(log: Path) -> None:
    with Supervisor([_role(log, "a"), _role(log, "b")]) as supervisor:
        supervisor.start("b")
        _until(lambda: _said(log) == ["b runs"])
        assert supervisor.children[0].process is None


def test_ctrl_c_on_the_terminal_does_not_reach_the_children(log: Path) -> None:
    with Supervisor([_role(log, "a")]) as supervisor:
        supervisor.start("a")
        _until(lambda: _said(log) == ["a runs"])
        process = supervisor.children[0].process
        assert process is not None
        assert os.getpgid(process.pid) != os.getpgid(0)


PARENT = """
import sys, threading
from worker.supervise import Role, Supervisor, stop_on_signals
stop = stop_on_signals()
command = [sys.executable, "-S", "-c", sys.argv[1], sys.argv[2]]
supervisor = Supervisor([Role(name="a", command=[*command, "a", "0"]), Role(name="b", command=[*command, "b", "0"])])
with supervisor:
    supervisor.start("a")
    watcher = threading.Thread(target=supervisor.watch, args=(stop,))
    watcher.start()
    stop.wait()
    watcher.join()
print("the supervisor ended")
"""


@contextmanager
def _parent(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor in a process of its own, with two children."""
    process = subprocess.Popen([sys.executable, "-c", PARENT, SCRIPT, str(log)], stdout=subprocess.PIPE)
    try:
        _until(lambda: sorted(_said(log)) == ["a runs", "b runs"])
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_children_die_with_their_parent_however_it_dies(log: Path) -> None:
    with _parent(log) as parent:
        parent.send_signal(signal.SIGKILL)
        _until(lambda: {"a ended", "b ended"} <= set(_said(log)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_supervisor_and_its_children(log: Path, number: signal.Signals) -> None:
    with _parent(log) as parent:
        parent.send_signal(number)
        output, _ = parent.communicate(timeout=20)
        assert output == b"the supervisor ended\n"
        assert {"a ended", "b ended"} <= set(_said(log))


def test_waiting_ends_with_the_condition_the_time_or_the_stop() -> None:
    stop = threading.Event()
    answers = iter([False, False, True])
    assert supervise.wait_until(lambda: next(answers), timeout=5, stop=stop)
    began = time.monotonic()
    assert not supervise.wait_until(lambda: False, timeout=0.1, stop=stop)
    stop.set()
    assert not supervise.wait_until(lambda: False, timeout=60, stop=stop)
    assert time.monotonic() - began < 30


def test_a_signal_that_another_thread_takes_stops_the_main_thread() -> None:
    # As the kernel gives it, where the process was stopped (SIGSTOP) when it came
    program = (
        "import signal, threading, time; from worker import supervise\n"
        "stop = supervise.stop_on_signals()\n"
        "other = threading.Thread(target=time.sleep, args=(60,), daemon=True); other.start()\n"
        "def later():\n"
        "    time.sleep(0.3); signal.pthread_kill(other.ident, signal.SIGTERM)\n"
        "threading.Thread(target=later).start()\n"
        "stop.wait(); print('stopped')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    assert ended.stdout == "stopped\n"
