"""Run by Python itself: what a module that is written in Python, or Cython, offers, as JSON on standard output.

`python_surface.py MODULE`; the form is surface.py's. Only what the module's own package defines counts: not what it
imports for itself. A constructor counts where it is part of the real one's surface, which is asked elsewhere.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import sys
from types import ModuleType
from typing import Any

_SPECIAL = (
    "__init__",
    "__len__",
    "__getitem__",
    "__iter__",
    "__int__",
    "__index__",
    "__call__",
    "__buffer__",
)


def main(name: str) -> None:
    """Print every public name of a module."""
    module = importlib.import_module(name)
    entries: dict[str, Any] = {}
    for public, value in sorted(vars(module).items()):
        if not public.startswith("_") and not isinstance(value, ModuleType) and _is_own(value, module):
            entries |= _described(public, value)
    json.dump(entries, sys.stdout)


def _is_own(value: Any, module: ModuleType) -> bool:
    """Whether a value, or its class, is defined in the module's package; constants of Python's types are."""
    home = getattr(value, "__module__", None) or type(value).__module__
    package = module.__name__.partition(".")[0]
    return home.partition(".")[0] == package or type(value) in (int, str, float, tuple)


def _described(path: str, value: Any) -> dict[str, Any]:
    """The entry of a name, and of all that is within it."""
    if isinstance(value, type):
        return _class(path, value)
    if isinstance(value, property):
        return {path: {"kind": "property", "type": "object", "settable": value.fset is not None}}
    if isinstance(value, staticmethod | classmethod):
        parameters = _parameters(value.__func__)[isinstance(value, classmethod) :]
        return {path: {"kind": "static", "overloads": [{"parameters": parameters, "returns": "object"}]}}
    if inspect.isroutine(value):
        parameters = _parameters(value)["." in path :]
        return {path: {"kind": "function", "overloads": [{"parameters": parameters, "returns": "object"}]}}
    return {path: {"kind": "value", "type": type(value).__qualname__}}


def _class(path: str, value: type) -> dict[str, Any]:
    """A class with its own members."""
    entries: dict[str, Any] = {path: {"kind": "class", "bases": []}}
    for name, member in vars(value).items():
        inherited = issubclass(value, enum.Enum) and name in vars(enum.Enum)
        if name in _SPECIAL or not (name.startswith("_") or inherited):
            entries |= _described(f"{path}.{name}", member)
    return entries


def _parameters(function: Any) -> list[dict[str, Any]]:
    """The parameters, one that has no name outside being arg0, arg1, ... as pybind11 calls it."""
    kinds = inspect.Parameter
    stars: dict[Any, str] = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}
    return [
        {
            "name": f"arg{index}"
            if parameter.kind is kinds.POSITIONAL_ONLY
            else stars.get(parameter.kind, "") + name,
            "type": "object",
            "required": parameter.default is kinds.empty and parameter.kind not in stars,
        }
        for index, (name, parameter) in enumerate(inspect.signature(function).parameters.items())
    ]


if __name__ == "__main__":
    main(sys.argv[1])
