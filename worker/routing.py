"""Which model takes which series of a study, purely from attributes, with the trace that decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker import casting, criteria, profiles, turns
from worker.casting import InputRule, SeriesView

__all__ = ["Decision", "InputRule", "ModelRule", "RouteRule", "SeriesView", "decide", "identity"]


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
    #: Its inputs; results lie on the series of the first.
    inputs: tuple[InputRule, ...]
    #: Kinds of results that its manifest lists.
    results: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a route (and, where it matched, a model) said about a series, or a model of several about their study."""

    route: str
    model: str
    #: None where it is about the study.
    series: SeriesView | None
    matched: bool
    #: In words.
    reason: str
    trace: criteria.Trace
    #: What the job that follows is about, by the model's roles; empty where none follows.
    taken: Mapping[str, SeriesView] = field(default_factory=dict)


def decide(
    routes: Sequence[RouteRule],
    models: Mapping[str, ModelRule],
    series: Sequence[SeriesView],
    *,
    beside: Sequence[SeriesView] = (),
) -> list[Decision]:
    """Ask every route about every series of a study; where it matches, ask its models too.

    A model of several series is asked about all that the route matches at once. `beside` are series of the same study
    that are not asked about now, and may have a role in it.
    """
    return [decision for route in routes for decision in _by_route(route, models, series, beside)]


def _by_route(
    route: RouteRule,
    models: Mapping[str, ModelRule],
    series: Sequence[SeriesView],
    beside: Sequence[SeriesView],
) -> Iterator[Decision]:
    """One route about a study: about each series, then for each of its models of several."""
    several = [models[name] for name in route.run if name in models and len(models[name].inputs) > 1]
    casts = _casts(route, several, [*series, *beside]) if several else {}
    for view in series:
        yield from _ask(route, models, view, casts)
    for name, made in casts.items():
        yield Decision(
            route=route.name,
            model=name,
            series=None,
            matched=not made.problem,
            reason=made.reason,
            trace=made.trace,
            taken=made.taken,
        )


def _casts(
    route: RouteRule, several: Sequence[ModelRule], views: Sequence[SeriesView]
) -> dict[str, casting.Cast]:
    """The roles of each model of several series; none where the route matches no series at all."""
    traces = [(view, route.when.evaluate(view.attributes)) for view in views if not view.guarded]
    allowed = [view for view, trace in traces if trace.verdict]
    barred = [(view, criteria.in_words(trace)) for view, trace in traces if not trace.verdict]
    return {rule.name: casting.cast(rule.inputs, allowed, barred) for rule in several} if allowed else {}


def _ask(
    route: RouteRule,
    models: Mapping[str, ModelRule],
    view: SeriesView,
    casts: Mapping[str, casting.Cast],
) -> Iterator[Decision]:
    """One route about one series: one decision where it does not match, else one for each model."""
    if view.guarded:
        yield _guarded(route, view)
        return
    trace = route.when.evaluate(view.attributes)
    if not trace.verdict:
        reason = f"the route does not match: {criteria.in_words(trace)}"
        yield Decision(route=route.name, model="", series=view, matched=False, reason=reason, trace=trace)
        return
    for name in route.run:
        model = models.get(name)
        if model is None:
            reason = f"the route matches, but there is no usable model {name}; see `secondread models list`"
            yield Decision(
                route=route.name, model=name, series=view, matched=False, reason=reason, trace=trace
            )
        elif name in casts:
            yield _of_roles(route, model, view, trace, casts[name])
        else:
            yield _of_one(route, model, view, trace)


def _of_one(route: RouteRule, model: ModelRule, view: SeriesView, trace: criteria.Trace) -> Decision:
    """A model of one series about a series that the route matches."""
    (entry,) = model.inputs
    own = entry.series.evaluate(view.attributes)
    return Decision(
        route=route.name,
        model=model.name,
        series=view,
        matched=own.verdict,
        reason="the route and the model match"
        if own.verdict
        else f"the model does not take it: {criteria.in_words(own)}",
        trace=criteria.Trace(subject="all", verdict=own.verdict, children=(trace, own)),
        taken={entry.role: view} if own.verdict else {},
    )


def _of_roles(
    route: RouteRule, model: ModelRule, view: SeriesView, trace: criteria.Trace, made: casting.Cast
) -> Decision:
    """A model of several series about one of those that the route matches: its role, or why it has none."""
    said = casting.about(view, model.inputs, made)
    both = criteria.Trace(subject="all", verdict=said.verdict, children=(trace, said.trace))
    return Decision(
        route=route.name,
        model=model.name,
        series=view,
        matched=said.verdict,
        reason=said.reason,
        trace=both,
    )


def _guarded(route: RouteRule, view: SeriesView) -> Decision:
    """Whatever the route asks for: a result is not analysed as if it were an image."""
    trace = criteria.Trace(subject="loop guard", verdict=False, test="no result", value=view.guarded)
    reason = f"loop guard: {view.guarded}"
    return Decision(route=route.name, model="", series=view, matched=False, reason=reason, trace=trace)


def identity(model_digest: str, sop_instance_uids: Sequence[str], parameters: Mapping[str, Any]) -> str:
    """The identity of a job: SHA-256 of model digest, sorted SOP Instance UIDs and parameters."""
    content = {"model": model_digest, "instances": sorted(sop_instance_uids), "parameters": dict(parameters)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
