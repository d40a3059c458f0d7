"""A PACS that is asked to commit: it says yes or no, on whichever association, in its own time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from pydicom.dataset import Dataset
from pynetdicom import build_role, evt

from dicom_node import commitment
from dicom_node.commitment import CommitmentAsk, CommitmentReport, Failure, FailureReason
from tests.support import pacs
from tests.support.entity import Entity
from tests.support.pacs import Pacs

PUSH_MODEL = commitment.SOP_CLASS_UID
SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


@dataclass
class Committer:
    """How it answers, and what it was asked."""

    #: The association of its report: the asker's, one of its own, or none. "before": the asker's, before the
    #: answer to the request.
    way: Literal["same", "before", "own", "never"] = "same"
    #: The answer to N-ACTION.
    status: int = 0x0000
    #: Words that go with it.
    words: str = ""
    #: SOP Instance UID -> Failure Reason; None: what was never stored here is not there.
    failing: Callable[[CommitmentAsk], dict[str, int]] | None = None
    #: Its report in place of an honest one.
    report: Callable[[CommitmentAsk], CommitmentReport] | None = None
    #: How often it reports.
    times: int = 1
    delay: float = 0.0
    #: Called with each N-ACTION before it is answered.
    before: Callable[[Any], None] = lambda event: None
    #: Where a report of its own association goes, whom it calls, and as whom.
    listener: tuple[str, int] | None = None
    called: str = "SECONDREAD"
    calling: str = "PACS"
    asks: list[CommitmentAsk] = field(default_factory=list)
    #: The asker's answers to reports.
    answers: list[int | None] = field(default_factory=list)
    stored: Callable[[], set[str]] = set
    threads: list[threading.Thread] = field(default_factory=list)

    def act(self, event: Any) -> tuple[Dataset, None]:
        """EVT_N_ACTION."""
        ask = commitment.decode_ask(event.action_information)
        self.asks.append(ask)
        self.before(event)
        if self.status == 0x0000 and self.way != "never":
            thread = threading.Thread(target=self._tell, args=(ask, event.assoc), daemon=True)
            self.threads.append(thread)
            thread.start()
            if self.way == "before":
                thread.join()
        answer = Dataset()
        answer.Status = self.status
        if self.words:
            answer.ErrorComment = self.words
        return answer, None

    def honest(self, ask: CommitmentAsk) -> CommitmentReport:
        """What it has is committed to, unless `failing` says otherwise."""
        stored = self.stored()
        missing = {
            each.sop_instance_uid: int(FailureReason.NO_SUCH_INSTANCE)
            for each in ask.references
            if each.sop_instance_uid not in stored
        }
        failing = missing if self.failing is None else self.failing(ask)
        return CommitmentReport(
            transaction_uid=ask.transaction_uid,
            committed=tuple(each for each in ask.references if each.sop_instance_uid not in failing),
            failed=tuple(
                Failure(reference=each, reason=failing[each.sop_instance_uid])
                for each in ask.references
                if each.sop_instance_uid in failing
            ),
        )

    def _tell(self, ask: CommitmentAsk, assoc: Any) -> None:
        if self.delay:
            threading.Event().wait(self.delay)
        said = (self.report or self.honest)(ask)
        for _ in range(self.times):
            if self.way == "own":
                self.tell(said)
            else:
                self.answers.append(_send(assoc, said))

    def tell(self, said: CommitmentReport) -> None:
        """Report on an association of its own (PS3.4 J.3.3: the SCP role is negotiated)."""
        assert self.listener is not None
        ae = Entity(ae_title=self.calling)
        ae.add_requested_context(PUSH_MODEL, SYNTAXES)
        role = build_role(PUSH_MODEL, scp_role=True)
        assoc = ae.associate(*self.listener, ae_title=self.called, ext_neg=[role])
        if not assoc.is_established:
            self.answers.append(None)
            return
        self.answers.append(_send(assoc, said))
        assoc.release()


def _send(assoc: Any, said: CommitmentReport) -> int | None:
    """N-EVENT-REPORT; its status, None where none came."""
    event_type, ds = commitment.encode_report(said)
    try:
        answer, _ = assoc.send_n_event_report(
            ds, event_type, commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID
        )
    except (RuntimeError, ValueError):
        return None
    return int(answer.Status) if "Status" in answer else None


@contextmanager
def running(committer: Committer, **how: Any) -> Iterator[Pacs]:
    """A storage SCP that also commits."""
    contexts = [*pacs.everything(), (PUSH_MODEL, SYNTAXES)]
    with pacs.running(**{"contexts": contexts, "also": [(evt.EVT_N_ACTION, committer.act)], **how}) as made:
        committer.stored = lambda: {uid for _, uid, _, _ in made.stored}
        yield made
        for thread in committer.threads:
            thread.join(10)
