"""Errors become sentences that name what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import typer
from sqlalchemy import text

from db.base import Database
from worker import edge


def test_a_database_without_room_names_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECONDREAD_STORAGE", str(tmp_path))
    with (
        Database(f"sqlite:///{tmp_path / 'small.db'}") as database,
        pytest.raises(typer.Exit) as ended,
        edge.explained(),
        database.write() as session,
    ):
        # SQLite says the very same where the disk has no room.
        session.execute(text("PRAGMA max_page_count = 2"))
        session.execute(text("CREATE TABLE large (held BLOB)"))
        session.execute(text("INSERT INTO large VALUES (zeroblob(100000))"))
    assert ended.value.exit_code == edge.FAILED
    assert capsys.readouterr().err.strip() == f"the disk of {tmp_path} is full: make room"


def test_a_file_without_room_names_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECONDREAD_STORAGE", str(tmp_path))
    with pytest.raises(typer.Exit) as ended, edge.explained():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert ended.value.exit_code == edge.FAILED
    assert capsys.readouterr().err.strip() == f"the disk of {tmp_path} is full: make room"
    with pytest.raises(PermissionError), edge.explained():
        raise PermissionError(errno.EACCES, "no")
