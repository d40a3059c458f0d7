"""Reads `model.yaml` and says of every mistake in it where it is and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pydantic
import yaml

from engines import measure
from engines.errors import PackageError
from engines.manifest import Manifest
from engines.manifest_findings import MeasurementEntry
from engines.manifest_outputs import Task
from engines.volume import SUV, Values

#: The manifest formats that this version reads.
FORMATS: tuple[int, ...] = get_args(Manifest.model_fields["format"].annotation)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: the first value would be silently lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f'"{key.value}" is given twice', problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse(text: bytes, path: Path) -> Manifest:
    """The manifest in `text`, the content of the file at `path`.

    Raises PackageError, one line "file: key: problem: what to do" for each problem, where it is not
    YAML, not what `Manifest` allows, or asks for a measurement that cannot be made.
    """
    try:
        # A SafeLoader: it makes plain values only, never objects.
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise PackageError(f"{path}: {line}{error.problem}: correct the YAML") from error
    except yaml.YAMLError as error:
        raise PackageError(f"{path}: this is not YAML text: {error}: write the manifest again") from error
    except (ValueError, OverflowError, RecursionError) as error:
        # A date without such a day, a number that is none, lists in lists without end.
        raise PackageError(f"{path}: it holds a value that is none ({error}): put words in quotes") from error
    if not isinstance(content, dict):
        raise PackageError(f"{path}: the manifest must be a mapping of keys: write e.g. `format: 1`")
    _check_format(content.get("format"), path)
    try:
        manifest = Manifest.model_validate(content)
    except pydantic.ValidationError as error:
        raise PackageError("\n".join(_rendered(error.errors(), path))) from error
    problems = [*_unit_problems(manifest), *_bound_problems(manifest)]
    if problems:
        raise PackageError("\n".join(f"{path}: {problem}" for problem in problems))
    return manifest


def _check_format(given: object, path: Path) -> None:
    """A newer format first, before its unknown keys would be reported one by one."""
    if isinstance(given, int) and given > max(FORMATS):
        raise PackageError(
            f"{path}: format: {given} is newer than this secondread understands ({max(FORMATS)}): "
            "update secondread, or use an older version of the model"
        )


_REMEDIES = {
    "missing": "add it",
    "extra_forbidden": "remove it or correct its spelling",
    "string_type": "put it in quotes",
    "too_long": "remove what is too much",
    "too_short": "add what is missing",
}


def _rendered(problems: Iterable[Any], path: Path) -> list[str]:
    """pydantic's errors as "file: key: problem: what to do"."""
    found = list(problems)
    places = [problem["loc"] for problem in found]
    return [
        f"{path}: {_dotted(problem['loc'])}: {problem['msg']}: {_REMEDIES.get(problem['type'], 'correct it')}"
        for problem in found
        # An entry that is wrong is not counted, so that its list then seems too short.
        if problem["type"] != "too_short" or not any(_lies_in(place, problem["loc"]) for place in places)
    ]


def _lies_in(place: tuple[int | str, ...], whole: tuple[int | str, ...]) -> bool:
    """Whether a place is a part of another one."""
    return len(place) > len(whole) and place[: len(whole)] == whole


def _dotted(location: tuple[int | str, ...]) -> str:
    """("inputs", 0, "name") as inputs[0].name, without the task that an output's keys were chosen by."""
    if location[:1] == ("outputs",) and location[2:3] and location[2] in get_args(Task):
        location = (*location[:2], *location[3:])
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "the whole file"


def _unit_problems(manifest: Manifest) -> Iterator[str]:
    """Units that a kind of measurement cannot be given in."""
    for entry in manifest.measurements:
        allowed = _allowed_units(entry, manifest.reference.values)
        if allowed and entry.unit.value not in allowed:
            yield (
                f"measurements.{entry.key}.unit.value: {entry.kind} cannot be given in "
                f'"{entry.unit.value}": use {" or ".join(sorted(allowed))} (UCUM)'
            )


def _allowed_units(entry: MeasurementEntry, values: Values) -> frozenset[str]:
    """The UCUM codes that fit the measurement's kind; empty where the source volume decides."""
    if entry.kind in measure.OF_VALUES and values != "source":
        return frozenset({SUV if values == "SUVbw" else "1"})
    if entry.kind == "volume":
        return frozenset(measure.PER_MM3)
    if entry.kind == "longest_diameter":
        return frozenset(measure.PER_MM)
    if entry.kind == "area":
        return frozenset(measure.PER_MM2)
    return frozenset({"%"}) if entry.kind.startswith("percent") else frozenset()


def _bound_problems(manifest: Manifest) -> Iterator[str]:
    """Rules that no value can ever meet: they would always read as a negative finding."""
    for rule in manifest.findings:
        if rule.above is not None and rule.below is not None and rule.above >= rule.below:
            yield (
                f"findings.{rule.key}: no value is above {rule.above:g} and below {rule.below:g}: "
                "write two rules to find either"
            )
