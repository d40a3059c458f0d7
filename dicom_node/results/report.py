"""A report in words, as a doctor reads it: what was found, measured and compared, and what it rests on.

It is one content in three places: the SR's text, the printed page, and the page of the job. It holds no
patient's name or number; where it is printed, who it is about stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from dicom_node import elements
from dicom_node.results import boxes, report_phrases, report_tables, segments
from dicom_node.results.context import ResultContext
from dicom_node.results.report_phrases import Phrases
from dicom_node.results.report_tables import Row
from dicom_node.results.wording import Wording
from engines.findings import Finding, Findings, Urgency


class Weight(StrEnum):
    """How much a line of the conclusion weighs; in this order they stand."""

    URGENT = "urgent"
    PRESENT = "present"
    ABSENT = "absent"
    #: No statement about the patient, or none alone.
    REMARK = "remark"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conclusion:
    """One line of the conclusion."""

    weight: Weight
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows under heads; the first two columns say what and where."""

    heading: str
    #: What must be said before; "" where nothing.
    said: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WordedReport:
    """The whole report; every text is one line without control characters."""

    language: str
    title: str
    #: How it is to be taken: before anything else.
    standing: str
    about: str
    conclusion: str
    conclusions: tuple[Conclusion, ...]
    measurements: Table
    comparison: Table
    limits: str
    #: What it rests on, and what it lacks.
    limitations: tuple[str, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those of its tables that say anything."""
        return tuple(each for each in (self.measurements, self.comparison) if each.rows or each.said)


def worded(context: ResultContext, findings: Findings) -> WordedReport:
    """The report in the context's language. ValueError where there is no such language."""
    phrases = report_phrases.of(context, findings)
    words = phrases.words
    model = context.model
    return WordedReport(
        language=context.language,
        title=phrases.line(words.title.format(name=model.name, version=model.version)),
        standing=words.gap.join(
            [words.not_verified, *([words.research_only] if model.research_only else [])]
        ),
        about=_about(context, phrases),
        conclusion=words.conclusion,
        conclusions=tuple(_conclusions(context, findings, phrases)),
        measurements=Table(
            heading=words.measurements,
            said="",
            columns=words.columns,
            rows=(
                *report_tables.found(context, findings, phrases),
                *report_tables.measured(findings, phrases),
            ),
        ),
        comparison=_comparison(context, findings, phrases),
        limits=words.limits,
        limitations=tuple(_limitations(context, findings, phrases)),
    )


def text(report: WordedReport) -> str:
    """The report as a text file has it."""
    parts = [[report.title, report.standing, report.about]]
    parts.append([report.conclusion, *(f"- {item.text}" for item in report.conclusions)])
    for table in report.tables:
        parts.append([table.heading, *([table.said] if table.said else [])])
        parts[-1] += [f"- {line}" for line in lines_of(table, report.language)]
    parts.append([report.limits, *(f"- {line}" for line in report.limitations)])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def lines_of(table: Table, language: str) -> list[str]:
    """A table's rows as sentences: "Volume, Left lung: 2346 mL"."""
    words = report_phrases.wording(language)
    return [_sentence(row, table.columns, words) for row in table.rows]


def _sentence(row: Row, columns: tuple[str, ...], words: Wording) -> str:
    """One row: the first value is understood, the others are said with their heads."""
    subject = words.comma.join(row[:2])
    if len(columns) == len(report_tables.MEASURED):
        value, threshold = row[2:]
        return f"{subject}{words.colon}{value}" + (words.aside.format(threshold) if threshold else "")
    said = [f"{head}{words.colon}{value}" for head, value in zip(columns[2:], row[2:], strict=True) if value]
    return f"{subject}{words.colon}{words.comma.join(said)}"


def _about(context: ResultContext, phrases: Phrases) -> str:
    """What was looked at."""
    words, header = phrases.words, context.header
    parts = [
        elements.text(header, "Modality"),
        phrases.study(elements.text(header, "StudyDate"), elements.text(header, "SeriesDescription")),
    ]
    images, what = len(context.source.datasets), words.comma.join(part for part in parts if part)
    said = (words.about if images > 1 else words.about_one).format(images=images, what=what)
    return phrases.line("".join([said, *_beside(context, words)]))


def _beside(context: ResultContext, words: Wording) -> Iterator[str]:
    """The further series that were looked at."""
    for role, instances in context.others.items():
        header = instances[0]
        description = elements.text(header, "SeriesDescription")
        parts = [
            elements.text(header, "Modality"),
            words.series.format(description=description) if description else "",
        ]
        what = "".join(words.comma + part for part in parts if part)
        yield words.beside.format(role=role, images=len(instances), what=what)


def _conclusions(context: ResultContext, findings: Findings, phrases: Phrases) -> Iterator[Conclusion]:
    """The findings by weight, before them what they come to, after them what was not found at all."""
    words = phrases.words
    stated = [Conclusion(weight=_weight(item), text=phrases.statement(item)) for item in findings.findings]
    stated.sort(key=lambda item: list(Weight).index(item.weight))
    made = [*_found(findings, phrases), *_derived(findings, phrases)]
    if stated and stated[0].weight is Weight.ABSENT and not made:
        yield Conclusion(weight=Weight.ABSENT, text=words.none_present)
    if not stated and not made:
        empty = not segments.has_voxels(findings) and not findings.measurements
        yield Conclusion(weight=Weight.REMARK, text=words.nothing if empty else words.no_statement)
    # Urgent ones before anything else.
    urgent = [item for item in stated if item.weight is Weight.URGENT]
    yield from urgent
    yield from made
    yield from stated[len(urgent) :]
    lacking = [item for item in findings.segments if not segments.is_present(findings, item.number)]
    if lacking:
        labels = words.comma.join(phrases.segment(item) for item in lacking)
        yield Conclusion(weight=Weight.REMARK, text=words.not_segmented.format(labels=labels))


def _found(findings: Findings, phrases: Phrases) -> Iterator[Conclusion]:
    """The boxes, counted by their class."""
    if findings.boxes:
        words = phrases.words
        things = words.comma.join(
            f"{phrases.box(box)}{words.aside.format(count)}" for box, count in boxes.counted(findings)
        )
        yield Conclusion(weight=Weight.PRESENT, text=phrases.line(words.found.format(things=things)))


def _derived(findings: Findings, phrases: Phrases) -> Iterator[Conclusion]:
    """The image that was made."""
    if findings.image is not None:
        said = phrases.words.derived.format(label=findings.image_label)
        yield Conclusion(weight=Weight.REMARK, text=phrases.line(said))


def _weight(finding: Finding) -> Weight:
    """Where a finding stands."""
    if not finding.present:
        return Weight.ABSENT
    return Weight.URGENT if finding.urgency is Urgency.URGENT else Weight.PRESENT


def _comparison(context: ResultContext, findings: Findings, phrases: Phrases) -> Table:
    """What the earlier result says of the same things: numbers, and no words about what they mean."""
    words, earlier = phrases.words, context.comparison
    rows: tuple[Row, ...] = ()
    if earlier is None:
        said = words.nothing_earlier
    else:
        rows = tuple(report_tables.compared(findings, phrases, earlier))
        study = phrases.study(earlier.study_date, earlier.series_description)
        said = words.compared_with.format(study=study, name=context.model.name, version=earlier.model_version)
        said += "" if rows else words.gap + words.nothing_alike
    return Table(
        heading=words.comparison,
        said=phrases.line(said),
        columns=(*words.columns[:2], *words.compared),
        rows=rows,
    )


def _limitations(context: ResultContext, findings: Findings, phrases: Phrases) -> Iterator[str]:
    """What it replaces, what it lacks, what was odd, and who made it of what."""
    words = phrases.words
    reason = segments.unplaced(context)
    lacking = [words.left_out.format(reason=reason)] if reason and segments.has_voxels(findings) else []
    odd = (*context.source.notes, *findings.impossible)
    notes = [words.note.format(note=note) for note in odd]
    intended = phrases.translation.intended_use or context.model.intended_use
    use = [words.intended_use.format(text=intended)] if intended else []
    origin = [
        _model(context, words),
        words.made.format(version=context.secondread_version, moment=f"{context.local_time:%Y-%m-%d %H:%M}"),
    ]
    yield from map(phrases.line, chain(_history(context, words), lacking, notes, use, origin))


def _history(context: ResultContext, words: Wording) -> Iterator[str]:
    """Whose place it takes, and what destinations were told before."""
    earlier = context.predecessor
    if earlier is not None:
        moment = context.on_study_clock(earlier.created_at)
        yield words.replaces.format(
            revision=context.revision, earlier=earlier.revision, moment=f"{moment:%Y-%m-%d %H:%M:%S}"
        )
    if context.announced:
        yield words.performed_after_all


def _model(context: ResultContext, words: Wording) -> str:
    """Which model, exactly, and where it ran."""
    model = context.model
    return words.model.format(
        name=model.name,
        version=model.version,
        manufacturer=model.manufacturer,
        digest=model.digest[:12],
        engine=context.ran_on,
    )
