"""A worker's child process: the first to go when memory is short, and gone with its helpers when it must end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.listening import until

_CHILD = """
import logging, subprocess, sys, threading, time
from pathlib import Path
from worker import child
child.set_apart()
logging.basicConfig(stream=open(sys.argv[1], "w", buffering=1 << 20), level="INFO")
helper = subprocess.Popen(["sleep", "600"])
print(helper.pid, Path("/proc/self/oom_score_adj").read_text().strip(), flush=True)
logging.info("the last word")
threading.Thread(target=child.end).start()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_ends_at_once_with_its_helpers_and_loses_no_word(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", _CHILD, log], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    helper, score = process.stdout.readline().split()
    assert process.wait(30) == -signal.SIGKILL
    process.stdout.close()
    until(lambda: not _alive(int(helper)), "the helper to end")
    assert score == "500"
    assert "the last word" in log.read_text()
    # Nobody else was in its group
    assert os.getpgrp() != process.pid


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
