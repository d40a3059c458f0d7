"""What docker/ says, as data: the Dockerfile's instructions, and the services of compose.yaml."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "compose.yaml"

#: The images that are built here.
OURS = "secondread:"


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """An instruction of the Dockerfile."""

    #: The stage that it stands in, "" before the first.
    stage: str
    #: FROM, RUN, ...
    word: str
    #: What follows the word, continued lines joined and comments gone.
    value: str


def instructions() -> list[Instruction]:
    """The Dockerfile, from top to bottom."""
    parser = DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes()), env_replace=False)
    stage, found = "", []
    for each in parser.structure:
        if each["instruction"] == "COMMENT":
            continue
        if each["instruction"] == "FROM":
            stage = each["value"].split()[-1]
        found.append(Instruction(stage=stage, word=each["instruction"], value=each["value"]))
    return found


def of(word: str, *stages: str) -> list[str]:
    """The values of all instructions with this word, or of those in some stages."""
    return [
        each.value for each in instructions() if each.word == word and (not stages or each.stage in stages)
    ]


def command(run: str) -> str:
    """What a RUN instruction hands to the shell: without its --mount options."""
    return re.sub(r"^(--\w+=\S+\s+)+", "", run)


def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml by name, with what they inherit."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def roles() -> dict[str, dict[str, Any]]:
    """The services that run an image of ours."""
    return {name: each for name, each in services().items() if each["image"].startswith(OURS)}
