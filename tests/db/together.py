"""Real processes and threads that act on one database at the same moment."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

from db.base import Database

#: Seconds after which a process that hangs fails the test.
PATIENCE = 120


def processes(act: Callable[[Database, Any], Any], url: str, arguments: Sequence[Any]) -> list[Any]:
    """What act(database, argument) returns in one new process per argument, all begun at once.

    `act` is a module's function. Raises AssertionError with the traces of those that raised.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(arguments))
    answers: Queue[tuple[int, Any, str]] = context.Queue()
    children = [
        context.Process(target=_child, args=(act, url, argument, number, barrier, answers))
        for number, argument in enumerate(arguments)
    ]
    for child in children:
        child.start()
    try:
        got = sorted((answers.get(timeout=PATIENCE) for _ in children), key=lambda answer: answer[0])
    finally:
        for child in children:
            child.join(timeout=5)
            child.kill()
    trouble = "\n".join(trace for _, _, trace in got if trace)
    assert not trouble, trouble
    return [value for _, value, _ in got]


def _child(
    act: Callable[[Database, Any], Any],
    url: str,
    argument: Any,
    number: int,
    barrier: Barrier,
    answers: Queue[tuple[int, Any, str]],
) -> None:
    """Wait for the others, act, and tell."""
    try:
        with Database(url) as database:
            barrier.wait(PATIENCE)
            answers.put((number, act(database, argument), ""))
    except Exception:  # noqa: BLE001 - the parent must hear of it, whatever it is
        answers.put((number, None, traceback.format_exc()))


class Meanwhile:
    """A second transaction in its own thread, begun while the first one is still open."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self._answer: Any = None
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        # Long enough to act or to wait for a lock: what it then does is the point of the test.
        self._thread.join(0.4)

    def _run(self) -> None:
        try:
            self._answer = self._act()
        except BaseException as trouble:  # noqa: BLE001 - raised again in answer()
            self._trouble = trouble

    @property
    def waits(self) -> bool:
        """Whether it has not come to its end: somebody's lock holds it."""
        return self._thread.is_alive()

    def answer(self) -> Any:
        """What it returned, once it ended."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the second transaction hangs"
        if self._trouble is not None:
            raise self._trouble
        return self._answer
