"""Writes typings/tensorrt/__init__.pyi from the real bindings' signatures: `python -m` this, or `scripts/typings`."""

from __future__ import annotations

import re

from tests.support.contract import environment, selection, typings
from tests.support.contract.surface import UNNAMED, Entry, Surface

_HEAD = '''"""TensorRT's Python API, as much of it as is used here. Written by scripts/typings; do not edit."""

import builtins
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, SupportsIndex, overload

import numpy as np
from typing_extensions import Buffer

'''

#: What a signature says, and what may be given or is given: pybind11 takes no float where it says SupportsInt.
_TYPES = {
    "SupportsInt": "SupportsIndex",
    "bool": "builtins.bool",
    "list": "list[int]",
    "tuple": "tuple[int, ...]",
}
#: TensorRT takes a tuple or a list for a shape (pybind11's implicit conversion).
_GIVEN = {"Dims": "Dims | tuple[int, ...] | list[int]"}
_KNOWN = {"None", "str", "int", "float", "slice", "memoryview", "type", "np", "generic"}
_KNOWN |= {"Buffer", "Iterable", "Iterator", "Sequence"}


def written(real: Surface) -> str:
    """The text of the typings, from what the bindings offer.

    Raises KeyError where a selected name is not there.
    """
    lines = [_HEAD]
    for name in selection.NAMES[""]:
        lines += _lines(name, real[name], indent="")
    for owner in sorted(set(selection.NAMES) - {""}):
        if "." not in owner:
            lines += _class(owner, real)
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _class(path: str, real: Surface, indent: str = "") -> list[str]:
    """A class with its selected members, and the classes within it."""
    bases = ", ".join(real[path]["bases"])
    lines = ["", f"{indent}class {path.rpartition('.')[2]}{f'({bases})' if bases else ''}:"]
    body: list[str] = []
    for owner in selection.NAMES:
        if owner.rpartition(".")[0] == path:
            body += _class(owner, real, indent + "    ")
    names = selection.NAMES[path]
    if f"{path}.__int__" in real:
        # What every enumeration of pybind11 has.
        names = (*names, "__init__", "__int__", "name", "value")
    for name in sorted(set(names)):
        body += _lines(f"{path}.{name}", real[f"{path}.{name}"], indent + "    ")
    return lines + (body or [f"{indent}    ..."])


def _lines(path: str, entry: Entry, indent: str) -> list[str]:
    """One name as a stub has it."""
    name = path.rpartition(".")[2]
    if entry["kind"] in ("member", "value"):
        kind = _type(entry["type"])
        return [f"{indent}{name}: {f'ClassVar[{kind}]' if indent else kind}"]
    if entry["kind"] == "property":
        return _property(path, entry, indent)
    # A signature with a type that is not selected is of no use here: readers of streams, texts of kernels.
    signatures = [
        _signature(path, overload, indent) for overload in entry["overloads"] if _is_known(path, overload)
    ]
    if not signatures:
        raise KeyError(f"{path}: each of its signatures has a type that is not selected")
    mark = [f"{indent}@overload"] if len(signatures) > 1 else []
    return [line for signature in signatures for line in (*mark, signature)]


def _property(path: str, entry: Entry, indent: str) -> list[str]:
    """A property with what gives it and, where it may be set, what sets it."""
    name = path.rpartition(".")[2]
    given = _type(selection.RETURNS.get(path, entry["type"])) + _or_none(path)
    lines = [f"{indent}@property", f"{indent}def {name}(self) -> {given}: ..."]
    if entry["settable"]:
        taken = _GIVEN.get(given, given)
        lines += [f"{indent}@{name}.setter", f"{indent}def {name}(self, value: {taken}) -> None: ..."]
    return lines


def _signature(path: str, overload: Entry, indent: str) -> str:
    """One `def` line."""
    parameters = ["self"] if indent else []
    unnamed = 0
    for parameter in overload["parameters"]:
        # What is called by TensorRT is given what it says; what calls it may give more.
        said = selection.PARAMETERS.get(path, {}).get(parameter["name"])
        kind = said or _GIVEN.get(parameter["type"], _type(parameter["type"]))
        parameters.append(f"{parameter['name']}: {kind}{'' if parameter['required'] else ' = ...'}")
        unnamed += parameter["name"] in UNNAMED
    if unnamed or path.endswith("__buffer__"):
        parameters.append("/")
    returns = _type(selection.RETURNS.get(path, overload["returns"])) + _or_none(path)
    return f"{indent}def {path.rpartition('.')[2]}({', '.join(parameters)}) -> {returns}: ..."


def _or_none(path: str) -> str:
    return " | None" if path in selection.MAY_BE_NONE else ""


def _type(text: str) -> str:
    """A type as stubs spell it."""
    return re.sub(r"[\w.]+(?!\w*\[)", lambda match: _TYPES.get(word := str(match[0]), word), text)


def _is_known(path: str, overload: Entry) -> bool:
    """Whether every type of a signature is Python's or selected."""
    changed = selection.PARAMETERS.get(path, {})
    kinds = [changed.get(parameter["name"], parameter["type"]) for parameter in overload["parameters"]]
    kinds.append(selection.RETURNS.get(path, overload["returns"]))
    if {"list", "tuple"} & set(kinds[:-1]):
        # Said of a shape beside the signature with Dims, which says both already.
        return False
    words = {word for kind in kinds for word in re.findall(r"[A-Za-z_]\w*", kind)}
    selected = {part for owner in selection.NAMES for part in owner.split(".")}
    return words <= selected | _KNOWN | set(_TYPES)


def main() -> None:
    """Write the file."""
    typings.FILES["tensorrt"].write_text(written(environment.tensorrt(11)), encoding="utf-8")


if __name__ == "__main__":
    main()
