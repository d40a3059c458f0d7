"""A stage of the Dockerfile without Docker: its RUN lines in a plain shell, its folders below a temporary one."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pip

from tests.docker import recipes


def sent(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last of its lines that fits the path, or a folder above, decides."""
    lines = (recipes.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    above = [path, *map(str, Path(path).parents)][:-1] or [path]
    verdict = True
    for line in (each for each in lines if each and not each.startswith("#")):
        pattern = line.removeprefix("!")
        if any(
            fnmatch.fnmatch(each, pattern) or fnmatch.fnmatch(f"/{each}", pattern.replace("**", "*"))
            for each in above
        ):
            verdict = line.startswith("!")
    return verdict


class Stage:
    """A stage of the Dockerfile whose folders lie below a temporary one."""

    #: Absolute paths of the image, longest first.
    _PATHS = ("/opt/secondread", "/wheels", "/data")

    def __init__(self, root: Path) -> None:
        self._root = root
        for folder in ("src", "opt"):
            (root / folder).mkdir()
        python = root / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", python], check=True)
        # Our pip, and nothing else of our environment: to install one takes longer than all that is asked of it.
        (packages,) = python.glob("lib/python3*/site-packages")
        (packages / "pip").symlink_to(Path(pip.__file__).parent)
        (python / "bin" / "pip").write_text(f'#!/bin/sh\nexec {python}/bin/python -m pip "$@"\n')
        (python / "bin" / "pip").chmod(0o755)

    def inside(self, path: str) -> Path:
        """Where a path of the image is."""
        return self._root / path.removeprefix("/")

    def lines(self, stage: str) -> list[str]:
        """The commands of the stage's RUN lines, with their paths below the temporary folder."""
        found = []
        for run in recipes.of("RUN", stage):
            line = recipes.command(run)
            for path in self._PATHS:
                line = re.sub(rf"(?<![\w/]){path}\b", str(self.inside(path)), line)
            found.append(line)
        return found

    def copy(self, *names: str) -> None:
        """What a COPY line brings, as .dockerignore lets it through."""
        for name in names:
            below = subprocess.run(
                ["git", "ls-files", name], cwd=recipes.ROOT, capture_output=True, text=True, check=True
            ).stdout.splitlines()
            for path in filter(sent, below):
                target = self.inside(f"/src/{path}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((recipes.ROOT / path).read_bytes())

    def run(self, line: str, *, fails: bool = False) -> str:
        """What a line says; the stage's own python and pip come first."""
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.inside("/src") if "-c" not in line.split()[:2] else self._root,
            env={
                **os.environ,
                "PATH": f"{self._root}/python/bin:{os.environ['PATH']}",
                "PIP_NO_INPUT": "1",
                "PIP_NO_COMPILE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout + done.stderr
