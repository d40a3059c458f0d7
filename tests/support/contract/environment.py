"""Where the contract environment is (scripts/contract makes it), and what its libraries offer."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support import peers
from tests.support.contract.surface import Surface

_ROOT = Path(__file__).resolve().parents[3]
_HERE = Path(__file__).resolve().parent

FOLDER = Path(os.environ.get("SECONDREAD_CONTRACT_ENVIRONMENT", _ROOT / ".venv-contract"))

#: Where each TensorRT is: 11 is the environment's own. "" is what an import finds without more.
_PATHS = {10: str(FOLDER / "beside/tensorrt-10"), 11: ""}

#: What the bindings ask of TensorRT's libraries when they are loaded; each gives a null pointer here.
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def missing() -> str:
    """What is not there of the environment, for people; "" where all is."""
    if not (FOLDER / ".built").exists():
        return f"{FOLDER} is not there, or not whole (scripts/contract makes it)"
    return "" if peers.find("gcc") else "gcc is not on the PATH"


@functools.cache
def tensorrt(version: int) -> Surface:
    """What TensorRT's Python bindings of this major version offer."""
    surface: Surface = json.loads(run_tensorrt(version, str(_HERE / "tensorrt_surface.py")))
    return surface


def run_tensorrt(version: int, *arguments: str) -> str:
    """Standard output of the environment's Python, in which `tensorrt_bindings` are of this major version."""
    return _run(*arguments, LD_LIBRARY_PATH=_stub_libraries(version), PYTHONPATH=_PATHS[version])


@functools.cache
def pycuda(module: str) -> Surface:
    """What a module of pycuda offers."""
    surface: Surface = _pycuda(module)
    return surface


@functools.cache
def cuda_bindings(module: str) -> Surface:
    """What a module of NVIDIA's own bindings offers."""
    surface: Surface = json.loads(_run(str(_HERE / "python_surface.py"), module))
    return surface


@functools.cache
def pycuda_errors() -> dict[int, str]:
    """The class of pycuda's that each error code of the driver becomes."""
    return {int(code): name for code, name in _pycuda("errors").items()}


def run_pycuda(*arguments: str) -> str:
    """Standard output of the environment's Python, with pycuda, this checkout, and a driver that has no GPU."""
    folder = str(FOLDER / "beside/pycuda")
    return _run(*arguments, PYTHONPATH=os.pathsep.join([folder, str(_ROOT)]), LD_LIBRARY_PATH=folder)


def _pycuda(argument: str) -> Any:
    return json.loads(run_pycuda(str(_HERE / "pycuda_surface.py"), argument))


def _run(*arguments: str, **variables: str) -> str:
    """Standard output of the environment's Python; its errors are the test's."""
    done = subprocess.run(
        [str(FOLDER / "bin/python"), *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr[-4000:]}"
    return done.stdout


@functools.cache
def _stub_libraries(version: int) -> str:
    """A folder of libraries that stand in for TensorRT's; it lives as long as the process."""
    folder = Path(_temporary().name) / str(version)
    folder.mkdir()
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    for library in _LIBRARIES:
        file = f"lib{library}.so.{version}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{file}", str(source), "-o", str(folder / file)]
        subprocess.run(command, check=True)
    return str(folder)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="secondread-contract-")
