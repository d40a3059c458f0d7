"""The GPU's kernels as they are shipped: made of their source, for GPUs of any age that CUDA 13 knows, within bounds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.double.pycuda import kernels
from tests.support import peers

ROOT = Path(__file__).resolve().parents[2]
PTX = ROOT / "engines" / "kernels" / "labels.ptx"
#: What made the file. It is also on PyPI, in one environment: nvidia-cuda-nvcc, nvidia-nvvm, nvidia-cuda-crt and
#: nvidia-cuda-runtime 13.0.88, nvidia-cuda-cccl 13.0.85.
NVCC = "V13.0.88"


def _compiler() -> str:
    """Which nvcc is here; "" for none."""
    if shutil.which("nvcc") is None:
        return ""
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    (version,) = re.findall(r"V\d+\.\d+\.\d+", said)
    return str(version)


def test_they_are_what_their_source_says(tmp_path: Path) -> None:
    if (found := _compiler()) != NVCC:
        pytest.skip(f"needs nvcc {NVCC}, here is {found or 'none'}")
    subprocess.run([ROOT / "scripts" / "kernels", tmp_path / "again.ptx"], check=True)
    assert (tmp_path / "again.ptx").read_bytes() == PTX.read_bytes(), "run scripts/kernels"


def test_no_product_is_fused_with_a_sum_where_the_host_s_is_not() -> None:
    text = PTX.read_text(encoding="ascii")
    assert f"Cuda compilation tools, release 13.0, {NVCC}" in text
    assert ".target sm_75" in text
    bodies = dict(re.findall(r"\.visible \.entry (\w+)\((.*?)\n}", text, re.DOTALL))
    assert set(bodies) == {"look", "mirror", "add", "finish", "label"}
    # That of exp has some.
    assert [name for name, body in bodies.items() if "fma" in body] == ["finish"]
    # And what has no rounding of its own may be fused by the driver.
    assert re.search(r"\b(mul|add|div)\.f32", text) is None and "approx" not in text.replace("ex2.approx", "")


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_nvidia_s_assembler_takes_them(tmp_path: Path, architecture: str) -> None:
    if shutil.which("ptxas") is None:
        pytest.skip("needs ptxas")
    done = subprocess.run(
        ["ptxas", f"-arch={architecture}", "-v", str(PTX), "-o", str(tmp_path / "out.cubin")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"(\d+) bytes spill", done.stderr)) == {"0"}


#: Looks at 1000 numbers, or at more than there are.
_LOOK = """
import numpy as np
from pathlib import Path
from tests.double.pycuda import kernels
look = kernels.of(Path({ptx!r}).read_bytes())["look"]
values, flags = np.zeros(1000, np.float32), np.zeros(2, np.int32)
look.run((8, 1, 1, 128, 1, 1), [values.ctypes.data, {count}, flags.ctypes.data])
"""


def _sanitised(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the kernels compiled to look at each access to an array that they are given."""
    asked = [peers.path("g++"), "-print-file-name=libasan.so"]
    library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:exitcode=99",
        "PYTHONMALLOC": "malloc",
        kernels.OPTIONS: "-fsanitize=address,bounds -fno-sanitize-recover=bounds",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.peer("c++")
def test_they_stay_within_what_is_allocated() -> None:
    inside, outside = (_sanitised("-c", _LOOK.format(ptx=str(PTX), count=count)) for count in (1000, 1001))
    assert inside.returncode == 0, inside.stderr[-3000:]
    assert outside.returncode == 99 and "heap-buffer-overflow" in outside.stderr
