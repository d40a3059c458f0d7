"""`secondread up`: every role as a child process, restarted when it dies, stopped together."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

logger = logging.getLogger(__name__)

#: Waits before a dead child is started again; the last one repeats.
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: A child that lived for so long starts again with the first wait.
STEADY_SECONDS = 60.0
#: How long children may take to finish what they have in hand.
GRACE_SECONDS = 30.0

_PR_SET_PDEATHSIG = 1
#: How often a main thread that waits for a signal looks whether another thread took it.
_LOOK_UP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A child process to keep alive."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    #: Whether the others talk to it until they end, so that it is stopped after them.
    outlives_others: bool = False


class Child:
    """One role's process, and its restarts; `tell` gets a sentence about each."""

    def __init__(self, role: Role, tell: Callable[[str], None] = lambda text: None) -> None:
        self.role = role
        self._tell = tell
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self._started = 0.0
        self._failures = 0
        self._start_at = 0.0

    def tend(self, now: float) -> None:
        """Start the process where it does not run and its wait is over."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            steady = now - self._started > STEADY_SECONDS
            self._wait(now, f"ended with {_ending(code)}", after_failures=0 if steady else self._failures + 1)
            self.process = None
            self.restarts += 1
        if now >= self._start_at:
            self._start(now)

    def _wait(self, now: float, what: str, *, after_failures: int) -> None:
        """Do not start before the back-off is over."""
        self._failures = after_failures
        wait = BACK_OFF_SECONDS[min(after_failures, len(BACK_OFF_SECONDS) - 1)]
        self._start_at = now + wait
        text = f"{self.role.name} {what}; it starts again in {wait} s"
        logger.error("%s", text)
        self._tell(text)

    def _start(self, now: float) -> None:
        self._started = now
        try:
            self.process = subprocess.Popen(
                list(self.role.command),
                env={**os.environ, **self.role.environment},
                stdin=subprocess.DEVNULL,
                preexec_fn=partial(die_with_parent, os.getpid()) if sys.platform == "linux" else None,
                # Ctrl-C reaches the supervisor, which stops its children in order.
                start_new_session=True,
            )
        except OSError as error:
            # Out of memory or of processes may pass, and the other children need their watch.
            self._wait(now, f"cannot be started ({error.strerror})", after_failures=self._failures + 1)

    def signal(self, number: int) -> None:
        """Send a signal to the process where it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, deadline: float) -> bool:
        """Wait for the end; False where it has not come by the deadline."""
        if self.process is None:
            return True
        try:
            self.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True


class Supervisor:
    """Keeps roles alive until stopped; a context manager that stops them at its end.

    `tell` gets a sentence about each child that ended by itself, and must not wait for anybody.
    """

    def __init__(self, roles: Sequence[Role], tell: Callable[[str], None] = lambda text: None) -> None:
        self.children = [Child(role, tell) for role in roles]

    def start(self, *names: str) -> None:
        """Start the named roles now."""
        for child in self.children:
            if child.role.name in names:
                child.tend(time.monotonic())

    def watch(self, stop: threading.Event) -> None:
        """Tend every child until `stop` is set; then stop them.

        The kernel takes the thread that started a child for its parent (prctl(2)), so a thread that
        watches must not end before what it started.
        """
        try:
            while not stop.is_set():
                for child in self.children:
                    child.tend(time.monotonic())
                stop.wait(0.2)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ask every child to finish, last started first; kill what has not after the grace time."""
        for last in (False, True):
            _end([child for child in reversed(self.children) if child.role.outlives_others is last])

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _end(children: Sequence[Child]) -> None:
    """Have children finish, all at the same time."""
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        child.signal(signal.SIGTERM)
    for child in children:
        if not child.wait(deadline):
            logger.error("%s did not finish in %s s and is killed", child.role.name, GRACE_SECONDS)
            child.signal(signal.SIGKILL)
            child.wait(time.monotonic() + 5)


def wait_until(ready: Callable[[], bool], *, timeout: float, stop: threading.Event) -> bool:
    """Poll `ready` until it is true (True), or time is over or `stop` is set (False)."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and not stop.is_set():
        if ready():
            return True
        stop.wait(0.05)
    return ready()


class Stop(threading.Event):
    """An event that a signal's handler sets, and that the main thread waits for."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as Event does; without end only in steps.

        Python runs handlers in the main thread, but the kernel may give a signal to any thread (signal(7)): as it
        does where the process was stopped when it came. Nothing would then wake the main thread up.
        """
        if timeout is not None:
            return super().wait(timeout)
        while not super().wait(_LOOK_UP_SECONDS):
            pass
        return True


def stop_on_signals() -> Stop:
    """An event that SIGINT and SIGTERM set."""
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _ending(code: int) -> str:
    """An exit code in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def die_with_parent(parent: int) -> None:
    """Have the kernel stop this child when its parent dies, however it dies (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It died before we asked, and nobody will tell us.
        os._exit(1)
