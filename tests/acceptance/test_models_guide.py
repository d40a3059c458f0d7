"""The guide that takes a model author from a checkpoint to a routed model, typed as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import Installation
from tests.support.orthanc import Orthanc
from tests.support.peers import IMPORT_ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "models.md"

pytestmark = [pytest.mark.peer("monai"), pytest.mark.peer("orthanc"), pytest.mark.peer("dcmtk")]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of the guide."""

    #: "sh", or the file's name that a Python block is to be saved under.
    name: str
    text: str


def _blocks() -> Iterator[Block]:
    """Those of the guide, in order."""
    section = re.search(r"^## From a checkpoint.*?(?=^## )", GUIDE.read_text(encoding="utf-8"), re.S | re.M)
    assert section is not None
    for language, name, text in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", section[0], re.S | re.M):
        yield Block(name=name or language, text=text)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout whose environments are made."""
    folder = tmp_path_factory.mktemp("guide")
    for name in ("demo", "scripts", "requirements.lock", "requirements-import.lock", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(Path(os.environ.get("VIRTUAL_ENV") or ROOT / ".venv"))
    (folder / ".venv-import").symlink_to(IMPORT_ENVIRONMENT)
    return folder


@pytest.fixture(scope="module")
def said(checkout: Path) -> dict[str, str]:
    """What the guide's commands print, by the command, after all of it was typed."""
    made: dict[str, str] = {}
    for block in _blocks():
        if block.name != "sh":
            (checkout / block.name).write_text(block.text)
        elif "scripts/environment" not in block.text:
            # The environments are there already; each block is a terminal of its own, activated as the guide says.
            script = f". .venv/bin/activate\nset -e\n{block.text}"
            done = subprocess.run(
                ["sh", "-c", script],
                cwd=checkout,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
                env=installation.environment(),
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
            made |= dict.fromkeys(block.text.strip().splitlines(), done.stdout + done.stderr)
    return made


def test_the_command_says_what_is_left_to_fill_in(said: dict[str, str]) -> None:
    printed = said["secondread models add air.onnx --out air"]
    assert "task: segmentation" in printed and printed.count("fill in") >= 3


def test_the_filled_in_package_is_right_and_has_an_example(said: dict[str, str], checkout: Path) -> None:
    assert "air" in said["secondread models check air --record demo/ct"]
    expected = json.loads((checkout / "air" / "example" / "expected.json").read_text())
    (volume,) = expected["measurements"]
    assert volume["key"] == "volume" and volume["value"] > 500


def test_it_gives_objects_of_a_folder(said: dict[str, str], checkout: Path) -> None:
    assert {"seg.dcm", "sr.dcm", "report.txt"} <= {path.name for path in (checkout / "out").iterdir()}
    assert "air on ct" in said["secondread routes test demo/ct"]


def test_its_route_answers_what_a_pacs_sends(
    said: dict[str, str], checkout: Path, pacs: Orthanc, tmp_path: Path
) -> None:
    route = {"name": "air on ct", "when": {"Modality": "CT"}, "run": ["air"], "send_to": ["pacs"]}
    made: Installation = installation.configure(
        tmp_path, pacs, models=[str(checkout / "air")], routes=[route]
    )
    with installation.running(made) as node:
        files = sorted((ROOT / "demo" / "ct").iterdir())
        assert node.dcmsend(*files).returncode == 0
        (uid,) = node.rows("SELECT study_instance_uid FROM studies")[0]
        why = node.done(uid, seconds=90)
        assert [job["model"] for job in why["jobs"]] == ["air"]
        assert sorted(each["kind"] for each in why["jobs"][0]["objects"]) == ["seg", "sr"]
