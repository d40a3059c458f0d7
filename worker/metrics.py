"""Metrics for Prometheus, derived from rows when they are asked for: any web process tells the whole story.

Labels are states, roles, kinds, and the names of installed models; never a UID, a peer's answer or
anything of a patient.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from db import commitment_requests, figures, troubles
from db.states import DeliveryState, JobState, RequestState, StudyState
from worker import retention, space, status, version, views
from worker.station import Station

#: Stage durations are those of so many newest jobs.
STAGE_WINDOW = 500
_QUANTILES = (0.5, 0.95)
#: Kinds of events that are there from the start; two are the loop guard's, by series and by image.
_KINDS = ("rejected", "refused", troubles.FAILS, "guarded", "refused-by-guard", "fallback")


class RowCollector(Collector):
    """Reads every figure in one short transaction."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now. Raises what the database raises."""
        with self._station.database.read() as session:
            snapshot = status.snapshot(session)
            arrived = figures.arrivals(session)
            happened = figures.events_by_kind(session)
            stages = figures.stage_seconds(session, limit=STAGE_WINDOW)
            kept = retention.figures(session, datetime.now(UTC))
            asked = commitment_requests.count_by_state(session)
            in_place = figures.on_fallback(session)
        yield _labelled(
            GaugeMetricFamily(
                "secondread_build", "The version of this process; always 1.", labels=["version"]
            ),
            {version.VERSION: 1},
        )
        yield from _counts(snapshot)
        yield GaugeMetricFamily(
            "secondread_oldest_waiting_job_seconds",
            "Age of the queued job that waits longest; 0 where none waits.",
            value=snapshot.oldest_job_seconds,
        )
        yield CounterMetricFamily(
            "secondread_instances_received", "Images that arrived, duplicates not counted.", value=arrived
        )
        yield _labelled(
            CounterMetricFamily(
                "secondread_events",
                "What was noted for the admin, by kind: rejected (associations), refused (images), ...",
                labels=["kind"],
            ),
            {kind: happened.get(kind, 0) for kind in {*_KINDS, *happened}},
        )
        yield GaugeMetricFamily(
            "secondread_storage_free_bytes",
            "Free space on the spool's disk.",
            value=space.free_bytes(self._station.settings.storage),
        )
        yield _labelled(
            GaugeMetricFamily(
                "secondread_commitment_requests",
                "Storage commitment requests of peers by state.",
                labels=["state"],
            ),
            _with_zeros(RequestState, asked),
        )
        yield _fallback(in_place)
        yield from _kept(kept)
        yield stage_quantiles(stages)


def _fallback(found: figures.OnFallback | None) -> Metric:
    """How many jobs in a row did not run on the GPU that is configured; 0 where the newest did."""
    return GaugeMetricFamily(
        "secondread_jobs_on_fallback",
        "Newest jobs in a row that did not run on the GPU that is configured; 0 where the newest did.",
        value=found.count if found is not None else 0,
    )


def _kept(kept: retention.Figures) -> Iterator[Metric]:
    """Space: for how long there is too little, what may go, what is going."""
    for name, text, value in (
        (
            "space_short_seconds",
            "For how long images are refused for want of space; 0 where they are taken.",
            kept.short_seconds,
        ),
        ("doomed_files", "Purged files that are still to be deleted.", kept.doomed),
        (
            "oldest_purgeable_seconds",
            "Age of the last image of the oldest study whose files may be deleted; 0 where there is none.",
            kept.oldest_seconds,
        ),
    ):
        yield GaugeMetricFamily(f"secondread_{name}", text, value=value)


def _counts(snapshot: views.Snapshot) -> Iterator[Metric]:
    """Rows by state, states without rows included: a graph needs the zero."""
    for name, states, counted in (
        ("studies", StudyState, snapshot.studies),
        ("jobs", JobState, snapshot.jobs),
        ("deliveries", DeliveryState, snapshot.deliveries),
    ):
        family = GaugeMetricFamily(f"secondread_{name}", f"{name.capitalize()} by state.", labels=["state"])
        yield _labelled(family, _with_zeros(states, counted))
    yield _labelled(
        GaugeMetricFamily("secondread_processes", "Living processes by role.", labels=["role"]),
        snapshot.processes,
    )


def _with_zeros(states: type[StrEnum], counted: Mapping[str, int]) -> dict[str, int]:
    return {state.value: counted.get(state.value, 0) for state in states}


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, int]
) -> GaugeMetricFamily | CounterMetricFamily:
    """The family with one sample per label value."""
    for label, value in sorted(values.items()):
        family.add_metric([label], value)
    return family


def stage_quantiles(stages: Mapping[tuple[str, str], list[float]]) -> Metric:
    """Quantiles over a window of jobs: gauges, because a window's sums go down as well as up."""
    family = GaugeMetricFamily(
        "secondread_job_stage_seconds",
        f"Seconds per stage over the newest {STAGE_WINDOW} analysed jobs.",
        labels=["model", "stage", "quantile"],
    )
    for (model, stage), seconds in sorted(stages.items()):
        for quantile in _QUANTILES:
            family.add_metric([model, stage, str(quantile)], _quantile(seconds, quantile))
    return family


def _quantile(values: list[float], quantile: float) -> float:
    """A quantile by linear interpolation."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(quantile * 100) - 1]


def registry(station: Station) -> CollectorRegistry:
    """A registry that holds nothing but ours: no process-wide globals, safe in tests."""
    made = CollectorRegistry()
    made.register(RowCollector(station))
    return made
