"""The shape of the code, held by measurement: sizes, and which import brings what along."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("worker", "dicom_node", "engines", "db")
LONGEST_FILE = 300
LONGEST_FUNCTION = 50
LONGEST_USUAL_FUNCTION = 20


def _sources() -> list[Path]:
    """Every module but the migrations' revisions, which are generated."""
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if path.parent.name != "versions"]


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and body lines, without the docstring, of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _sources()}
    long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    assert lengths
    assert not long


def test_functions_stay_short() -> None:
    functions = [found for path in _sources() for found in _functions(path)]
    assert [(name, lines) for name, lines in functions if lines > LONGEST_FUNCTION] == []
    lengths = sorted(lines for _, lines in functions)
    assert lengths[int(0.9 * len(lengths))] <= LONGEST_USUAL_FUNCTION


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "core", "manager"])
def test_no_module_is_a_drawer(name: str) -> None:
    assert [path for path in _sources() if name in (path.stem, path.parent.name)] == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("engines.volume", ("onnxruntime", "openvino", "tensorrt", "scipy")),
        ("dicom_node.listener", ("onnxruntime", "openvino", "highdicom", "scipy", "sqlalchemy", "celery")),
        ("db.models", ("pydicom", "numpy", "celery")),
        ("worker.pipeline", ("celery", "onnxruntime", "openvino")),
        ("worker.up", ("onnxruntime", "openvino", "celery")),
        # A question is asked and answered within a second.
        ("worker.cli", ("onnxruntime", "openvino", "celery", "highdicom", "scipy", "fastapi")),
    ],
)
def test_importing_brings_nothing_heavy_along(module: str, absent: tuple[str, ...]) -> None:
    script = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert found.strip() == "[]"
