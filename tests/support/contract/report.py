"""Says which names of TensorRT, pycuda and CUDA our code uses, and that each is in the real ones: `python -m` this."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.contract import environment, typings, uses
from tests.support.contract.surface import Surface, holds


def known() -> dict[str, dict[str, Surface]]:
    """By module: what the typings say, and what each real one offers."""
    graphs = "cuda.bindings.driver"
    real = {
        graphs: {"cuda-bindings 13": environment.cuda_bindings(graphs)},
        "pycuda": {"pycuda 2026.1": environment.pycuda("pycuda")},
        "pycuda.driver": {"pycuda 2026.1": environment.pycuda("pycuda.driver")},
        "tensorrt": {"TensorRT 10": environment.tensorrt(10), "TensorRT 11": environment.tensorrt(11)},
    }
    return {module: {"typings": typings.of(module), **others} for module, others in real.items()}


def used(files: list[Path]) -> list[str]:
    """Every name that files use, as "tensorrt:Builder.reset"; raises AssertionError where mypy finds an error."""
    reached = {name for path in files for name in uses.reached(path)}
    return sorted(reached | uses.called(files))


def missing(names: list[str], surfaces: Mapping[str, Mapping[str, Surface]]) -> list[str]:
    """Which names are not in all of their module's surfaces, and where not."""
    found = []
    for name in names:
        module, _, path = name.partition(":")
        lacking = [
            of for of, surface in surfaces.get(module, {"any": {}}).items() if not holds(path, surface)
        ]
        if lacking:
            found.append(f"{name} is not in {', '.join(lacking)}")
    return found


def sentences(files: list[Path], names: list[str], wrong: list[str]) -> list[str]:
    """The report in words."""
    where = ", ".join(str(path.relative_to(uses.ROOT)) for path in files) or "no file"
    lines = [
        f"{where}: {len(names)} names of TensorRT, pycuda and CUDA used, {len(names) - len(wrong)} found in the real ones"
    ]
    for module in sorted({name.partition(":")[0] for name in names}):
        of = [name.partition(":")[2] for name in names if name.startswith(f"{module}:")]
        lines.append(f"{module}, {len(of)}: {', '.join(of)}")
    return lines + wrong


def main() -> None:
    """Print the report; exit with 1 where a name is not found."""
    files = uses.importing(uses.ROOT / "engines")
    names = used(files) if files else []
    wrong = missing(names, known())
    sys.stdout.write("\n".join(sentences(files, names, wrong)) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
