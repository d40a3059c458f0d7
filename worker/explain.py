"""Answers as trees for a terminal: why a model did or did not run, and what a job did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from engines import printing
from worker import evidence as evidences
from worker import gathered, views, words

_YES, _NO = "[green]yes[/]", "[red]no[/] "
_COLOURS = {
    "done": "green",
    "sent": "green",
    "committed": "green",
    "failed": "red",
    "dead": "red",
    "skipped": "yellow",
}


def why_tree(answer: views.Why) -> Tree:
    """Everything about a study."""
    study = answer.study
    tree = Tree(
        f"[bold]study {study.study_instance_uid}[/]  {_state(study.state)}, revision {study.revision}"
    )
    if study.problem:
        tree.add(f"[red]{escape(study.problem)}[/]")
    if study.purged_at is not None:
        tree.add(f"[yellow]{escape(words.purged(study.purged_at, again=study.state != 'purged'))}[/]")
    images = f"{words.count(study.instances, 'image')} in {len(answer.series) - study.guarded} series"
    more = words.besides(study.set_aside, study.guarded)
    arrived = tree.add(f"arrived: {', '.join(filter(None, [images, more]))}")
    for series in answer.series:
        _add_series(arrived, series, purged=study.state == "purged")
    tree.add(_evidence(answer))
    decided = tree.add("routes" if answer.decisions else "routes: none was asked yet")
    for decision in answer.decisions:
        branch = decided.add(decision_label(decision))
        add_decided(branch, decision)
    ran = tree.add("jobs" if answer.jobs else "jobs: none")
    for job in answer.jobs:
        ran.add(job_tree(job, present=study.revision))
    if answer.events:
        happened = tree.add("events")
        for event in answer.events:
            happened.add(f"{event.at.astimezone():%Y-%m-%d %H:%M:%S} {event.kind}: {escape(event.message)}")
    return tree


def _add_series(arrived: Tree, series: views.SeriesView, *, purged: bool) -> None:
    """What is known of one series."""
    name = escape(series.description or "without description")
    modality = escape(series.modality) or "[yellow]Modality missing[/]"
    held = "purged" if purged else words.count(series.instances, "object" if series.guarded else "image")
    line = arrived.add(f"{modality} {name}, {held}  [dim]{series.series_instance_uid}[/]")
    if said := words.came_again(series.repeated, series.set_aside):
        line.add(said)
    if series.evidence:
        line.add(f"complete before its study: {escape(evidences.in_words(series.evidence))}")
    if series.guarded:
        line.add(f"[yellow]guarded: {escape(series.guarded)}[/]")


def decision_label(decision: views.DecisionLine) -> str:
    """A decision's own line."""
    model = f" -> {decision.model}" if decision.model else ""
    mark = _YES if decision.matched else _NO
    return f"{mark} {escape(decision.route)}{model}: {escape(decision.reason)}  [dim]{decision.series_instance_uid}[/]"


def add_decided(branch: Tree, decision: views.DecisionLine) -> None:
    """A decision's whole trace: the route's tests, and where it matched, its model's beside them."""
    tests = decision.trace.get("children", [])
    if decision.model and [test["subject"] for test in tests] in (["all", "all"], ["all", "roles"]):
        for test, whose in zip(tests, ("route", "model"), strict=True):
            add_trace(branch.add(f"{_YES if test['verdict'] else _NO} {whose}"), test)
    else:
        add_trace(branch, decision.trace)


def add_trace(branch: Tree, trace: dict[str, Any]) -> None:
    """A trace's tests, each with the value that was found."""
    mark = _YES if trace["verdict"] else _NO
    if "children" in trace:
        inner = branch if trace["subject"] in ("all", "roles") else branch.add(f"{mark} {trace['subject']}")
        for child in trace["children"]:
            add_trace(inner, child)
        return
    found = "missing" if trace["value"] is None else f"found {trace['value']!r}"
    branch.add(f"{mark} {trace['subject']} {escape(str(trace['test']))}  [dim]{escape(found)}[/]")


def job_tree(job: views.JobDetail, *, present: int | None = None) -> Tree:
    """Everything about a job, with its revision where that is not the `present` one of its study."""
    older = "" if job.revision == present else f", of revision {job.revision}"
    older += f", replaces job {job.supersedes}" if job.supersedes else ""
    older += f", [yellow]replaced by job {job.replaced_by}[/]" if job.replaced_by else ""
    tree = Tree(
        f"[bold]job {job.id}[/] {job.model} {job.model_version}  "
        f"{_state(job.state)}, {job.priority}, attempt {job.attempts}{older}"
    )
    if job.error:
        tree.add(f"[red]{escape(job.reason)}: {escape(job.error)}[/]")
    for note in [*_given(job), *_next(job), *(f"note: {escape(note)}" for note in job.notes)]:
        tree.add(note)
    if job.roles:
        tree.add("looks at " + ", ".join(f"{escape(role)} {uid}" for role, uid in job.roles.items()))
    if job.engine:
        seconds = ", ".join(f"{stage} {value:.2f}" for stage, value in job.seconds.items())
        tree.add(f"engine {escape(job.engine)}; seconds: {seconds}")
    if job.plan is not None:
        tree.add(f"its plan: {escape(words.compared(job.plan))}")
    for finding in job.findings:
        presence = "present" if finding.present else "absent"
        tree.add(f"[bold]{escape(finding.meaning)}: {presence}[/]  {escape(finding.explanation)}")
    for measured in job.measurements:
        where = escape(measured.segment) or words.TOGETHER
        tree.add(
            f"{escape(measured.meaning)}, {where}: {measured.value:.1f} {escape(printing.unit(measured.unit))}"
        )
    for alike in gathered.objects(job.objects):
        made, count = alike[0], len(alike)
        problem = f"  [red]{escape(made.problem)}[/]" if made.problem else ""
        gone = f"  [yellow]its file was deleted on {made.purged_at:%Y-%m-%d}[/]" if made.purged_at else ""
        named = made.sop_instance_uid if count == 1 else f"{made.series_instance_uid} ({count} images)"
        branch = tree.add(f"{made.kind.upper()} {named}{problem}{gone}")
        uids = {each.sop_instance_uid for each in alike}
        own = [delivery for delivery in job.deliveries if delivery.sop_instance_uid in uids]
        for some in gathered.deliveries(own):
            branch.add(_delivery(some[0]) + (f" ({len(some)} images)" if len(some) > 1 else ""))
    return tree


def _given(job: views.JobDetail) -> Iterator[str]:
    """A job's parameters."""
    for name, value in sorted(job.parameters.items()):
        yield f"given {escape(name)}: {escape(str(value))}"


def _next(job: views.JobDetail) -> Iterator[str]:
    """What the clock will do to a job."""
    if job.not_before:
        yield f"not before {job.not_before.astimezone():%H:%M:%S}, so that others go first"
    if job.deadline_at:
        yield f"is stopped at {job.deadline_at.astimezone():%H:%M:%S} where it has not ended by then"


def _delivery(delivery: views.DeliveryLine) -> str:
    """A delivery's line."""
    again = f", again at {delivery.next_attempt_at.astimezone():%H:%M:%S}" if delivery.next_attempt_at else ""
    warning = " [yellow]with a warning[/]" if delivery.warning else ""
    status = f" {delivery.status}" if delivery.status else ""
    comment = f": {escape(delivery.comment)}" if delivery.comment else ""
    promise = f"; commitment {escape(delivery.commitment)}" if delivery.commitment else ""
    return (
        f"to {escape(delivery.destination)}: {_state(delivery.state)}{warning}{status}"
        f"{again}{comment}{promise}"
    )


def _evidence(answer: views.Why) -> str:
    """Why the study counts as complete, or what it waits for."""
    evidence = answer.evidence
    if answer.waiting_for or evidence is None:
        return f"[yellow]not complete yet[/]; it waits for {escape(', '.join(answer.waiting_for))}"
    carriers = (
        ", ".join(f"{row['peer']} ({row['outcome']})" for row in evidence["associations"]) or "none known"
    )
    return f"complete: {escape(evidences.in_words(evidence))}; carried by {escape(carriers)}"


def _state(state: str) -> str:
    """A state with its colour."""
    return f"[{_COLOURS.get(state, 'yellow')}]{state}[/]"
