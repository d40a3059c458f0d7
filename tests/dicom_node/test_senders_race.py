"""An answer belongs to who asked, however busy the machine is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pynetdicom.association import Association

from dicom_node import senders
from dicom_node.archive import Archive
from dicom_node.senders import Destination, Outcome, Verdict
from tests.support import phantoms


def test_pynetdicoms_own_thread_takes_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given pynetdicom's thread, which was already past its pause when our request went out
    class NeverPaused:
        def wait(self) -> None:
            time.sleep(0.001)

        def clear(self) -> None: ...
        def set(self) -> None: ...

    made = Association.__init__

    def init(self: Association, *args: object, **kwargs: object) -> None:
        made(self, *args, **kwargs)
        if self.is_requestor:
            self._reactor_checkpoint = NeverPaused()

    monkeypatch.setattr(Association, "__init__", init)
    paths = phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(30, 8, 8))), tmp_path / "ct")
    outcomes: list[Outcome] = []
    # When 30 images are sent
    with Archive(tmp_path / "pacs", ae_title="PACS") as archive:
        destination = Destination(
            name="pacs", ae_title="PACS", host="127.0.0.1", port=archive.port, timeout_seconds=2
        )
        senders.open_sender(destination).send(paths, outcomes.append)
    # Then each got its answer
    assert [outcome.verdict for outcome in outcomes] == [Verdict.DELIVERED] * 30
