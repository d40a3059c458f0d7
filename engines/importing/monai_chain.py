"""The steps of a bundle's transforms, by their names and with their arguments; nothing is instantiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engines.errors import PackageError
from engines.importing.monai_config import BundleConfig


@dataclass(frozen=True, kw_only=True)
class Step:
    """One transform of a chain."""

    #: Class name without module and without the "d" of dictionary transforms, e.g. "Spacing".
    name: str
    #: As the configuration has it, e.g. "preprocessing::transforms::3 (Spacingd)".
    where: str
    arguments: Mapping[str, Any]
    disabled: bool = False


@dataclass(kw_only=True)
class Unsupported:
    """What of a bundle no package can say: collected, so that all of it is told at once."""

    file: str
    problems: list[str] = field(default_factory=list)

    def add(self, where: str, why: str) -> None:
        """Note that what stands at `where` is not supported, and why."""
        self.problems.append(f"{self.file}: {where}: {why}")

    def settle(self) -> None:
        """Raise PackageError with every problem, a line each, where there are any."""
        if self.problems:
            raise PackageError("\n".join(self.problems))


def steps(config: BundleConfig, key: str) -> Iterator[Step]:
    """The steps of the chain at `key`: a Compose, or a list. None where there is no such key."""
    if not config.has(key):
        return
    raw = config.raw(key)
    inner = "transforms" if isinstance(raw, dict) else ""
    if isinstance(raw, dict) and _target(raw) != "Compose":
        raise PackageError(
            f"{config.name}: {key}: it is {raw.get('_target_')!r}, not a Compose: only fixed chains are imported"
        )
    items = config.raw(f"{key}::{inner}") if inner else raw
    if not isinstance(items, list):
        raise PackageError(f"{config.name}: {key}: it is no list of transforms: write them there, one by one")
    for index in range(len(items)):
        path = f"{key}::{inner}::{index}" if inner else f"{key}::{index}"
        found = step(config, path)
        if not found.disabled:
            yield found


def step(config: BundleConfig, path: str) -> Step:
    """The transform, or the inferer, at `path`. Raises PackageError where there is none."""
    raw = config.raw(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("_target_"), str):
        raise PackageError(f"{config.name}: {path}: it has no _target_: name a class of MONAI")
    off = "_disabled_" in raw and config.value(f"{path}::_disabled_") in (True, "true", "True")
    name = _target(raw)
    plain = {key: _value(config, f"{path}::{key}") for key in raw if key not in _UNREAD and key[0] != "_"}
    short = name[: -len("Dict")] if name.endswith("Dict") else name.removesuffix("d").removesuffix("D")
    return Step(name=short, where=f"{path} ({name})", arguments=plain, disabled=off)


#: Arguments that change nothing here: where things go, and what an inverse refers to.
_UNREAD = frozenset({"transform", "device", "output_dir", "reader", "allow_missing_keys"})


def _value(config: BundleConfig, path: str) -> Any:
    """An argument's value, or why it has none: a transform that does not read it may not care."""
    try:
        return config.value(path)
    except PackageError as error:
        return Unknown(str(error))


@dataclass(frozen=True)
class Unknown:
    """An argument whose value only running code would tell."""

    problem: str


def _target(raw: Mapping[str, Any]) -> str:
    """The class name of a target, without its module."""
    return str(raw["_target_"]).rpartition(".")[2] if "_target_" in raw else ""


class Arguments:
    """A step's arguments, taken out one by one, so that what was never looked at is noticed."""

    def __init__(self, step: Step, unsupported: Unsupported) -> None:
        self._step = step
        self._left = {key: value for key, value in step.arguments.items() if key != "keys"}
        self._unsupported = unsupported

    def take(self, key: str, default: Any = None) -> Any:
        """The argument, or MONAI's default for it."""
        value = self._left.pop(key, default)
        if isinstance(value, Unknown):
            self._unsupported.add(self._step.where, value.problem.removeprefix(f"{self._unsupported.file}: "))
            return default
        # [x] for one key of a dictionary is x.
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    def refuse(self, key: str, allowed: tuple[Any, ...], default: Any) -> None:
        """Note where the argument is none of those that mean nothing, or what is done anyway."""
        value = self.take(key, default)
        if value not in allowed:
            self._unsupported.add(self._step.where, f"{key}: {value} is not supported")

    def finish(self) -> None:
        """Note every argument that was not looked at: it might change the answer."""
        for key in sorted(self._left):
            self._unsupported.add(self._step.where, f"{key} is not supported")


#: What a step does to what was found before it.
Found = TypeVar("Found")
Reading = Callable[[Found, Step, Arguments, Unsupported], Found]


def taken(found: Found, step: Step, known: Mapping[str, Reading[Found]], unsupported: Unsupported) -> Found:
    """What was found with this step too; one that is not `known`, and arguments nobody reads, are unsupported."""
    if step.name not in known:
        unsupported.add(step.where, "this transform is not supported")
        return found
    arguments = Arguments(step, unsupported)
    found = known[step.name](found, step, arguments, unsupported)
    arguments.finish()
    return found
