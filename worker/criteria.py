"""The language of `when`: criteria over DICOM attributes, evaluated purely, with the whole trace kept.

    Modality: CT                      equals (text without regard to case, numbers and dates as such)
    SeriesDescription: "*chest*"      glob, without regard to case
    StudyDescription: /lung|thorax/   regular expression, found anywhere, without regard to case
    SliceThickness: "<=5"             <, <=, >, >= a number
    PatientAge: "18Y..120Y"           from..to, ends included (numbers, dates, ages)
    BodyPartExamined: [CHEST, LUNG]   any of
    ContrastBolusAgent: null          missing or empty
    any: [{...}, {...}]               one of them at least;  all: [...] every one;  not: {...}

Several keys in one mapping must all hold. An attribute with several values matches where one of them
does. A missing attribute is a verdict, never an error.
"""

from __future__ import annotations

import datetime
import difflib
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import keyword_dict, tag_for_keyword

from worker.errors import CriteriaError

_NUMBER = re.compile(r"^\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*$")
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_COMPARISON = re.compile(r"^\s*(<=|>=|<|>)\s*(\S.*)$")
_AGE_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One test and its verdict, with those below it."""

    #: "all", "any", "not" or an attribute's keyword.
    subject: str
    verdict: bool
    #: The test in words, e.g. "<=5".
    test: str = ""
    #: The attribute's value as found; None where it is missing.
    value: Any = None
    #: What decided, in words.
    note: str = ""
    children: tuple[Trace, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """JSON's view of it."""
        own: dict[str, Any] = {"subject": self.subject, "verdict": self.verdict}
        if self.children or self.subject in _GROUPS:
            own["children"] = [child.as_dict() for child in self.children]
        else:
            own |= {"test": self.test, "value": self.value, "note": self.note}
        return own

    def decisive(self) -> list[Trace]:
        """The tests that made the verdict what it is: the leaves that agree with it."""
        if not self.children:
            return [self]
        if self.subject == "not":
            return [leaf for child in self.children for leaf in child.decisive()]
        return [leaf for child in self.children if child.verdict == self.verdict for leaf in child.decisive()]


def in_words(trace: Trace) -> str:
    """The tests that decided, e.g. "Modality is MR, wanted CT"."""
    parts = []
    for leaf in trace.decisive():
        if leaf.value is None:
            parts.append(f"{leaf.subject} is {leaf.note or 'missing'}, wanted {leaf.test}")
        else:
            shown = "\\".join(map(str, leaf.value)) if isinstance(leaf.value, list) else str(leaf.value)
            parts.append(
                f"{leaf.subject} is {shown}, {'tested for' if leaf.verdict else 'wanted'} {leaf.test}"
            )
    return "; ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """One attribute's test."""

    keyword: str
    #: As written, for the trace.
    wanted: str
    #: Given one value, whether it passes; None where the attribute must be missing.
    passes: Callable[[Any], bool] | None

    def evaluate(self, attributes: Mapping[str, Any]) -> Trace:
        """The verdict on an attribute, and why."""
        value = attributes.get(self.keyword)
        if isinstance(value, Mapping):
            return self._trace(False, value=None, note="the attribute's value is invalid in the data set")
        values = [item for item in _values(value) if item not in (None, "")]
        if self.passes is None:
            return self._trace(not values, value=value, note="missing" if not values else "is there")
        if not values:
            return self._trace(False, value=None, note="missing")
        passed = any(self.passes(item) for item in values)
        return self._trace(passed, value=value, note="matches" if passed else "does not match")

    def _trace(self, verdict: bool, *, value: Any, note: str) -> Trace:
        return Trace(subject=self.keyword, verdict=verdict, test=self.wanted, value=value, note=note)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Several criteria under `all`, `any` or `not`."""

    kind: str
    members: tuple[Test | Group, ...]

    def evaluate(self, attributes: Mapping[str, Any]) -> Trace:
        """Every member's verdict (none is left out, so that the trace is whole) and the group's."""
        children = tuple(member.evaluate(attributes) for member in self.members)
        return Trace(
            subject=self.kind,
            verdict=_GROUPS[self.kind]([child.verdict for child in children]),
            children=children,
        )


_GROUPS: dict[str, Callable[[Sequence[bool]], bool]] = {
    "all": all,
    "any": any,
    "not": lambda verdicts: not all(verdicts),
}


def parse(when: Any, where: str = "when") -> Group:
    """Understand a `when` mapping. Raises CriteriaError, naming the place and what to write."""
    if not isinstance(when, Mapping):
        raise CriteriaError(f"{where}: write a mapping of attributes, e.g. {{Modality: CT}}, not {when!r}")
    return Group(kind="all", members=tuple(_member(key, when[key], where) for key in when))


def _member(key: Any, wanted: Any, where: str) -> Test | Group:
    """One key of a mapping: a group or an attribute."""
    place = f"{where}.{key}"
    if key in ("any", "all"):
        if not isinstance(wanted, list) or not wanted:
            raise CriteriaError(f"{place}: write a list of mappings, e.g. [{{Modality: CT}}]")
        return Group(
            kind=key, members=tuple(parse(item, f"{place}[{index}]") for index, item in enumerate(wanted))
        )
    if key == "not":
        return Group(kind="not", members=(parse(wanted, place),))
    if not isinstance(key, str) or tag_for_keyword(key) is None:
        raise CriteriaError(f"{place}: no DICOM attribute has the keyword {key!r}{_suggestion(str(key))}")
    return Test(keyword=key, wanted=_in_words(wanted), passes=_predicate(wanted, place))


def _suggestion(key: str) -> str:
    """The nearest keywords of the DICOM dictionary."""
    near = difflib.get_close_matches(key, list(keyword_dict), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _in_words(wanted: Any) -> str:
    """A test as the trace shows it."""
    if wanted is None:
        return "missing"
    return " | ".join(_in_words(item) for item in wanted) if isinstance(wanted, list) else str(wanted)


def _predicate(wanted: Any, place: str) -> Callable[[Any], bool] | None:
    """What a single value must satisfy; None for "must be missing"."""
    if wanted is None:
        return None
    if isinstance(wanted, list):
        if not wanted or any(isinstance(item, list | Mapping) or item is None for item in wanted):
            raise CriteriaError(f"{place}: write a list of plain values, e.g. [CHEST, LUNG]")
        each = [_scalar(item, place) for item in wanted]
        return lambda value: any(test(value) for test in each)
    if isinstance(wanted, Mapping):
        raise CriteriaError(f"{place}: an attribute takes a value, a pattern or a list, not a mapping")
    return _scalar(wanted, place)


def _scalar(wanted: Any, place: str) -> Callable[[Any], bool]:
    """The test that one written value stands for."""
    if isinstance(wanted, bool):
        # YAML 1.1 reads NO and YES so; which word stood there is lost, and `false` would match nothing.
        raise CriteriaError(f'{place}: put a word like "NO" or "YES" in quotes, YAML reads it as {wanted}')
    if isinstance(wanted, datetime.date):
        wanted = wanted.isoformat()[:10]
    if not isinstance(wanted, str):
        return lambda value: _equal(value, wanted)
    if len(wanted) > 1 and wanted.startswith("/") and wanted.endswith("/"):
        return _regex(wanted[1:-1], place)
    comparison = _COMPARISON.match(wanted)
    if comparison:
        return _compare(comparison.group(1), comparison.group(2), place)
    if ".." in wanted:
        low, high = wanted.split("..", 1)
        bottom, top = _compare(">=", low, place), _compare("<=", high, place)
        return lambda value: bottom(value) and top(value)
    if any(sign in wanted for sign in "*?["):
        pattern = re.compile(fnmatch.translate(wanted), re.IGNORECASE)
        return lambda value: pattern.match(str(value).strip()) is not None
    return lambda value: _equal(value, wanted)


def _regex(pattern: str, place: str) -> Callable[[Any], bool]:
    """A regular expression, found anywhere."""
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise CriteriaError(f"{place}: /{pattern}/ is not a regular expression: {error}") from error
    return lambda value: compiled.search(str(value)) is not None


def _compare(sign: str, bound: str, place: str) -> Callable[[Any], bool]:
    """A comparison of quantities; a value that is no quantity does not pass."""
    limit = _quantity(bound)
    if limit is None:
        raise CriteriaError(f'{place}: "{bound}" after {sign} is not a number, a date or an age')
    tests: dict[str, Callable[[float], bool]] = {
        "<": lambda value: value < limit,
        "<=": lambda value: value <= limit,
        ">": lambda value: value > limit,
        ">=": lambda value: value >= limit,
    }
    passes = tests[sign]

    def test(value: Any) -> bool:
        quantity = _quantity(value)
        return quantity is not None and passes(quantity)

    return test


def _quantity(value: Any) -> float | None:
    """A value as a number: numbers, dates (YYYYMMDD, YYYY-MM-DD) and ages (AS: 045Y, in days)."""
    text = str(value).strip()
    if _NUMBER.match(text):
        return float(text)
    if _DATE.match(text):
        return float(text.replace("-", ""))
    if re.fullmatch(r"\d{1,3}[DWMY]", text):
        return int(text[:-1]) * _AGE_DAYS[text[-1]]
    return None


def _equal(value: Any, wanted: Any) -> bool:
    """Equality without regard to case and outer blanks; numbers and dates are compared as such."""
    found, text = str(value).strip(), str(wanted).strip()
    if found.casefold() == text.casefold():
        return True
    if _DATE.match(text):
        return found == text.replace("-", "")
    return bool(_NUMBER.match(found) and _NUMBER.match(text)) and float(found) == float(text)


def _values(value: Any) -> list[Any]:
    """An attribute's values, however many it has."""
    return list(value) if isinstance(value, list | tuple) else [value]
