"""Run by the contract environment's own Python: what a module of pycuda offers, as JSON on standard output.

Boost.Python writes each function's signature into its docstring: `name( (Type)arg1 [, (Type)stream=None]) -> Type :`,
an argument without a name being arg1, arg2, ... The form of what is written is that of tensorrt_surface.py. The
argument is the module, or `errors`: which class pycuda raises for each error of the driver.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import re
import sys
from typing import Any

import pycuda.driver

#: Every value of CUresult that cuda.h of CUDA 13 names lies below.
_CODES = 1000
_ARGUMENT = re.compile(r"\((?P<type>\w+)\)(?P<name>\w+)(?P<default>=[^\[\],)]+|=\[\])?")


def main(module: str) -> None:
    """Print every public name of a module."""
    entries: dict[str, Any] = {}
    for name, value in sorted(vars(importlib.import_module(module)).items()):
        if not name.startswith("_") and not inspect.ismodule(value):
            entries |= _described(name, value)
    json.dump(entries, sys.stdout)


def errors() -> None:
    """Print {code: class} for every code that the driver may return; the stub returns what it is told."""
    answer = ctypes.c_int.in_dll(ctypes.CDLL("libcuda.so.1"), "answer")
    found = {}
    for code in range(1, _CODES):
        answer.value = code
        try:
            pycuda.driver.init()
        except pycuda.driver.Error as error:
            found[code] = type(error).__name__
    json.dump(found, sys.stdout)


def _described(path: str, value: Any) -> dict[str, Any]:
    """The entry of a name, and of all that is within it."""
    name = path.rpartition(".")[2]
    if isinstance(value, staticmethod):
        return {path: {"kind": "static", "overloads": _overloads(name, value.__func__.__doc__ or "")}}
    if isinstance(value, property):
        return {path: {"kind": "property", "type": "int", "settable": value.fset is not None}}
    if isinstance(value, type):
        return _class(path, value)
    if inspect.isfunction(value):
        return {path: {"kind": "function", "overloads": [_inspected(value)]}}
    if overloads := _overloads(name, getattr(value, "__doc__", None) or ""):
        return {path: {"kind": "function", "overloads": overloads}}
    return {path: {"kind": "value", "type": type(value).__qualname__}}


def _class(path: str, value: type) -> dict[str, Any]:
    """A class with its own members."""
    bases = [base.__name__ for base in value.__bases__ if base.__name__ not in ("object", "instance", "enum")]
    entries: dict[str, Any] = {path: {"kind": "class", "bases": bases}}
    special = ("__init__", "__int__", "__index__", "__call__")
    for name, member in vars(value).items():
        if not name.startswith("_") or name in special:
            found = _described(f"{path}.{name}", member)
            if path != found.get(f"{path}.{name}", {}).get("type"):
                entries |= {at: _without_self(entry, name) for at, entry in found.items()}
            else:
                entries[f"{path}.{name}"] = {"kind": "member", "type": path}
    return entries


def _without_self(entry: dict[str, Any], name: str) -> dict[str, Any]:
    """A method's entry: its first argument is the object, and __init__ gives nothing."""
    if entry["kind"] != "function":
        return entry
    overloads = [
        {
            "parameters": overload["parameters"][1:],
            "returns": "None" if name == "__init__" else overload["returns"],
        }
        for overload in entry["overloads"]
    ]
    return {**entry, "overloads": overloads}


def _inspected(value: Any) -> dict[str, Any]:
    """The signature of a function that is written in Python; *args and **kwargs keep their stars."""
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = [
        {
            "name": stars.get(parameter.kind, "") + parameter.name,
            "type": "object",
            "required": parameter.default is parameter.empty and parameter.kind not in stars,
        }
        for parameter in inspect.signature(value).parameters.values()
    ]
    return {"parameters": parameters, "returns": "object"}


def _overloads(name: str, doc: str) -> list[dict[str, Any]]:
    """The signatures of `name` in a docstring of Boost.Python's."""
    line = re.compile(rf"^{re.escape(name)}\((?P<arguments>.*)\) -> (?P<returns>\w+) :")
    return [
        {"parameters": _parameters(match["arguments"]), "returns": match["returns"]}
        for text in doc.splitlines()
        if (match := line.match(text))
    ]


def _parameters(text: str) -> list[dict[str, Any]]:
    """The arguments of a signature; what stands in brackets may be left out."""
    return [
        {
            "name": match["name"],
            "type": match["type"],
            # An opening bracket anywhere before it: Boost.Python nests the optional ones.
            "required": "[" not in text[: match.start()].replace("=[]", ""),
        }
        for match in _ARGUMENT.finditer(text)
    ]


if __name__ == "__main__":
    errors() if sys.argv[1] == "errors" else main(sys.argv[1])
