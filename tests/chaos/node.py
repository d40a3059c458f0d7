"""`secondread up` under fire: whose process is whose, and started again like a service when it is gone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path

from tests.acceptance import installation
from tests.acceptance.installation import Installation, alive, children, command_line, descendants

#: A service manager's patience before it starts a service again.
RESTART_SECONDS = 1.0
READY_SECONDS = 120.0
#: More than `up` gives its children.
STOP_SECONDS = 60.0


class Node:
    """One installation's `up`, and its family of processes."""

    def __init__(self, made: Installation) -> None:
        self.made = made
        #: Seconds from start to ready, of each start.
        self.starts: list[float] = []
        #: Everything that ever was of the family, to leave nothing behind.
        self._family: set[int] = set()

    @property
    def pid(self) -> int:
        """The process of `up`."""
        assert self.made.process is not None
        return self.made.process.pid

    def start(self) -> float:
        """Start `up`, again and again as a service manager does, until it is ready; the seconds that took."""
        began = time.monotonic()
        while not self._start_once(began + READY_SECONDS):
            if time.monotonic() > began + READY_SECONDS:
                raise RuntimeError(f"`up` does not get ready:\n{self.made.log[-4000:]}")
            time.sleep(RESTART_SECONDS)
        self.starts.append(time.monotonic() - began)
        return self.starts[-1]

    def _start_once(self, deadline: float) -> bool:
        """One start; False where it ended before it was ready."""
        with (self.made.folder / "up.log").open("ab") as log:
            self.made.process = subprocess.Popen(
                installation.command("up", "--config", self.made.config),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.made.folder,
                env=installation.environment(),
            )
        output = self.made.process.stdout
        assert output is not None
        while time.monotonic() < deadline:
            if select.select([output], [], [], 0.1)[0]:
                if output.readline() == b"secondread is ready\n":
                    self.family()
                    return True
                self.made.process.wait()
                output.close()
                return False
        return False

    def family(self) -> list[int]:
        """`up` and everything below it that runs."""
        found = [self.pid, *descendants(self.pid)]
        self._family.update(found)
        return found

    def find(self, target: str) -> list[int]:
        """The processes that a fault's target names; empty where none runs just now."""
        if target == "up":
            return [self.pid] if alive(self.pid) else []
        if target == "everything":
            return self.family()
        name = target.removesuffix("-child")
        child = target.endswith("-child")
        roles = [pid for pid in children(self.pid) if role(pid) == name]
        self.family()
        return [pid for parent in roles for pid in descendants(parent)] if child else roles

    def kill(self, pids: list[int]) -> None:
        """SIGKILL to these, whoever of them still runs."""
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> int | None:
        """Stop in order; the exit code, None where it had to be killed."""
        self.family()
        process = self.made.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            code: int | None = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        if process.stdout is not None:
            process.stdout.close()
        return code

    def left(self) -> list[str]:
        """What still runs of all families there ever were."""
        return [command_line(pid) for pid in self._family if self._is_ours(pid)]

    def end(self) -> None:
        """Stop in order; whatever is left then is killed."""
        self.stop()
        self.kill([pid for pid in self._family if self._is_ours(pid)])

    def _is_ours(self, pid: int) -> bool:
        """Whether a process number still names one of ours, and not somebody else's by now."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return alive(pid) and str(self.made.folder).encode() in environment


def role(pid: int) -> str:
    """The role that a process plays."""
    if "redis-server" in command_line(pid):
        return "broker"
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    values = [
        part.partition("=")[2] for part in environment.split("\0") if part.startswith("SECONDREAD_ROLE=")
    ]
    return values[0] if values else ""
