"""Which names of TensorRT, pycuda and CUDA our code uses: what it reaches from the module, and what it calls on its objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from mypy import build, main, nodes, types

ROOT = Path(__file__).resolve().parents[3]
MODULES = ("tensorrt", "pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver")


def importing(folder: Path) -> list[Path]:
    """The files within a folder that import TensorRT, pycuda or CUDA."""
    return [path for path in sorted(folder.rglob("*.py")) if any(_imports(_parsed(path)))]


def reached(path: Path) -> set[str]:
    """What a file reaches by name: "tensorrt:Builder", "pycuda.driver:Device.count", however it imports the module."""
    tree = _parsed(path)
    known = dict(_imports(tree))
    found = {target for target in known.values() if ":" in target}
    for node in ast.walk(tree):
        chain = _chain(node)
        if chain and chain[0] in known:
            found.add(_joined(known[chain[0]], chain[1:]))
    return {target for target in found if not target.endswith(":")}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name that an import binds to one of the modules, or to something within it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in MODULES:
                    bound = alias.asname or alias.name.partition(".")[0]
                    yield bound, (alias.name if alias.asname else bound) + ":"
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = f"{inner}:" if inner in MODULES else f"{node.module}:{alias.name}"
                yield alias.asname or alias.name, target


def _chain(node: ast.AST) -> list[str]:
    """`a.b.c` as its names; empty where it does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def _joined(target: str, names: list[str]) -> str:
    """What names reach from a module, or from something within it."""
    module, _, inner = target.partition(":")
    while names and not inner and f"{module}.{names[0]}" in MODULES:
        module, names = f"{module}.{names[0]}", names[1:]
    return f"{module}:{'.'.join([inner, *names] if inner else names)}"


def called(paths: list[Path]) -> set[str]:
    """What files use of objects of theirs, by mypy's types of them: "tensorrt:Builder.reset".

    Raises AssertionError, with mypy's words, where a file has a type error.
    """
    arguments = ["--config-file", str(ROOT / "pyproject.toml"), *map(str, paths)]
    sources, options = main.process_options(arguments)
    options.export_types = True
    # A file that mypy has in its cache has no types to look at; one with another text is looked at anew.
    for source, path in zip(sources, paths, strict=True):
        source.text = path.read_text(encoding="utf-8") + "\n# Read for its types.\n"
    result = build.build(sources, options)
    assert not result.errors, "\n".join(result.errors)
    members = [node for node in result.types if isinstance(node, nodes.MemberExpr)]
    return {
        found
        for node in members
        for info in _classes(result.types.get(node.expr))
        if (found := _owned(info, node.name))
    }


def _classes(kind: types.Type | None) -> list[nodes.TypeInfo]:
    """The classes that an object of this type may have."""
    proper = types.get_proper_type(kind)
    if isinstance(proper, types.UnionType):
        return [info for item in proper.items for info in _classes(item)]
    return [proper.type] if isinstance(proper, types.Instance) else []


def _owned(info: nodes.TypeInfo, name: str) -> str | None:
    """A name with the class that has it, the object's own or a base of it, where that is one of theirs."""
    for owner in info.mro:
        module = owner.module_name
        if module in MODULES and name in owner.names:
            return f"{module}:{owner.fullname.removeprefix(module + '.')}.{name}"
    return None
