"""Process names say where their number means something; only there a death is seen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from worker import machine


@pytest.fixture
def dead() -> str:
    """The name of a process that ran here."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return machine.process_id().replace(f":{os.getpid()}:", f":{process.pid}:")


def test_the_living_are_not_gone_and_the_dead_are(dead: str) -> None:
    assert not machine.is_gone(machine.process_id())
    # Whoever it belongs to
    assert not machine.is_gone(machine.process_id().replace(f":{os.getpid()}:", ":1:"))
    assert machine.is_gone(dead)


def test_of_others_nothing_is_known(dead: str) -> None:
    host, pid, start = dead.split(":")
    name, _, _ = host.rpartition("-")
    for other in (f"elsewhere-{host}", name, f"{name}-00000000", ""):
        assert not machine.is_gone(f"{other}:{pid}:{start}")
    for odd in ("", "sweeper", f"{host}", f"{host}::", f"{host}:x:{start}", f"{host}:-1:{start}"):
        assert not machine.is_gone(odd)


def test_where_process_numbers_mean_nothing_nobody_is_gone(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_world", lambda: "")
    assert not machine.is_gone(dead)
    nowhere = machine.process_id()
    assert not machine.is_gone(nowhere.replace(f":{os.getpid()}:", f":{dead.split(':')[1]}:"))
