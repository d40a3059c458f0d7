"""Run by the contract environment's own Python: what TensorRT's bindings offer, as JSON on standard output.

pybind11 writes each function's signature into its docstring; nothing else of the docstrings is read. What is written is
{"NAME" or "CLASS.NAME": entry}, an entry being {"kind": ..., "overloads" or "type" ...} as described in surface.py.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import re
import sys
from typing import Any

import tensorrt_bindings

#: Py_bf_getbuffer in CPython's typeslots.h: whether memoryview() takes an object of the class.
_BUFFER_SLOT = 1
#: How an older pybind11 writes what a newer one writes otherwise, in what is taken and in what is given.
_TAKEN = {
    "buffer": "Buffer",
    "capsule": "CapsuleType",
    "float": "SupportsFloat",
    "int": "SupportsInt",
    "List": "Sequence",
}
_GIVEN = {"List": "list"}
_CALLED = re.compile(r"^ +def (\w+)\(self, ([\w, ]+)\):", re.MULTILINE)
_PREFIXES = re.compile(
    r"tensorrt_bindings\.tensorrt\.|nvinfer1::(v_\d_\d::)?|nvonnxparser::|typing_extensions\.|typing\.|"
    r"collections\.abc\."
)


def main() -> None:
    """Print every public name of the bindings."""
    entries: dict[str, Any] = {"__version__": {"kind": "value", "type": "str"}}
    for name, value in sorted(vars(tensorrt_bindings).items()):
        if not name.startswith("_") and not inspect.ismodule(value):
            entries |= _described(name, value)
    json.dump(entries, sys.stdout)


def _described(path: str, value: Any) -> dict[str, Any]:
    """The entry of a name, and of all that is within it."""
    name = path.rpartition(".")[2]
    if isinstance(value, property):
        return {path: _property(value)}
    if isinstance(value, type):
        return _class(path, value)
    if inspect.isfunction(value):
        return {path: {"kind": "function", "overloads": [_inspected(value)]}}
    if callable(value) and (overloads := _overloads(name, value.__doc__ or "")):
        return {path: {"kind": "function", "overloads": overloads}}
    return {path: {"kind": "value", "type": type(value).__qualname__}}


def _class(path: str, value: type) -> dict[str, Any]:
    """A class with its own members; what makes it a buffer or a sequence is said in words of Python."""
    bases = [base.__name__ for base in value.__bases__ if base.__name__ not in ("object", "pybind11_object")]
    entries: dict[str, Any] = {path: {"kind": "class", "bases": bases}}
    members = set(getattr(value, "__members__", {}))
    for name, member in vars(value).items():
        if name in members:
            entries[f"{path}.{name}"] = {"kind": "member", "type": value.__qualname__}
        elif not name.startswith("_") or name in ("__init__", "__len__", "__getitem__", "__int__"):
            entries |= _described(f"{path}.{name}", member)
    for method, names in _CALLED.findall(value.__doc__ or ""):
        # TensorRT looks these up in a class of ours; only the text of its own tells of some.
        parameters = [{"name": name, "type": "object", "required": True} for name in names.split(", ")]
        called = {"kind": "function", "overloads": [{"parameters": parameters, "returns": "object"}]}
        entries.setdefault(f"{path}.{method}", called)
    if f"{path}.__getitem__" in entries and f"{path}.__len__" in entries:
        item = entries[f"{path}.__getitem__"]["overloads"][0]["returns"]
        iteration = {"parameters": [], "returns": f"Iterator[{item}]"}
        entries[f"{path}.__iter__"] = {"kind": "function", "overloads": [iteration]}
    if _is_buffer(value):
        flags = {"name": "flags", "type": "int", "required": True}
        entries[f"{path}.__buffer__"] = {
            "kind": "function",
            "overloads": [{"parameters": [flags], "returns": "memoryview"}],
        }
    return entries


def _is_buffer(value: type) -> bool:
    """Whether memoryview() takes its objects."""
    slot = ctypes.pythonapi.PyType_GetSlot
    slot.restype, slot.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_int]
    heap_type = bool(value.__flags__ & (1 << 9))
    return heap_type and bool(slot(value, _BUFFER_SLOT))


def _property(value: property) -> dict[str, Any]:
    """The type that a property gives, and whether it may be set."""
    # What Python itself adds has no signature: DataType.itemsize.
    found = _overloads("", value.fget.__doc__ or "") or _overloads("name", value.fget.__doc__ or "")
    return {
        "kind": "property",
        "type": found[0]["returns"] if found else "object",
        "settable": value.fset is not None,
    }


def _inspected(value: Any) -> dict[str, Any]:
    """The signature of a function that is written in Python."""
    parameters = [
        {"name": parameter.name, "type": "object", "required": parameter.default is parameter.empty}
        for parameter in inspect.signature(value).parameters.values()
    ]
    return {"parameters": parameters, "returns": "object"}


def _overloads(name: str, doc: str) -> list[dict[str, Any]]:
    """The signatures of `name` in a docstring of pybind11's."""
    line = re.compile(rf"^(?:\d+\. )?{re.escape(name)}\((?P<parameters>.*)\) -> (?P<returns>.+)$")
    found = [match for text in doc.splitlines() if (match := line.match(_PREFIXES.sub("", text)))]
    return [
        {"parameters": _parameters(match["parameters"]), "returns": _spelt(match["returns"].strip(), _GIVEN)}
        for match in found
    ]


def _parameters(text: str) -> list[dict[str, Any]]:
    """The parameters of a signature, without self."""
    parts = [part for part in _split(text) if part not in ("", "/", "*args", "**kwargs")]
    parameters = []
    for part in parts:
        declared, has_default, default = part.partition(" = ")
        name, _, kind = declared.partition(": ")
        kind = _spelt(kind, _TAKEN)
        optional = " | None" if default == "None" and "None" not in kind else ""
        parameters.append({"name": name, "type": kind + optional, "required": not has_default})
    return parameters[1:] if parameters and parameters[0]["name"] == "self" else parameters


def _spelt(kind: str, words: dict[str, str]) -> str:
    return re.sub(r"\w+", lambda match: words.get(match[0], match[0]), kind)


def _split(text: str) -> list[str]:
    """Cut at the commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += character in "[(<"
        depth -= character in "])>"
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


if __name__ == "__main__":
    main()
