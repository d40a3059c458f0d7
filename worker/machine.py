"""This machine, as it stands in the names of our processes: whose death can be seen here, and at once."""

from __future__ import annotations

import os
import socket
import time
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


def process_id() -> str:
    """A name for this process, unique among all processes of all hosts: host-world:pid:time."""
    return f"{socket.gethostname()}-{_world()}:{os.getpid()}:{time.time():.3f}"


def is_ours(process_id: str) -> bool:
    """Whether a process ran here: on this machine, and among the processes that can be seen from here."""
    return bool(_world()) and process_id.partition(":")[0] == f"{socket.gethostname()}-{_world()}"


def is_gone(process_id: str) -> bool:
    """Whether a process ran here and is dead; False where that cannot be known from here.

    A number that another process has by now counts as alive: then its silence says it in the end.
    """
    pid = process_id.partition(":")[2].partition(":")[0]
    if not is_ours(process_id) or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def resident_bytes() -> int:
    """What this process has in memory just now; 0 where that cannot be known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The most that this process had in memory since `forget_peak`, or ever; 0 where that cannot be known."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0")
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Let the peak begin anew at what is in memory just now (proc(5), clear_refs); where that can be done."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_bytes() -> int:
    """The memory of this machine, or of the container that this process is in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdecimal() else whole


@lru_cache(maxsize=1)
def _world() -> str:
    """In which boot and PID namespace process numbers mean something; "" where that cannot be known.

    Containers on one host may share its name and not its processes, and so may cloned machines.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{zlib.crc32(f'{boot} {namespace}'.encode()):08x}"
