"""Which model takes which series of a study, purely from attributes, with the trace that decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker import criteria, profiles, turns


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
    #: Why the loop guard lets no model have it; "" where nothing speaks against it.
    guarded: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteRule:
    """A route, understood."""

    name: str
    when: criteria.Group
    #: Names of the models to run.
    run: tuple[str, ...]
    #: Names of the destinations.
    send_to: tuple[str, ...]
    #: Those of them that are told where there is no answer.
    announce_to: tuple[str, ...] = ()
    #: What each of them takes; the default terms where it is not named.
    terms: Mapping[str, profiles.Terms] = field(default_factory=dict)
    #: Whose turn its jobs have; None: as the images say.
    priority: turns.Word | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRule:
    """What routing must know of a model."""

    name: str
    version: str
    digest: str
    #: Which series its input takes.
    series: criteria.Group
    #: Kinds of results that its manifest lists.
    results: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a route (and, where it matched, a model) said about a series."""

    route: str
    model: str
    series: SeriesView
    matched: bool
    #: In words.
    reason: str
    trace: criteria.Trace


def decide(
    routes: Sequence[RouteRule], models: Mapping[str, ModelRule], series: Sequence[SeriesView]
) -> list[Decision]:
    """Ask every route about every series; where it matches, ask its models too."""
    return [decision for route in routes for view in series for decision in _ask(route, models, view)]


def _ask(route: RouteRule, models: Mapping[str, ModelRule], view: SeriesView) -> Iterator[Decision]:
    """One route about one series: one decision where it does not match, else one for each model."""
    if view.guarded:
        yield _guarded(route, view)
        return
    trace = route.when.evaluate(view.attributes)
    if not trace.verdict:
        reason = f"the route does not match: {in_words(trace)}"
        yield Decision(route=route.name, model="", series=view, matched=False, reason=reason, trace=trace)
        return
    for name in route.run:
        model = models.get(name)
        if model is None:
            reason = f"the route matches, but there is no usable model {name}; see `secondread models list`"
            yield Decision(
                route=route.name, model=name, series=view, matched=False, reason=reason, trace=trace
            )
            continue
        own = model.series.evaluate(view.attributes)
        both = criteria.Trace(subject="all", verdict=own.verdict, children=(trace, own))
        reason = (
            "the route and the model match" if own.verdict else f"the model does not take it: {in_words(own)}"
        )
        yield Decision(
            route=route.name, model=name, series=view, matched=own.verdict, reason=reason, trace=both
        )


def _guarded(route: RouteRule, view: SeriesView) -> Decision:
    """Whatever the route asks for: a result is not analysed as if it were an image."""
    trace = criteria.Trace(subject="loop guard", verdict=False, test="no result", value=view.guarded)
    reason = f"loop guard: {view.guarded}"
    return Decision(route=route.name, model="", series=view, matched=False, reason=reason, trace=trace)


def in_words(trace: criteria.Trace) -> str:
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


def identity(model_digest: str, sop_instance_uids: Sequence[str], parameters: Mapping[str, Any]) -> str:
    """The identity of a job: SHA-256 of model digest, sorted SOP Instance UIDs and parameters."""
    content = {"model": model_digest, "instances": sorted(sop_instance_uids), "parameters": dict(parameters)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
