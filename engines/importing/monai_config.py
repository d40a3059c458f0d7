"""A MONAI bundle's configuration as plain values: references followed, arithmetic done, nothing executed."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from engines.errors import PackageError

#: Where bundles keep the configuration that inference runs with, the first that is there.
INFERENCE = ("inference.json", "inference.yaml", "inference.yml")

#: A reference: @key, or @key::sub::0; "#" is the older separator.
_REFERENCE = re.compile(r"@([A-Za-z_][\w]*(?:(?:::|#)\w+)*)")

#: References within references, at most: beyond it one of them goes round in a circle.
_DEPTH = 32

#: No size, spacing or intensity is as large; numbers beyond cannot be relied on in later arithmetic.
_LARGEST = 1e15

#: Powers beyond are numbers of so many digits that they take minutes.
_EXPONENT = 64

_OPERATORS: dict[type[Any], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}


class BundleConfig:
    """One configuration file of a bundle, read and never run."""

    def __init__(self, content: Mapping[str, Any], name: str) -> None:
        self._content = content
        #: How messages call the file.
        self.name = name

    @classmethod
    def read(cls, path: Path) -> BundleConfig:
        """The JSON or YAML file at `path`. Raises PackageError where it is none."""
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        # What is nested too deeply is a RecursionError.
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise PackageError(
                f"{path}: it cannot be read: {error}: write it again as the bundle had it"
            ) from error
        if not isinstance(content, dict):
            raise PackageError(f"{path}: it must be a mapping of keys: write it again as the bundle had it")
        return cls(content, str(path))

    def has(self, key: str) -> bool:
        """Whether the file has this key at its top."""
        return key in self._content

    def value(self, key: str) -> Any:
        """What stands under `key`, e.g. "preprocessing::transforms", without references and expressions left.

        Raises PackageError, which names the key, where it is missing, where it is an expression whose value only
        running it would tell, or where it is no number that a network's configuration has.
        """
        try:
            return self._resolved(self._raw(key, key), key, 0)
        except RecursionError:
            raise PackageError(f"{self.name}: {key}: it is nested too deeply: write it flatter") from None

    def raw(self, key: str) -> Any:
        """What stands under `key`, as it is written; references from the top are followed."""
        found = self._raw(key, key)
        for _ in range(_DEPTH):
            if not (
                isinstance(found, str) and (whole := _REFERENCE.fullmatch(found.removeprefix("$").strip()))
            ):
                return found
            found = self._raw(whole.group(1), key)
        raise PackageError(f"{self.name}: {key}: its references go round in a circle: name the thing itself")

    def _raw(self, key: str, asked: str) -> Any:
        """The value at the end of a key's path."""
        found: Any = self._content
        for part in re.split("::|#", key):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise PackageError(f"{self.name}: {asked}: there is no {key}: add it") from None
        return found

    def _resolved(self, value: Any, key: str, depth: int) -> Any:
        """The value with everything in it resolved."""
        if depth > _DEPTH:
            raise PackageError(
                f"{self.name}: {key}: its references go round in a circle: name the thing itself"
            )
        if isinstance(value, dict):
            return {name: self._resolved(item, f"{key}::{name}", depth) for name, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item, f"{key}::{at}", depth) for at, item in enumerate(value)]
        if not isinstance(value, str):
            if _beyond(value):
                raise PackageError(f"{self.name}: {key}: it is too large, or no number: correct it")
            return value
        if whole := _REFERENCE.fullmatch(value):
            return self._resolved(self._raw(whole.group(1), key), key, depth + 1)
        if value.startswith("$"):
            return self._computed(value[1:], key, depth)
        if value.startswith("%"):
            raise PackageError(
                f"{self.name}: {key}: {value} copies from elsewhere: write the value there itself"
            )
        return value

    def _computed(self, text: str, key: str, depth: int) -> Any:
        """An expression of numbers, texts, lists and references; everything else is refused."""
        known: dict[str, Any] = {}

        def named(match: re.Match[str]) -> str:
            name = f"reference{len(known)}"
            known[name] = self._resolved(self._raw(match.group(1), key), key, depth + 1)
            return name

        try:
            return _evaluated(ast.parse(_REFERENCE.sub(named, text).strip(), mode="eval").body, known)
        # Of an expression that is nested too deeply, Python's parser says so in the last two ways.
        except (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError):
            raise PackageError(
                f"{self.name}: {key}: ${text} is code, and a bundle's code is not run: write its value there"
            ) from None


def _evaluated(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """The value of a node of literals, arithmetic and known names. Raises ValueError for any other."""
    match node:
        case ast.Constant(value=value) if not _beyond(value):
            return value
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluated(item, known) for item in items]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluated(operand, known))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _calculated(_OPERATORS[type(op)], _evaluated(left, known), _evaluated(right, known))
    raise ValueError("not a plain value")


def _calculated(operation: Any, left: Any, right: Any) -> int | float:
    """What two numbers make. Raises ValueError where one of the three is no plain number of a usual size."""
    if not all(isinstance(end, int | float) and abs(end) < 1e6 for end in (left, right)):
        raise ValueError("arithmetic is of plain numbers")
    if operation is operator.pow and abs(right) > _EXPONENT:
        raise ValueError("the exponent is too large")
    result = operation(left, right)
    # A negative number's root is complex.
    if not isinstance(result, int | float) or _beyond(result):
        raise ValueError("the result is too large, or no number")
    return result


def _beyond(value: Any) -> bool:
    """Whether it is a number that is too large, infinite or NaN."""
    return isinstance(value, int | float) and not abs(value) <= _LARGEST
