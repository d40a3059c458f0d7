"""Results that destinations promise to keep: a real Orthanc, one that forgets, and one that never says a word."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import SCANNER, Installation, until
from tests.support import committing, peers, phantoms
from tests.support.committing import Committer
from tests.support.orthanc import Orthanc
from tests.support.pacs import Pacs
from tests.support.phantoms import Phantom

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]

OURS = "PROMISED"


@dataclass(frozen=True, kw_only=True)
class Site:
    """`secondread up` and those that it sends to."""

    node: Installation
    forgetful: Committer
    stored: Pacs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[Site]:
    """Three destinations: Orthanc; one that says once that it lost a result; one that hangs."""
    forgetful = Committer(way="own", called=OURS, calling="FORGETS")
    with ExitStack() as stack:
        stored = stack.enter_context(committing.running(forgetful))
        hung = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=_hold, args=(hung,), daemon=True).start()
        here = {"host": "127.0.0.1"}
        to_orthanc = {"ae_title": pacs.ae_title, "port": pacs.dicom_port, "commitment": True}
        made = installation.configure(
            tmp_path_factory.mktemp("site"),
            node={"ae_title": OURS},
            peers=[
                here | {"name": "ct scanner", "ae_title": SCANNER},
                here | {"name": "orthanc"} | to_orthanc,
                here | {"name": "forgetful", "ae_title": "PACS", "port": stored.port, "commitment": True},
                here | {"name": "hung", "ae_title": "HUNG", "port": hung.getsockname()[1]},
                here | {"name": "reporter", "ae_title": "FORGETS"},
            ],
            routes=[
                {"name": name, "when": {"SeriesDescription": name}, "run": ["chest-ct"], "send_to": to}
                for name, to in (
                    ("to orthanc", ["orthanc"]),
                    ("to the forgetful", ["forgetful"]),
                    ("to both", ["hung", "orthanc"]),
                )
            ],
        )
        forgetful.listener = ("127.0.0.1", made.dicom_port)
        pacs.add_modality("promised", ae_title=OURS, port=made.dicom_port)
        running = stack.enter_context(installation.running(made))
        yield Site(node=running, forgetful=forgetful, stored=stored)


def _hold(server: socket.socket) -> None:
    """Accept, and never say a word."""
    held = []
    with suppress(OSError):
        while True:
            held.append(server.accept()[0])


def send(site: Site, folder: Path, description: str, patient: str) -> str:
    """A small study for one route; its UID."""
    made = phantoms.datasets(Phantom(series_description=description, patient_id=patient))
    files = phantoms.write(made, folder)
    site.node.note(*files)
    ends = ["-aet", SCANNER, "-aec", OURS, "127.0.0.1", site.node.dicom_port]
    sent = site.node.tell(peers.path("dcmsend"), "-v", *ends, *files)
    assert sent.returncode == 0, sent.stderr
    return str(made[0].StudyInstanceUID)


def deliveries(why: dict[str, Any], destination: str) -> list[dict[str, Any]]:
    """A study's deliveries to a destination."""
    return [
        one for job in why.get("jobs", ()) for one in job["deliveries"] if one["destination"] == destination
    ]


def test_orthanc_commits_to_segmentation_and_report(site: Site, pacs: Orthanc, tmp_path: Path) -> None:
    uid = send(site, tmp_path, "to orthanc", "PROMISE-1")
    why = site.node.done(uid, seconds=120)
    rows = deliveries(why, "orthanc")
    assert {row["kind"]: row["state"] for row in rows} == {"seg": "committed", "sr": "committed"}
    assert all(row["sop_instance_uid"] in pacs.instances() for row in rows)
    assert "committed" in site.node.run("why", uid).stdout


def test_what_a_pacs_has_lost_is_sent_again_once(site: Site, tmp_path: Path) -> None:
    # Given a PACS that calls from another AE title than it is known by: its word does not count
    site.forgetful.failing = lambda ask: {}
    uid = send(site, tmp_path / "first", "to the forgetful", "PROMISE-2")
    until(lambda: site.forgetful.answers == [0x0115], "the stranger to be turned away", seconds=120)
    assert {row["state"] for row in deliveries(site.node.why(uid), "forgetful")} == {"sent"}
    (said,) = site.node.events("commitment-refused")
    assert "FORGETS reports on a storage commitment that forgetful was asked for" in said
    # When it reports late, under its own name, that it has lost the first
    site.forgetful.calling = "PACS"
    (ask,) = site.forgetful.asks
    lost, kept = (each.sop_instance_uid for each in ask.references)
    site.forgetful.failing = lambda ask: {lost: 0x0112} if len(site.forgetful.asks) == 1 else {}
    site.forgetful.tell(site.forgetful.honest(ask))
    # Then it gets that one again, once, and promises it
    why = site.node.done(uid, seconds=120)
    assert {row["state"] for row in deliveries(why, "forgetful")} == {"committed"}
    uids = [found for _, found, _, _ in site.stored.stored]
    assert (uids.count(lost), uids.count(kept)) == (2, 1)
    assert any("0x0112" in message for message in site.node.events("not-committed"))


def test_a_destination_that_hangs_does_not_delay_another(site: Site, tmp_path: Path) -> None:
    uids = [send(site, tmp_path / str(n), "to both", f"PROMISE-HUNG-{n}") for n in range(4)]

    def arrived() -> bool:
        rows = [row for uid in uids for row in deliveries(site.node.why(uid), "orthanc")]
        return len(rows) == 8 and {row["state"] for row in rows} == {"committed"}

    # The other one's time-out is 30 s for each attempt, and there are eight results for it
    until(arrived, "all results at the destination that answers", seconds=100)
    for uid in uids:
        rows = deliveries(site.node.why(uid), "hung")
        assert {row["state"] for row in rows} == {"pending"}
