"""A PACS that routes everything it gets to us, our own results among it: one job, and no loop."""

from __future__ import annotations

import json
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml

from tests.acceptance import installation
from tests.acceptance.installation import DEMO_CT, Installation, until
from tests.support import orthanc as orthanc_support
from tests.support import peers
from tests.support.orthanc import Orthanc

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]

_ROUTER = "function OnStoredInstance(id, tags, metadata, origin) SendToModality(id, 'secondread') end\n"


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc that sends whatever it stores to us, at once."""
    script = tmp_path / "route.lua"
    script.write_text(_ROUTER)
    with orthanc_support.running(tmp_path / "pacs", settings={"LuaScripts": [str(script)]}) as running:
        yield running


def _dcmsend(router: Orthanc) -> bool:
    """The scanner sends the CT to the PACS."""
    target = ("-aec", router.ae_title, "127.0.0.1", str(router.dicom_port), str(DEMO_CT))
    said = subprocess.run(
        [peers.path("dcmsend"), "+sd", *target], capture_output=True, timeout=60, check=False
    )
    return said.returncode == 0


def _send_on(router: Orthanc) -> list[str]:
    """The PACS sends us everything once more, one by one: what it says of those that we did not take."""
    refused = []
    for identifier in router.instances().values():
        try:
            router.rest("/modalities/secondread/store", method="POST", body=identifier)
        except urllib.error.HTTPError as error:
            refused.append(json.load(error)["Details"])
    return refused


def _states(node: Installation, uid: str) -> tuple[Any, ...]:
    study = node.why(uid)["study"]
    return study["state"], study["revision"], study["jobs"], study["guarded"], study["instances"]


def test_results_that_the_pacs_sends_back_start_nothing(router: Orthanc, tmp_path: Path) -> None:
    # Given a node whose route takes anything, and which the PACS knows
    routes = [{"name": "all", "when": {"any": [{"Modality": "CT"}, {"Modality": ["SEG", "SR"]}]}}]
    routes[0] |= {"run": ["chest-ct"], "send_to": ["pacs"]}
    node = installation.configure(tmp_path / "node", router, routes=routes)
    node.note(*DEMO_CT.iterdir())
    uid = str(pydicom.dcmread(next(DEMO_CT.iterdir()), stop_before_pixels=True).StudyInstanceUID)
    with installation.running(node):
        router.add_modality("secondread", ae_title="SECONDREAD", port=node.dicom_port)
        # When a CT reaches the PACS
        assert _dcmsend(router)
        # Then it is analysed once, and the results that come back are known
        until(
            lambda: node.why(uid).get("study", {}).get("guarded") == 2,
            "both results to come back",
            seconds=180,
        )
        assert _states(node, uid) == ("done", 1, {"done": 1}, 2, 50)
        why = node.why(uid)
        told = {series["modality"]: series["guarded"] for series in why["series"]}
        assert told == dict.fromkeys(("SEG", "SR"), "it is a result of secondread, by its UID") | {"CT": ""}
        assert "guarded: it is a result of secondread" in node.run("why", uid).stdout
        assert len(node.events("guarded")) == 2 and node.events("late-images") == []
        assert 'secondread_events_total{kind="guarded"} 2.0' in node.get("/metrics")
        assert "loop guard" in node.run("doctor").stdout
        # and one set of results is in the PACS
        assert len(router.instances()) == 52
        # When it sends the whole study again
        assert _send_on(router) == []
        assert _states(node, uid) == ("done", 1, {"done": 1}, 2, 50)
        # When what loops is not even to be stored
        node.stop()
        content = yaml.safe_load(node.config.read_text())
        node.config.write_text(yaml.safe_dump({**content, "guard": {"store": False}}))
        node.start()
        # Then the PACS is told so, and the study misses nothing
        refused = _send_on(router)
        assert len(refused) == 2 and all("0xC002" in each for each in refused)
        until(lambda: len(node.events("refused-by-guard")) == 2, "both refusals to be recorded")
        assert all(message.startswith("0xC002") for message in node.events("refused-by-guard"))
        assert _states(node, uid) == ("done", 1, {"done": 1}, 2, 50)
        assert node.why(uid)["study"]["problem"] == ""
