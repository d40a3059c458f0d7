"""Builds pycuda where there is no CUDA: NVIDIA's headers from their wheels, and a driver library that has no device.

Run by the contract environment's own Python: `build_pycuda.py SOURCE TARGET`. pycuda's setup.py compiles 39 files, most
of whose time is Boost.Python's headers, read anew for each; the same files in two compilations take a third of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy

#: What pycuda's own build defines, with OpenGL and curand off; nothing is optimised, for nothing here is ever fast.
_FLAGS = (
    *("-O0", "-g0", "-w", "-fwrapv", "-fPIC", "-DNDEBUG", "-Dboost=pycudaboost", "-DPYGPU_PACKAGE=pycuda"),
    *("-DBOOST_ALL_NO_LIB=1", "-DBOOST_THREAD_BUILD_DLL=1", "-DBOOST_PYTHON_SOURCE=1", "-DPYGPU_PYCUDA=1"),
    *("-DBOOST_MULTI_INDEX_DISABLE_SERIALIZATION=1", "-DBOOST_THREAD_DONT_USE_CHRONO=1"),
)

#: wrap_cudadrv.cpp comes first: the others are told there that numpy's table of functions is imported elsewhere.
_DRIVER = (
    "src/wrapper/wrap_cudadrv.cpp",
    "src/wrapper/mempool.cpp",
    "src/cpp/bitlog.cpp",
    "src/cpp/cuda.cpp",
)
_STRUCT = "src/wrapper/_pvt_struct_v3.cpp"
_BOOST = "bpl-subset/bpl_subset/libs"
_UNUSED = ("tss_null.cpp", "future.cpp")


def main(source: Path, target: Path) -> None:
    """Build `source` (pycuda's sdist, unpacked) as an importable package in the folder `target`."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "pycuda", target / "pycuda")
    boost = sorted(source.glob(f"{_BOOST}/*/src/**/*.cpp"))
    # The other threads' implementations are Windows's, and an empty one.
    boost = [path for path in boost if path.parent.name != "win32" and path.name not in _UNUSED]
    # Its Boost is renamed, so that two modules with one of their own live in one process.
    (target / "pycudaboost").symlink_to(source / "bpl-subset/bpl_subset/boost")
    running = [
        _compile(source, [source / name for name in _DRIVER], target / "driver.o"),
        _compile(source, boost, target / "boost.o"),
        _compile(source, [source / _STRUCT], target / "struct.o"),
    ]
    if any([process.wait() for process in running]):
        sys.exit("pycuda does not compile: see above")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    _link(target / f"pycuda/_pvt_struct{suffix}", target / "struct.o")
    _driver_library(target)
    _link(
        target / f"pycuda/_driver{suffix}",
        target / "driver.o",
        target / "boost.o",
        target / "libcuda.so.1",
    )
    for part in (*target.glob("*.o"), *target.glob("*.cpp")):
        part.unlink()


def _compile(source: Path, files: list[Path], to: Path) -> subprocess.Popen[bytes]:
    """Start the compilation of several files as one."""
    together = to.with_suffix(".cpp")
    together.write_text("".join(f'#include "{path.resolve()}"\n' for path in files))
    folders = [
        source / "src/cpp",
        source / "src/wrapper",
        source / "bpl-subset/bpl_subset",
        to.parent,
        _cuda_headers(),
        Path(numpy.get_include()),
        Path(sysconfig.get_path("include")),
    ]
    return subprocess.Popen(["g++", *_FLAGS, *(f"-I{path}" for path in folders), "-c", together, "-o", to])


def _cuda_headers() -> Path:
    """Where the wheels of the CUDA runtime have put cuda.h."""
    return Path(sysconfig.get_path("purelib")) / "nvidia/cu13/include"


def _driver_library(target: Path) -> None:
    """A libcuda of exactly the functions that pycuda calls; those that driver.c has are left to it."""
    undefined = _output("nm", "--undefined-only", str(target / "driver.o"))
    names = {word for line in undefined.splitlines() if (word := line.split()[-1]).startswith("cu")}
    refused = [f"__attribute__((weak)) int {name}(void) {{ return answer; }}" for name in sorted(names)]
    source = target / "refused.c"
    source.write_text("\n".join(["extern int answer;", *refused]))
    driver = Path(__file__).with_name("driver.c")
    to = str(target / "libcuda.so.1")
    _output("gcc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", str(source), str(driver), "-o", to)


def _link(to: Path, *parts: Path) -> None:
    """A shared library that finds libcuda beside the package."""
    _output("g++", "-shared", *map(str, parts), "-Wl,-rpath,$ORIGIN/..", "-o", str(to))


def _output(*command: str) -> str:
    """What a command prints; its errors end the build."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
