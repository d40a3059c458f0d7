"""What was sent is only done when the destination promises to keep it, whatever the destination says, and when."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import update

from db import associations, migrate, models
from db.base import Database
from dicom_node.commitment import CommitmentAsk, CommitmentReport, Failure, FailureReason, Reference
from dicom_node.errors import CommitmentError
from dicom_node.senders import Destination, commitment, open_sender
from dicom_node.senders.memory import MemorySender
from tests.support import committing, pacs
from tests.support.committing import Committer
from tests.worker import journey as journeys
from tests.worker.journey import Journey, crash_after, crash_before
from worker import commitment_ledger, pipeline
from worker.shelf import Shelf

PROMISING = Destination(name="pacs", kind="memory", ae_title="PACS", commitment=True)


@pytest.fixture
def promising(journey: Journey) -> Journey:
    """An installation whose PACS, in memory, is asked to commit."""
    journey.destinations = {"pacs": PROMISING}
    return journey


def states(journey: Journey) -> list[str]:
    """The states of the deliveries."""
    return [row.state for row in journey.rows(models.Delivery)]


def comments(journey: Journey) -> set[str]:
    """What the deliveries say for themselves."""
    return {row.comment for row in journey.rows(models.Delivery)}


def events(journey: Journey, kind: str) -> list[str]:
    """The messages of the events of a kind."""
    return [row.message for row in journey.rows(models.Event) if row.kind == kind]


def asked(journey: Journey) -> CommitmentAsk:
    """A journey up to its request; the request that the destination took, without a report yet."""
    requests: list[CommitmentAsk] = []

    def take(destination: Destination, ask: CommitmentAsk, **_: Any) -> None:
        requests.append(ask)

    journey.ask_commitment = take
    journey.run(journeys.datasets())
    (request,) = requests
    return request


def answer(
    request: CommitmentAsk, *, failed: dict[int, int] | None = None, only: int | None = None
) -> CommitmentReport:
    """A report that commits to all but those of `failed` (place in the request -> reason)."""
    failed = failed or {}
    references = request.references[:only]
    return CommitmentReport(
        transaction_uid=request.transaction_uid,
        committed=tuple(each for place, each in enumerate(references) if place not in failed),
        failed=tuple(Failure(reference=references[place], reason=reason) for place, reason in failed.items()),
    )


def report(journey: Journey, said: CommitmentReport, *, by: str = "PACS") -> None:
    """The listener hears a report."""
    commitment_ledger.report(journey.post, said, calling_ae_title=by)


# All is well


def test_a_job_is_done_once_its_destination_has_committed_to_all_of_it(promising: Journey) -> None:
    request = asked(promising)
    # Given all sent and asked for, in one request
    assert len(request.references) == 2
    assert (states(promising), promising.job().state) == (["sent"] * 2, "delivering")
    assert {row.commitment for row in promising.job().deliveries} == {"asked for 1 times, no report yet"}
    assert promising.why().study.state == "ready"
    # When the report comes
    report(promising, answer(request))
    # Then it is done, and says so
    assert (states(promising), promising.job().state) == (["committed"] * 2, "done")
    assert promising.why().study.state == "done"
    assert all(row.committed_at and not row.commitment for row in promising.job().deliveries)


def test_a_destination_that_is_not_asked_is_done_when_it_has_all(journey: Journey) -> None:
    journey.run(journeys.datasets())
    assert (states(journey), journey.job().state) == (["sent"] * 2, "done")
    assert journey.rows(models.Commitment) == []


def test_of_two_destinations_each_commits_by_itself(journey: Journey) -> None:
    journey.destinations = {"pacs": PROMISING, "workstation": Destination(name="workstation", kind="memory")}
    journey.routes = [journeys.route(send_to=("pacs", "workstation"))]
    request = asked(journey)
    assert sorted(states(journey)) == ["sent"] * 4
    assert journey.job().state == "delivering"
    report(journey, answer(request))
    assert sorted(states(journey)) == ["committed"] * 2 + ["sent"] * 2
    assert journey.job().state == "done"


def test_a_warning_stays_with_what_is_committed(promising: Journey) -> None:
    promising.pacs["pacs"] = MemorySender(answer=lambda file: 0xB000)
    promising.run(journeys.datasets())
    for row in promising.job().deliveries:
        assert (row.state, row.warning, row.status) == ("committed", True, "0xB000")
        assert row.comment.startswith("0xB000 stored; the peer coerced")


# What a destination may say instead


def test_what_it_does_not_have_is_sent_again_once_and_then_committed_to(promising: Journey) -> None:
    request = asked(promising)
    # Given a PACS that lost one of two objects
    report(promising, answer(request, failed={0: FailureReason.NO_SUCH_INSTANCE}))
    assert states(promising) == ["pending", "committed"]
    (comment,) = comments(promising) - {""}
    assert "0x0112 the peer does not have this instance; sent again" in comment
    assert events(promising, "not-committed") == [f"seg to pacs: {comment}"]
    assert promising.job().state == "delivering"
    # When its time has come
    promising.ask_commitment = None
    promising.recover()
    # Then that one went once more, and is committed to
    assert (states(promising), promising.job().state) == (["committed"] * 2, "done")
    sent = [file.sop_instance_uid for file in promising.sent()]
    lost, kept = (each.sop_instance_uid for each in request.references)
    assert (sent.count(lost), sent.count(kept)) == (2, 1)


@pytest.mark.parametrize("reason", [FailureReason.CLASS_NOT_SUPPORTED, FailureReason.CLASS_INSTANCE_CONFLICT])
def test_what_another_try_cannot_heal_is_dead_and_says_why(promising: Journey, reason: int) -> None:
    report(promising, answer(asked(promising), failed={1: reason}))
    assert states(promising) == ["committed", "dead"]
    (comment,) = comments(promising) - {""}
    assert comment.startswith(f"stored (0x0000), but never committed: 0x{reason:04X} ")
    assert (promising.job().state, promising.job().reason) == ("failed", "undelivered")
    assert len(events(promising, "dead-delivery")) == 1


def test_what_a_report_does_not_mention_is_asked_about_again(promising: Journey) -> None:
    first = asked(promising)
    report(promising, answer(first, only=1))
    assert states(promising) == ["committed", "sent"]
    promising.ask_commitment = None
    promising.recover()
    assert (states(promising), promising.job().state) == (["committed"] * 2, "done")
    assert len(promising.sent()) == 2


def test_without_a_report_it_is_asked_for_again_under_a_new_transaction(promising: Journey) -> None:
    asked(promising)
    now = datetime.now(UTC)
    commitment_ledger.look_after(promising.post, now)
    assert [row.state for row in promising.rows(models.Commitment)] == ["requested"]
    commitment_ledger.look_after(promising.post, now + 2 * commitment_ledger.REPORT_WAIT)
    assert [row.state for row in promising.rows(models.Commitment)] == ["lost"]
    assert states(promising) == ["sent"] * 2
    assert "no report within 10 minutes; it is asked for again" in promising.job().deliveries[0].commitment
    promising.ask_commitment = None
    promising.recover()
    assert [row.state for row in promising.rows(models.Commitment)] == ["lost", "reported"]
    assert len({row.transaction_uid for row in promising.rows(models.Commitment)}) == 2
    assert (states(promising), promising.job().state) == (["committed"] * 2, "done")


def test_a_report_that_comes_late_counts(promising: Journey) -> None:
    request = asked(promising)
    commitment_ledger.look_after(promising.post, datetime.now(UTC) + 2 * commitment_ledger.REPORT_WAIT)
    report(promising, answer(request))
    assert (states(promising), promising.job().state) == (["committed"] * 2, "done")


def test_a_report_that_comes_twice_counts_once(promising: Journey) -> None:
    request = asked(promising)
    report(promising, answer(request))
    before = promising.facts()
    # Even where it has changed its mind: what it promised, it promised.
    report(promising, answer(request, failed={0: 0x0112}))
    assert promising.facts() == before


def test_after_three_days_without_a_promise_a_person_must_look(promising: Journey) -> None:
    asked(promising)
    with promising.database.write() as session:
        sent = datetime.now(UTC) - timedelta(hours=73)
        session.execute(update(models.Delivery).values(sent_at=sent))
    commitment_ledger.look_after(promising.post, datetime.now(UTC) + 2 * commitment_ledger.REPORT_WAIT)
    assert states(promising) == ["dead"] * 2
    assert comments(promising) == {"stored (0x0000), but never committed: no report within 10 minutes"}
    assert promising.job().state == "failed"


# Whose report counts


def test_a_strangers_report_changes_nothing(promising: Journey) -> None:
    request = asked(promising)
    with pytest.raises(CommitmentError, match=r"MALLORY reports on .* that pacs was asked for"):
        report(promising, answer(request), by="MALLORY")
    assert states(promising) == ["sent"] * 2


def test_a_report_that_nobody_asked_for_changes_nothing(promising: Journey) -> None:
    request = asked(promising)
    unasked = replace(answer(request), transaction_uid=str(generate_uid(prefix=None)))
    with pytest.raises(CommitmentError, match=r"PACS reports on .* that nobody asked for"):
        report(promising, unasked)
    assert states(promising) == ["sent"] * 2


def test_objects_that_were_never_sent_are_remarked_once(promising: Journey) -> None:
    request = asked(promising)
    foreign = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3.4")
    said = answer(request)
    report(promising, replace(said, committed=(*said.committed, foreign)))
    assert (states(promising), promising.job().state) == (["committed"] * 2, "done")
    assert events(promising, "commitment") == ["pacs reported on 1 objects it was never sent; ignored"]


# On the wire


@pytest.fixture
def on_the_wire(journey: Journey) -> Iterator[Callable[[Committer], Any]]:
    """Have a real PACS answer."""

    def begin(committer: Committer, **how: Any) -> Any:
        context = committing.running(committer, **how)
        peer = context.__enter__()
        ended.append(lambda: context.__exit__(None, None, None))
        journey.destinations = {"pacs": peer.destination(commitment=True)}
        journey.open_sender, journey.ask_commitment = open_sender, commitment.ask
        return peer

    ended: list[Callable[[], Any]] = []
    yield begin
    for end in ended:
        end()


def test_a_pacs_that_lost_an_object_gets_it_again_exactly_once(
    journey: Journey, on_the_wire: Callable[..., Any]
) -> None:
    # Given a PACS that, asked for the first time, has lost the first object
    committer = Committer()
    committer.failing = lambda ask: (
        {ask.references[0].sop_instance_uid: 0x0112} if len(committer.asks) == 1 else {}
    )
    peer = on_the_wire(committer)
    journey.run(journeys.datasets())
    assert states(journey) == ["pending", "committed"]
    journey.recover()
    # Then it got that one twice, the other once, and promised both
    assert (states(journey), journey.job().state) == (["committed"] * 2, "done")
    stored = [uid for _, uid, _, _ in peer.stored]
    lost = committer.asks[0].references[0].sop_instance_uid
    assert (stored.count(lost), len(stored)) == (2, 3)
    assert [len(ask.references) for ask in committer.asks] == [2, 1]
    assert committer.answers == [0x0000, 0x0000]


@pytest.mark.parametrize(("status", "state"), [(0x0213, "sent"), (0x0122, "dead"), (0x0124, "dead")])
def test_a_refused_request_is_asked_again_or_dead_by_its_class(
    journey: Journey, on_the_wire: Callable[..., Any], status: int, state: str
) -> None:
    committer = Committer(status=status, words="PIDQQ7731 unknown" if state == "sent" else "")
    on_the_wire(committer)
    journey.run(journeys.datasets())
    assert states(journey) == [state] * 2
    (row, _) = journey.job().deliveries
    assert f"0x{status:04X}" in row.commitment + row.comment
    if state == "dead":
        assert "take `commitment: true` from this peer" in row.comment
        assert journey.job().state == "failed"
        return
    # When it takes requests again
    committer.status = 0x0000
    journey.recover()
    assert (states(journey), journey.job().state) == (["committed"] * 2, "done")
    assert len(committer.asks) == 2


def test_a_pacs_without_storage_commitment_is_named_as_such(journey: Journey) -> None:
    with pacs.running() as peer:
        journey.destinations = {"pacs": peer.destination(commitment=True)}
        journey.open_sender, journey.ask_commitment = open_sender, commitment.ask
        journey.run(journeys.datasets())
    assert states(journey) == ["dead"] * 2
    (comment,) = comments(journey)
    assert comment == (
        "stored (0x0000), but never committed: pacs takes no storage commitment requests; enable storage "
        "commitment for us there, or take `commitment: true` from this peer"
    )


def test_a_pacs_that_goes_away_after_the_request_is_asked_again(
    journey: Journey, on_the_wire: Callable[..., Any]
) -> None:
    committer = Committer(before=lambda event: event.assoc.abort(), way="never")
    on_the_wire(committer)
    journey.run(journeys.datasets())
    assert states(journey) == ["sent"] * 2
    assert "instead of answering; it is asked for again" in journey.job().deliveries[0].commitment
    committer.before, committer.way = lambda event: None, "same"
    journey.recover()
    assert (states(journey), journey.job().state) == (["committed"] * 2, "done")


# The configuration changes


@pytest.mark.parametrize("now", [{"pacs": replace(PROMISING, commitment=False)}, {}], ids=["off", "gone"])
def test_a_peer_that_is_not_asked_any_more_has_what_it_took(
    promising: Journey, now: dict[str, Destination]
) -> None:
    asked(promising)
    promising.destinations = now
    promising.recover()
    assert (states(promising), promising.job().state) == (["sent"] * 2, "done")


@pytest.mark.parametrize("now", [{"pacs": replace(PROMISING, commitment=False)}, {}], ids=["off", "gone"])
@pytest.mark.parametrize("lost", [False, True], ids=["asked", "to be asked again"])
def test_nobody_waits_for_the_report_of_a_peer_that_is_not_asked_any_more(
    promising: Journey, now: dict[str, Destination], lost: bool
) -> None:
    # Given a request without a report, or one that is made anew later
    request = asked(promising)
    if lost:
        (row,) = promising.rows(models.Commitment)
        commitment_ledger.lost(promising.post, row.id, "nobody was there")
    promising.destinations = now
    # When the sweep looks, at once
    commitment_ledger.look_after(promising.post, datetime.now(UTC))
    # Then the job is done and its request over
    assert (states(promising), promising.job().state) == (["sent"] * 2, "done")
    assert promising.why().study.state == "done"
    assert [row.state for row in promising.rows(models.Commitment)] == ["lost"]
    assert {row.next_attempt_at for row in promising.job().deliveries} == {None}
    # And a report that comes late still counts, of a peer that we know
    if now:
        report(promising, answer(request))
        assert (states(promising), promising.job().state) == (["committed"] * 2, "done")


# A process may die at any point


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[dict[str, Any]]:
    """What a journey to a promise leaves behind without any crash."""
    storage = tmp_path_factory.mktemp("undisturbed")
    with Database(f"sqlite:///{storage / 'secondread.db'}") as database:
        migrate.upgrade(database)
        journey = Journey(database=database, storage=storage, shelf=shelf, destinations={"pacs": PROMISING})
        journey.run(journeys.datasets())
        assert states(journey) == ["committed"] * 2
        yield journey.facts()


@pytest.mark.parametrize(
    "crash",
    [
        crash_after("db.commitments.begin"),
        crash_after("worker.commitment_ledger.begin"),
        crash_before("worker.commitment_ledger.report"),
        crash_after("db.commitments.report"),
        crash_after("db.commitments.committed"),
        crash_after("db.jobs.settle_delivering"),
        crash_after("worker.commitment_ledger.report"),
        crash_before("worker.commitment_ledger.asked"),
        crash_after("worker.commitment_ledger.asked"),
    ],
    ids=[
        "before the Transaction UID is stored",
        "stored, before it leaves",
        "reported, before it is known",
        "known, before what follows from it",
        "after the first of two",
        "all settled, before the commit",
        "settled, before the peer hears of it",
        "before the request is let go",
        "after all",
    ],
)
def test_commit(promising: Journey, undisturbed: dict[str, Any], crash: Any) -> None:
    (job_id,) = promising.arrive(journeys.datasets())
    first, _ = promising.analyse(job_id)
    promising.deliver(first)
    with crash:
        promising.die(lambda: promising.commit(first))
    promising.recover()
    assert promising.facts() == undisturbed
    assert len(promising.sent()) == 2


@pytest.mark.parametrize(
    "crash",
    [crash_before("db.commitments.send_again"), crash_after("db.commitments.send_again")],
    ids=["before", "before the commit"],
)
def test_to_be_sent_again(promising: Journey, undisturbed: dict[str, Any], crash: Any) -> None:
    request = asked(promising)
    with crash:
        promising.die(lambda: report(promising, answer(request, failed={0: 0x0112})))
    # The peer got no answer, and reports again
    report(promising, answer(request, failed={0: 0x0112}))
    promising.ask_commitment = None
    promising.recover()
    assert promising.facts() == undisturbed
    assert len(promising.sent()) == 3


def test_an_asker_that_died_is_not_waited_for(promising: Journey) -> None:
    (job_id,) = promising.arrive(journeys.datasets())
    first, _ = promising.analyse(job_id)
    promising.deliver(first)
    now = datetime.now(UTC)
    with promising.database.write() as session:
        associations.heartbeat(
            session, process_id=promising.post.owner, role="deliver", started_at=now, at=now
        )
    owner = promising.post.owner
    with crash_after("worker.commitment_ledger.begin"):
        promising.die(lambda: promising.commit(first))
    commitment_ledger.look_after(promising.post, now)
    assert [row.state for row in promising.rows(models.Commitment)] == ["requested"]
    with promising.database.write() as session:
        associations.goodbye(session, owner, now)
    commitment_ledger.look_after(promising.post, now)
    assert [row.state for row in promising.rows(models.Commitment)] == ["lost"]


# One destination does not hold up another


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of something that accepts connections and never says a word."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    for each in held:
        each.close()


def test_a_destination_that_hangs_holds_up_one_sender_and_no_other_destination(
    journey: Journey, silent: int, tmp_path: Path
) -> None:
    # Given two jobs' results for a destination that never answers, and for one that does
    hung = Destination(name="hung", ae_title="HUNG", host="127.0.0.1", port=silent, timeout_seconds=6.0)
    with pacs.running() as peer:
        journey.destinations = {"hung": hung, "pacs": peer.destination()}
        journey.routes = [journeys.route(send_to=("hung", "pacs"))]
        journey.open_sender = open_sender
        other = "1.2.826.0.1.3680043.8.498.72"
        jobs = journey.arrive(journeys.datasets())
        jobs += journey.arrive(journeys.datasets(study_uid=other, series_uid=f"{other}.1"), association="a2")
        due = [each for job_id in jobs for each in journey.analyse(job_id)]
        now = datetime.now(UTC)
        with journey.database.write() as session:
            for owner in ("worker-1", "worker-2"):
                associations.heartbeat(session, process_id=owner, role="deliver", started_at=now, at=now)
        to = {row.id: row.destination for row in journey.rows(models.Delivery)}
        to_hung = [each for each in due if to[each] == "hung"]
        # When one sender speaks with the first
        first = journey.post
        sender = threading.Thread(target=pipeline.deliver, args=(first, to_hung[0]))
        sender.start()
        assert pacs.wait_until(lambda: any(row.lease_owner for row in journey.rows(models.Delivery)))
        # Then another one does not queue behind it, and everything reaches the second
        journey.owner = 2
        began = time.monotonic()
        for delivery_id in due:
            journey.deliver(delivery_id)
        took = time.monotonic() - began
        assert sender.is_alive() and took < 6
        sender.join(30)
    assert len(peer.stored) == 4
    rows = journey.rows(models.Delivery)
    assert {(row.destination, row.state) for row in rows} == {("hung", "pending"), ("pacs", "sent")}
    assert sorted(row.attempts for row in rows if row.destination == "hung") == [0, 0, 1, 1]
