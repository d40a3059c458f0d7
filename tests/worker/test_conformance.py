"""The conformance statement says what the code does: every status, every kind of result, every class."""

from __future__ import annotations

import pytest

from dicom_node import results
from dicom_node.senders import statuses
from dicom_node.statuses import NormalizedStatus, StoreStatus
from worker import conformance
from worker.settings import Settings


@pytest.fixture(scope="module")
def statement() -> str:
    return conformance.statement(Settings(), source="a test's")


@pytest.mark.parametrize("status", [*StoreStatus, *NormalizedStatus])
def test_every_answer_of_ours_is_explained(status: StoreStatus | NormalizedStatus, statement: str) -> None:
    meanings = (
        {**conformance.STORE_ANSWERS}
        if isinstance(status, StoreStatus)
        else {**conformance.COMMITMENT_ANSWERS}
    )
    assert f"| 0x{int(status):04X} | {meanings[status]} |" in statement  # type: ignore[index]


def test_every_answer_of_a_peer_is_explained(statement: str) -> None:
    for row in statuses.MEANINGS:
        assert f"| 0x{row.first:04X}" in statement
        assert row.words in statement


@pytest.mark.parametrize("kind", results.KINDS)
def test_every_kind_of_result_has_its_class(kind: str, statement: str) -> None:
    assert f"| `{kind}` |" in statement


def test_it_follows_the_configuration() -> None:
    node = {"ae_title": "NIGHTREAD", "port": 11999, "require_known_peers": False}
    said = conformance.statement(Settings(node=node), source="a test's")
    assert "| AE title | NIGHTREAD |" in said and "| port | 11999 |" in said
    assert "| callers | anyone |" in said


def test_nothing_is_left_open(statement: str) -> None:
    assert "{" not in statement.replace("{stow_url}", "") and "None" not in statement
