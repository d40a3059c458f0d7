"""A worker's child process: a group of its own with its helpers, which can end at once."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

logger = logging.getLogger(__name__)

#: Between 0 and 1000: whom the kernel ends when memory is short (proc(5), oom_score_adj).
_FIRST_TO_GO = "500"


def set_apart() -> None:
    """Make this process and the helpers that it will start one group, and the first to go for memory.

    Celery ends a whole group at its time limit. An analysis that takes all memory can be repeated;
    were the broker or a listener ended in its place, everybody would be held up.
    """
    os.setpgid(0, 0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def leave(why: str) -> NoReturn:
    """End this process where a task ends, in order; another takes its place.

    The task's message comes again, and finds nothing to do: its job has ended, or waits for another attempt.
    """
    logger.warning("this worker process ends: %s", why)
    raise SystemExit(0)


def end() -> None:
    """End this process and its helpers now, whatever they do: native code cannot be interrupted."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
