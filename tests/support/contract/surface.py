"""What a module offers, name by name, and how two of them differ.

A surface is {"NAME" or "CLASS.NAME": entry}. An entry is a dict with "kind":
- "class": "bases", the names of its base classes within the module;
- "function" (a method where its name has a dot) and "static": "overloads", each with "parameters" (name, type,
  required; without self) and "returns";
- "property": "type" and "settable"; "value": "type"; "member" (of an enumeration): "type".
"""

from __future__ import annotations

from typing import Any

Entry = dict[str, Any]
Surface = dict[str, Entry]

#: Names that Boost.Python and pybind11 give to arguments that have none: nobody can pass those by name.
UNNAMED = ("arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "arg6")


def lacking(wanted: Surface, real: Surface) -> list[str]:
    """What `wanted` has and `real` lacks, or has in another way: one sentence for each name."""
    found = [problem for path, entry in wanted.items() if (problem := _problem(path, entry, real))]
    return sorted(found)


def holds(path: str, surface: Surface) -> bool:
    """Whether a surface has what a path of names reaches, through classes, their bases and the types of values."""
    at = ""
    for name in path.split("."):
        at = f"{at}.{name}" if at else name
        entry = surface.get(at) or _inherited(at, surface)
        if entry is None:
            return False
        if entry["kind"] in ("value", "member", "property"):
            # `DataType.HALF.itemsize` goes on with the class of HALF.
            at = entry["type"].removeprefix("ClassVar[").removesuffix("]")
    return True


def _problem(path: str, entry: Entry, real: Surface) -> str | None:
    """What is wrong with one name, or None."""
    there = real.get(path) or _inherited(path, real)
    if there is None:
        return f"{path}: there is no such name"
    if _sort(entry) != _sort(there):
        return f"{path}: it is a {there['kind']}, not a {entry['kind']}"
    if entry.get("settable") and not there.get("settable", True):
        return f"{path}: it cannot be set"
    known = [_shape(overload) for overload in there.get("overloads", [])]
    for overload in entry.get("overloads", []):
        if not all(any(_takes(shape, call) for shape in known) for call in _calls(_shape(overload))):
            return f"{path}{_said(_shape(overload))}: it takes {' or '.join(map(_said, known))}"
    return None


def _inherited(path: str, real: Surface) -> Entry | None:
    """The entry of a base class, where the class itself has no such name."""
    owner, _, name = path.rpartition(".")
    for base in real.get(owner, {}).get("bases", []):
        if found := real.get(f"{base}.{name}") or _inherited(f"{base}.{name}", real):
            return found
    return None


def _sort(entry: Entry) -> str:
    """The kind; an enumeration's members, and what an object has without a call, are values like others."""
    return "value" if entry["kind"] in ("member", "property") else str(entry["kind"])


_Shape = list[tuple[str, bool]]


def _shape(overload: dict[str, Any]) -> _Shape:
    """Names of the parameters, "" for those without one, and whether they must be given."""
    return [
        ("" if parameter["name"] in UNNAMED else parameter["name"], parameter["required"])
        for parameter in overload["parameters"]
    ]


def _calls(shape: _Shape) -> list[list[str]]:
    """The calls that a signature allows, by what is given: its first arguments, from those that must be to all."""
    plain = [parameter for parameter in shape if not parameter[0].startswith("*")]
    fewest = sum(required for _, required in plain)
    return [[name for name, _ in plain[:given]] for given in range(fewest, len(plain) + 1)]


def _takes(real: _Shape, call: list[str]) -> bool:
    """Whether a signature takes a call, each argument by its name where it has one."""
    plain = [parameter for parameter in real if not parameter[0].startswith("*")]
    if len(call) > len(plain) and len(plain) == len(real):
        return False
    if any(name and name != known for name, (known, _) in zip(call, plain, strict=False)):
        return False
    return not any(required for _, required in plain[len(call) :])


def _said(shape: _Shape) -> str:
    """A signature as one reads it."""
    return "(" + ", ".join((name or "_") + ("" if required else "=") for name, required in shape) + ")"
