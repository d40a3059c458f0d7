"""Reads stubs (.pyi) into a surface, so that they can be compared with the real thing."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.contract.surface import Entry, Surface

#: The stub of each module.
FOLDER = Path(__file__).resolve().parents[3] / "typings"
FILES = {
    "cuda.bindings.driver": FOLDER / "cuda/bindings/driver.pyi",
    "pycuda": FOLDER / "pycuda/__init__.pyi",
    "pycuda.driver": FOLDER / "pycuda/driver.pyi",
    "tensorrt": FOLDER / "tensorrt/__init__.pyi",
}


def of(module: str) -> Surface:
    """What the typings say that a module offers."""
    return read(FILES[module])


def read(path: Path) -> Surface:
    """What a stub says that its module offers; aliases of types are the stub's own."""
    return _body(ast.parse(path.read_text(encoding="utf-8")).body, "")


def _body(nodes: list[ast.stmt], prefix: str) -> Surface:
    found: Surface = {}
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            found[prefix + node.name] = {
                "kind": "class",
                "bases": [base for base in bases if base not in _PYTHONS],
            }
            found |= _body(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "TypeAlias":
            found[prefix + ast.unparse(node.target)] = {
                "kind": "value",
                "type": ast.unparse(node.annotation),
            }
        elif isinstance(node, ast.FunctionDef):
            _add_function(node, prefix, found)
    return found


#: Base classes that the module's own compiled classes have under other names.
_PYTHONS = ("int", "IntEnum", "Exception")


def _add_function(node: ast.FunctionDef, prefix: str, found: Surface) -> None:
    """Add a function, one more signature of it, or a property."""
    path = prefix + node.name
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    returns = ast.unparse(node.returns) if node.returns else "None"
    if "property" in decorators:
        found[path] = {"kind": "property", "type": returns, "settable": False}
    elif f"{node.name}.setter" in decorators:
        found[path]["settable"] = True
    else:
        static = "staticmethod" in decorators
        kind = "static" if static else "function"
        entry = found.setdefault(path, {"kind": kind, "overloads": []})
        parameters = _parameters(node.args, is_method=bool(prefix) and not static)
        entry["overloads"].append({"parameters": parameters, "returns": returns})


def _parameters(arguments: ast.arguments, *, is_method: bool) -> list[Entry]:
    """Parameters without self; one that has no name outside is arg0, as pybind11 calls it."""
    named = [(f"arg{index}", argument) for index, argument in enumerate(arguments.posonlyargs)]
    named += [(argument.arg, argument) for argument in arguments.args]
    optional = len(arguments.defaults)
    found = [
        {"name": name, "type": _annotation(argument), "required": index < len(named) - optional}
        for index, (name, argument) in enumerate(named)
    ]
    found += [
        {"name": argument.arg, "type": _annotation(argument), "required": default is None}
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    for star, argument in (("*", arguments.vararg), ("**", arguments.kwarg)):
        if argument is not None:
            found.append({"name": star + argument.arg, "type": _annotation(argument), "required": False})
    return found[1:] if is_method else found


def _annotation(argument: ast.arg) -> str:
    return ast.unparse(argument.annotation) if argument.annotation else "object"
