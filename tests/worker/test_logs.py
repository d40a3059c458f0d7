"""The log names no patient, whatever goes wrong."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from sqlalchemy.exc import SQLAlchemyError

from db import intake, migrate
from db.base import Database
from dicom_node.errors import SeriesError
from tests.db import rows
from worker import logs

NAME = "Quolliper^Zyxwina"


def _logged(error: Exception) -> str:
    record = logging.LogRecord("a", logging.ERROR, "a.py", 1, "job 7 failed", (), (type(error), error, None))
    return logs.DiscreetFormatter("%(levelname)s %(message)s").format(record)


def _raised(*errors: Exception) -> Exception:
    """The last error, raised while the one before it was handled, and so on."""
    try:
        try:
            if errors[:-1]:
                raise _raised(*errors[:-1])
        finally:
            raise errors[-1]
    except type(errors[-1]) as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"Invalid value for VR PN: {NAME!r}"),
        KeyError(NAME),
        UnicodeEncodeError("ascii", NAME, 0, 1, "no"),
        FileNotFoundError(2, "No such file", f"/spool/{NAME}"),
        ExceptionGroup("several", [ValueError(NAME)]),
    ],
)
def test_a_foreign_error_s_words_are_not_logged(error: Exception) -> None:
    for written in (_logged(error), _logged(_raised(error)), _logged(_raised(error, TypeError("x")))):
        assert NAME not in written
        assert type(error).__name__ in written


def test_where_and_what_it_was_is_logged() -> None:
    written = _logged(_raised(ValueError(NAME), SeriesError("missing-slice", "2 slices are missing")))
    assert written.startswith("ERROR job 7 failed\nTraceback")
    assert written.count("test_logs.py") >= 2 and "raise errors[-1]" in written
    assert "builtins.ValueError\n\nwhich led to:" in written
    assert written.endswith("dicom_node.errors.SeriesError: 2 slices are missing")


def test_an_operating_system_s_error_says_why() -> None:
    assert "OSError: No space left on device" in _logged(OSError(28, "No space left on device", NAME))


def test_a_statement_s_parameters_are_not_in_its_error(tmp_path: object) -> None:
    with Database(f"sqlite:///{tmp_path}/a.db") as database:
        migrate.upgrade(database)
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE instances")
        with pytest.raises(SQLAlchemyError) as caught, database.write() as session:
            intake.record_instances(session, [rows.new_instance(patient_id=NAME)])
        assert "instances" in str(caught.value)
        assert NAME not in str(caught.value)


SCRIPT = """
import sys, threading
from worker import logs
logs.set_up("listen")
def fail():
    raise ValueError(sys.argv[1])
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_what_ends_a_thread_or_a_process_is_logged_as_discreetly() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, NAME], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr.count("CRITICAL listen   ended by an error that nobody foresaw") == 2
    assert ended.stderr.count("builtins.ValueError") == 2
    assert NAME not in ended.stdout + ended.stderr
