"""What a report says, group by group, before it is encoded and after it is read back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from dicom_node.results import boxes, segments
from dicom_node.results.boxes import Placed
from dicom_node.results.context import ResultContext
from engines.findings import Finding, Findings, Measurement, Segment, Urgency


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One measurement group of the report."""

    tracking_uid: str
    #: For people.
    tracking_id: str
    #: The segments that it is about; none: the whole image.
    segments: tuple[Segment, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    #: The statement that it makes, if it makes one.
    finding: Finding | None = None
    #: The box that it is about, if it is about one.
    box: Placed | None = None
    #: In words; "" where there is nothing to add.
    comment: str = ""


def groups(context: ResultContext, findings: Findings) -> tuple[Group, ...]:
    """One group for each segment, for each set of segments measured together, for each class, box and finding.

    There is always at least one: a model that looked and found nothing says so. Where the report takes an
    earlier one's place, that is said first.
    """
    parts = (
        _of_segments(context, findings),
        _of_unions(context, findings),
        _of_classes(context, findings),
        _of_boxes(context, findings),
        _of_findings(context, findings),
    )
    said = tuple(chain.from_iterable(parts)) or (_empty(context, findings),)
    return (*_of_history(context), *said, *_of_what_is_missing(context, findings))


def computed(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Those that are numbers: NaN and infinity have no encoding (PS3.5, DS)."""
    return tuple(item for item in measurements if math.isfinite(item.value))


def _uncomputed(measurements: Iterable[Measurement]) -> list[str]:
    """What the report says of the others.

    In words, since readers stumble over the NUM without a value that PS3.3 C.18.1 allows.
    """
    lost = [item for item in measurements if not math.isfinite(item.value)]
    return [f"{item.name.meaning} ({item.unit.meaning}) could not be computed." for item in lost]


def _of_segments(context: ResultContext, findings: Findings) -> Iterator[Group]:
    """The segments that were measured, and those that were looked for and not found."""
    for segment in findings.segments:
        own = tuple(item for item in findings.measurements if item.segment_number == segment.number)
        words = _absence(findings, segment)
        if own or words:
            yield Group(
                tracking_uid=segments.tracking_uid(context, segment.number),
                tracking_id=segments.tracking_id(context, segment),
                segments=(segment,),
                measurements=computed(own),
                comment=" ".join([words, *_uncomputed(own)]).strip(),
            )


def _of_unions(context: ResultContext, findings: Findings) -> Iterator[Group]:
    """The measurements that name no segment, together with others of the same segments."""
    unions: dict[tuple[int, ...], list[Measurement]] = {}
    for measurement in findings.measurements:
        if measurement.segment_number is None and measurement.about is None:
            unions.setdefault(_measured(findings, {measurement.key}), []).append(measurement)
    for numbers, measurements in unions.items():
        segments = tuple(item for item in findings.segments if item.number in numbers)
        name = " + ".join(item.label for item in segments) or "whole image"
        yield Group(
            tracking_uid=context.uid("tracking", "union", *(str(number) for number in numbers)),
            tracking_id=f"{context.model.name}/{name}",
            segments=segments,
            measurements=computed(measurements),
            comment=" ".join(_uncomputed(measurements)),
        )


def _of_classes(context: ResultContext, findings: Findings) -> Iterator[Group]:
    """The probability of each class, with the statement that it decides.

    The class is the name of the statement and a modifier of the number, not the group's Finding: a reader that
    shows only that would show an absent one as if it were there.
    """
    stated = _of_one_class(findings)
    for measurement in findings.measurements:
        if measurement.about is not None:
            own = stated.get(measurement.key)
            words = [*([_words(own)] if own is not None else []), *_uncomputed([measurement])]
            yield Group(
                tracking_uid=context.uid("tracking", "class", measurement.key),
                tracking_id=f"{context.model.name}/{measurement.about.meaning}",
                measurements=computed([measurement]),
                finding=own,
                comment=" ".join(words),
            )


def _of_one_class(findings: Findings) -> dict[str, Finding]:
    """The statement of each class that has one, by the key of its probability."""
    made: dict[str, Finding] = {}
    abouts = {item.key: item.about for item in findings.measurements if item.about is not None}
    for finding in findings.findings:
        for key in (finding.key, *finding.evidence):
            if abouts.get(key) == finding.code and key not in made:
                made[key] = finding
                break
    return made


def _of_boxes(context: ResultContext, findings: Findings) -> Iterator[Group]:
    """Each box of a detector, with what it measures."""
    slices = findings.geometry.shape[0]
    for item in boxes.placed(findings):
        through = f", slices {item.first + 1} to {item.last + 1} of {slices}" if slices > 1 else ""
        yield Group(
            tracking_uid=boxes.tracking_uid(context, item),
            tracking_id=boxes.tracking_id(context, item),
            measurements=boxes.measurements(item, findings.geometry),
            box=item,
            comment=f"{item.label}{through}",
        )


def _of_findings(context: ResultContext, findings: Findings) -> Iterator[Group]:
    """The other statements, each about the segments whose measurements decided."""
    of_classes = [id(item) for item in _of_one_class(findings).values()]
    for finding in findings.findings:
        if id(finding) in of_classes:
            continue
        numbers = finding.segment_numbers or _measured(findings, set(finding.evidence))
        yield Group(
            tracking_uid=context.uid("tracking", "finding", finding.key),
            tracking_id=f"{context.model.name}/{finding.key}",
            segments=tuple(item for item in findings.segments if item.number in numbers),
            finding=finding,
            comment=_words(finding),
        )


def _of_history(context: ResultContext) -> Iterator[Group]:
    """What the report replaces, where it does."""
    earlier = context.predecessor
    if earlier is not None:
        moment = context.on_study_clock(earlier.created_at)
        yield Group(
            tracking_uid=context.uid("tracking", "revision"),
            tracking_id=f"{context.model.name}/rev {context.revision}",
            comment=(
                f"Rev {context.revision}: replaces rev {earlier.revision} of {moment:%Y-%m-%d %H:%M:%S}, "
                "since images came late or were replaced. "
                f"This report is of {len(context.source.datasets)} images."
            ),
        )
    if context.announced:
        yield Group(
            tracking_uid=context.uid("tracking", "performed"),
            tracking_id=f"{context.model.name}/performed after all",
            comment=(
                'An earlier document says "AI not performed" of this series: it was performed since, and this '
                "report takes that document's place."
            ),
        )


def _of_what_is_missing(context: ResultContext, findings: Findings) -> Iterator[Group]:
    """Why a reader looks for the Segmentation, or for a measurement, in vain."""
    if findings.impossible:
        yield Group(
            tracking_uid=context.uid("tracking", "impossible"),
            tracking_id=f"{context.model.name}/not measured",
            comment=" ".join(f"{words}." for words in findings.impossible),
        )
    reason = segments.unplaced(context)
    if reason and segments.has_voxels(findings):
        yield Group(
            tracking_uid=context.uid("tracking", "unplaced"),
            tracking_id=f"{context.model.name}/no Segmentation",
            comment=f"There is no Segmentation of what was found: {reason}.",
        )


def _empty(context: ResultContext, findings: Findings) -> Group:
    """What is left to say where the model made neither segment, measurement, box nor statement."""
    return Group(
        tracking_uid=context.uid("tracking", "nothing"),
        tracking_id=f"{context.model.name}/nothing found",
        comment=(
            f"The model made a derived series: {findings.image_label}."
            if findings.image is not None
            else "The model ran and reported nothing."
        ),
    )


def _measured(findings: Findings, keys: set[str]) -> tuple[int, ...]:
    """The segments that measurements with these keys were made in, each once.

    A measurement of segments together has no number of its own and the key of those of its parts.
    """
    found = {item.segment_number for item in findings.measurements if item.key in keys}
    return tuple(sorted(number for number in found if number is not None))


def _absence(findings: Findings, segment: Segment) -> str:
    """What the report says of a segment without voxels; "" where there are some.

    In words on purpose: a coded "absent" would say that the patient lacks the organ.
    """
    return (
        "" if segments.is_present(findings, segment.number) else f"No voxel was segmented as {segment.label}."
    )


def _words(finding: Finding) -> str:
    """The finding in words, with its urgency where it has one."""
    words = finding.explanation or f"{finding.code.meaning}: {'present' if finding.present else 'absent'}"
    return f"URGENT: {words}" if finding.present and finding.urgency is Urgency.URGENT else words
