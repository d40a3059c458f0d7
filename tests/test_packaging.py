"""The four import names are ours, in a source tree and in an installed wheel."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("worker", "dicom_node", "engines", "db")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_import_names_are_this_checkout(name: str) -> None:
    """Unrelated distributions exist with three of these names; installing one overwrites silently."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / name


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("secondread-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.startswith("secondread-")} == set(PACKAGES)
    for needed in (
        "db/migrations/env.py",
        "db/migrations/versions/0001_create_the_tables_of_the_journey.py",
        "worker/templates/demo_report.html",
        "dicom_node/results/fonts/DroidSansFallbackFull.ttf",
        "dicom_node/results/fonts/LICENSE-Droid.txt",
        "engines/kernels/labels.cu",
        "engines/kernels/labels.ptx",
    ):
        assert needed in names
    shared = [name for name in names if "/data/share/secondread/" in name]
    assert any(name.endswith("models/chest-ct/model.onnx") for name in shared)
    assert any(name.endswith("demo/ct/001.dcm") for name in shared)


def test_no_module_is_named_after_a_dependency() -> None:
    stems = {path.stem for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    taken = {
        "celery",
        "logging",
        "tensorrt",
        "onnxruntime",
        "openvino",
        "redis",
        "types",
        "pydicom",
        "alembic",
    }
    assert stems & taken == set()
