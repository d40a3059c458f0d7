"""Breaks what the plan says when it says so, mends it after its time, and measures what comes back when."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import redis

from tests.acceptance.installation import alive
from tests.chaos import plan
from tests.chaos.disk import MIB, SmallDisk
from tests.chaos.node import RESTART_SECONDS, Node
from tests.chaos.plan import Fault
from tests.chaos.servers import DatabaseServer, Receiver
from worker import broker

#: How long a killed role may take to run again before we go on.
BACK_SECONDS = 45.0


@dataclass(kw_only=True)
class Killer:
    """Carries out faults, one after another; those that last are undone beside it."""

    node: Node
    receiver: Receiver
    disk: SmallDisk
    database: DatabaseServer | None
    seed: int
    say: Callable[[str], None] = lambda line: None
    #: Faults that were carried out, by name.
    counts: Counter[str] = field(default_factory=Counter)
    #: Seconds until what was killed ran again, by name.
    back: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[BaseException] = field(default_factory=list)
    _rng: random.Random = field(init=False)
    _undoing: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"victims-{self.seed}")

    def run(self, faults: Sequence[Fault]) -> None:
        """Carry out the faults at their times; returns when all are undone."""
        began = time.monotonic()
        try:
            for fault in faults:
                if self._stop.wait(max(0.0, began + fault.start - time.monotonic())):
                    break
                self.say(str(fault))
                self._carry_out(fault)
        except BaseException as error:
            self.failures.append(error)
            raise
        finally:
            for thread in self._undoing:
                thread.join()

    def stop(self) -> None:
        """No further faults."""
        self._stop.set()

    def _carry_out(self, fault: Fault) -> None:
        if fault.kind == "kill":
            self._kill(fault.target)
        elif fault.kind == "freeze":
            self._freeze(fault)
        elif fault.kind == "receiver":
            self._for_a_while(fault, self.receiver.stop, self.receiver.start)
        elif fault.kind == "disk-low":
            self._for_a_while(fault, lambda: self.disk.fill(leave=24 * MIB), self.disk.empty)
        elif fault.kind == "disk-full":
            self._for_a_while(fault, lambda: self.disk.fill(leave=0), self.disk.empty)
        elif fault.kind == "flush":
            self._flush()
        elif self.database is not None:
            self._for_a_while(fault, self.database.stop, self.database.start)

    def _kill(self, target: str) -> None:
        """SIGKILL, and wait until it runs again; `up` is started again by us."""
        target, victims = self._victims(target)
        if target.endswith("-child"):
            victims = [self._rng.choice(victims)]
        began = time.monotonic()
        self.node.kill(victims)
        self.counts[f"kill {target}"] += 1
        if target in ("up", "everything"):
            assert self.node.made.process is not None
            self.node.made.process.wait()
            time.sleep(RESTART_SECONDS)
            self.node.start()
            self.back[f"kill {target}"].append(time.monotonic() - began)
        else:
            self._watch(target, set(victims), began)

    def _victims(self, target: str) -> tuple[str, list[int]]:
        """Whom to kill: somebody else where the target was hit a moment ago and is not back yet."""
        others = self._rng.sample(sorted(plan.KILLED), len(plan.KILLED))
        for one in (target, *others, "up"):
            if victims := self.node.find(one):
                return one, victims
        raise RuntimeError("nothing runs that could be killed")

    def _watch(self, target: str, victims: set[int], began: float) -> None:
        """Note when something new plays the role; nobody waits for it."""

        def until_back() -> None:
            while time.monotonic() < began + BACK_SECONDS:
                if set(self.node.find(target)) - victims:
                    self.back[f"kill {target}"].append(time.monotonic() - began)
                    return
                time.sleep(0.1)

        self._beside(until_back)

    def _freeze(self, fault: Fault) -> None:
        """SIGSTOP, and SIGCONT after its time."""
        frozen = self.node.find(fault.target)[:1]
        if not frozen:
            self.counts[f"missed {fault.target}"] += 1
            return
        self._for_a_while(
            fault,
            lambda: os.kill(frozen[0], signal.SIGSTOP),
            lambda: os.kill(frozen[0], signal.SIGCONT) if alive(frozen[0]) else None,
        )

    def _flush(self) -> None:
        try:
            flush(self.node)
            self.counts["flush"] += 1
        except redis.RedisError:
            self.counts["missed flush"] += 1

    def _for_a_while(self, fault: Fault, do: Callable[[], object], undo: Callable[[], object]) -> None:
        """Do something now and undo it after the fault's time, unless the like is still going on."""
        name = f"{fault.kind} {fault.target}".strip()
        if any(thread.name == name and thread.is_alive() for thread in self._undoing):
            self.counts[f"missed {name}"] += 1
            return
        try:
            do()
        except ProcessLookupError:
            self.counts[f"missed {name}"] += 1
            return
        self.counts[name] += 1

        def later() -> None:
            time.sleep(fault.seconds)
            undo()

        self._beside(later, name=name)

    def _beside(self, what: Callable[[], None], *, name: str = "watch") -> None:
        def kept() -> None:
            try:
                what()
            except BaseException as error:
                self.failures.append(error)
                raise

        thread = threading.Thread(target=kept, name=name, daemon=True)
        self._undoing.append(thread)
        thread.start()


def flush(node: Node) -> None:
    """Redis forgets everything. Raises redis.RedisError."""
    with closing(_client(node)) as client:
        client.flushall()


def ping(node: Node) -> bool:
    """Whether Redis answers."""
    try:
        with closing(_client(node)) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _client(node: Node) -> redis.Redis:
    path = str(broker.socket_path(node.made.folder / "data"))
    return redis.Redis(unix_socket_path=path, socket_timeout=5)
