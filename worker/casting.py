"""Which series of a study takes which role of a model that looks at several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker import criteria

#: Series that a reason names, with what spoke against each.
_NAMED = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesView:
    """A series as the routes see it."""

    #: The row's id; None for files that are only being tried (`routes test`).
    series_id: int | None
    series_instance_uid: str
    #: Keyword -> value, of the first instance, with NumberOfSeriesRelatedInstances counted.
    attributes: Mapping[str, Any]
    sop_instance_uids: tuple[str, ...]
    #: Of images whose bytes took the place of others: which bytes are meant, by SOP Instance UID.
    changed: Mapping[str, str] = field(default_factory=dict)
    #: Whether all of it has come.
    complete: bool = True
    #: Why the loop guard lets no model have it; "" where nothing speaks against it.
    guarded: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputRule:
    """Which series an input of a model takes."""

    role: str
    series: criteria.Group
    #: Of several that fit: each leaves those that meet it, where some do.
    prefer: tuple[criteria.Group, ...] = ()

    def chosen(self, views: Sequence[SeriesView]) -> tuple[SeriesView, ...]:
        """The series that fit, as far as the preferences leave them."""
        fitting = [view for view in views if self.series.evaluate(view.attributes).verdict]
        for wish in self.prefer:
            fitting = [view for view in fitting if wish.evaluate(view.attributes).verdict] or fitting
        return tuple(fitting)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cast:
    """Who takes which role."""

    #: By role, in the order of the inputs, what fits and is preferred.
    chosen: Mapping[str, tuple[SeriesView, ...]]
    #: Why no job can be made; "" where one can.
    problem: str

    @property
    def taken(self) -> dict[str, SeriesView]:
        """One series by role, in the order of the inputs; empty where no job can be made."""
        return {} if self.problem else {role: views[0] for role, views in self.chosen.items()}

    @property
    def reason(self) -> str:
        """In words."""
        if self.problem:
            return f"no job: {self.problem}"
        named = ", ".join(f"{role} is series {view.series_instance_uid}" for role, view in self.taken.items())
        return f"each role has its series: {named}"

    @property
    def trace(self) -> criteria.Trace:
        """How many series there are for each role."""
        roles = tuple(
            criteria.Trace(
                subject=f"role {role}",
                verdict=len(views) == 1,
                test="one series",
                value=[view.series_instance_uid for view in views] or None,
                note="" if views else "no series",
            )
            for role, views in self.chosen.items()
        )
        return criteria.Trace(subject="all", verdict=not self.problem, children=roles)


def cast(
    inputs: Sequence[InputRule], views: Sequence[SeriesView], barred: Sequence[tuple[SeriesView, str]] = ()
) -> Cast:
    """Give each role the one series that fits it.

    `barred` are series that may not take part, each with the reason: where a role has none, they are named.
    """
    # In whatever order they came, it is said in one.
    views = sorted(views, key=lambda view: view.series_instance_uid)
    chosen = {entry.role: entry.chosen(views) for entry in inputs}
    problems = [
        problem for entry in inputs if (problem := _not_one(entry, chosen[entry.role], views, barred))
    ]
    problems += _twice(chosen)
    if not problems:
        problems = [
            f"series {view.series_instance_uid}, its {role}, is not complete yet"
            for role, (view,) in chosen.items()
            if not view.complete
        ]
    return Cast(chosen=chosen, problem="; ".join(problems))


def _not_one(
    entry: InputRule,
    chosen: Sequence[SeriesView],
    views: Sequence[SeriesView],
    barred: Sequence[tuple[SeriesView, str]],
) -> str:
    """Why a role has not one series; "" where it has."""
    if len(chosen) > 1:
        return (
            f"{len(chosen)} series fit the role {entry.role}: {_uids(chosen)}; let the manifest's `series` fit "
            "one of them, or its `prefer` say which"
        )
    if chosen:
        return ""
    looked = [_against(entry, view) for view in views]
    looked += [
        f"series {view.series_instance_uid} fits, but the route does not match it: {why}"
        for view, why in barred
        if entry.series.evaluate(view.attributes).verdict
    ]
    more = f"; and {len(looked) - _NAMED} more series do not" if len(looked) > _NAMED else ""
    return f"no series fits the role {entry.role}: {'; '.join(looked[:_NAMED])}{more}"


def _against(entry: InputRule, view: SeriesView) -> str:
    """What speaks against a series in a role."""
    said = criteria.in_words(entry.series.evaluate(view.attributes))
    return f"of series {view.series_instance_uid} {said}"


def _twice(chosen: Mapping[str, Sequence[SeriesView]]) -> list[str]:
    """The series that fit two roles, each in words."""
    roles: dict[str, list[str]] = {}
    for role, views in chosen.items():
        if len(views) == 1:
            roles.setdefault(views[0].series_instance_uid, []).append(role)
    return [
        f"series {uid} fits the roles {' and '.join(own)}: the manifest's `series` must tell them apart"
        for uid, own in roles.items()
        if len(own) > 1
    ]


def _uids(views: Sequence[SeriesView]) -> str:
    return " and ".join(view.series_instance_uid for view in views)


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What a model of several series says about one."""

    verdict: bool
    reason: str
    trace: criteria.Trace = field(repr=False)


def about(view: SeriesView, inputs: Sequence[InputRule], made: Cast) -> Said:
    """The role of a series, or why it has none."""
    tests = {entry.role: entry.series.evaluate(view.attributes) for entry in inputs}
    uid = view.series_instance_uid
    own = [role for role, taker in made.taken.items() if taker.series_instance_uid == uid]
    fits = [role for role, test in tests.items() if test.verdict]
    if own:
        reason = f"it takes the role {own[0]}"
    elif fits:
        reason = f"it fits the role {' and the role '.join(fits)}; {_instead(fits, made)}"
    else:
        reason = "it fits no role: " + "; ".join(
            f"as {role} {criteria.in_words(test)}" for role, test in tests.items()
        )
    named = tuple(_named(role, test) for role, test in tests.items())
    trace = criteria.Trace(subject="roles", verdict=bool(own), children=named)
    return Said(verdict=bool(own), reason=reason, trace=trace)


def _instead(fits: Sequence[str], made: Cast) -> str:
    """Why a series does not take the roles that it fits."""
    if made.problem:
        return "the model's own line says why there is no job"
    others = ", ".join(f"series {made.taken[role].series_instance_uid}" for role in fits)
    return f"{others} is preferred"


def _named(role: str, test: criteria.Trace) -> criteria.Trace:
    """A role's tests under its name."""
    found: Any = None if test.children else "any"
    return criteria.Trace(
        subject=f"role {role}", verdict=test.verdict, test="any series", value=found, children=test.children
    )
