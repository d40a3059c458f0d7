"""The parts of a report's sentences: what things are called, numbers with their units, statements."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from dicom_node.results.context import ResultContext
from dicom_node.results.wording import LANGUAGES, Wording
from engines import printing
from engines.findings import Box, Finding, Findings, Measurement, Segment, Translation

#: A line that is longer than this is cut; so is a name of a thing.
_LONGEST_LINE, _LONGEST_NAME = 1000, 80
#: Segments that are measured together are named up to so many.
_MOST_NAMES = 4

#: Letters that show nothing, or change the direction of what follows: a line could read other than it is.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrases:
    """How one answer is said in one language."""

    words: Wording
    #: The model's own words; what is not among them stays as the model says it.
    translation: Translation
    findings: Findings

    def line(self, text: str) -> str:
        """Some text as one line that reads as it is written."""
        return clean(text, _LONGEST_LINE)

    def segment(self, segment: Segment) -> str:
        """What a segment is called."""
        return clean(self.translation.segments.get(segment.number) or segment.label, _LONGEST_NAME)

    def box(self, box: Box) -> str:
        """What the class of a box is called."""
        return clean(self.translation.findings.get(box.key) or box.label, _LONGEST_NAME)

    def measurement(self, measurement: Measurement) -> str:
        """What is measured, with its derivation."""
        translated = self.translation.measurements.get(measurement.key)
        if translated:
            return clean(translated, _LONGEST_NAME)
        if measurement.about is not None:
            about = self.translation.findings.get(measurement.key) or measurement.about.meaning
            return self.words.probability.format(about=clean(about, _LONGEST_NAME))
        derived = measurement.derivation
        name = clean(measurement.name.meaning, _LONGEST_NAME)
        return f"{name}{self.words.comma}{clean(derived.meaning.lower(), _LONGEST_NAME)}" if derived else name

    def finding(self, finding: Finding) -> str:
        """What a finding is called."""
        return clean(self.translation.findings.get(finding.key) or finding.code.meaning, _LONGEST_NAME)

    def where(self, measurement: Measurement) -> str:
        """Where something was measured: a segment, several together ("A + B"), or the whole image."""
        if measurement.segment_number is not None:
            numbers = {measurement.segment_number}
        else:
            same = [item for item in self.findings.measurements if item.key == measurement.key]
            numbers = {item.segment_number for item in same if item.segment_number is not None}
        names = [self.segment(item) for item in self.findings.segments if item.number in numbers]
        if len(names) > _MOST_NAMES:
            more = self.words.more.format(count=len(names) - _MOST_NAMES + 1)
            names = [*names[: _MOST_NAMES - 1], more]
        return " + ".join(names) or self.words.whole_image

    def study(self, date: str, description: str) -> str:
        """A study by its date, and the series of it."""
        said = self.words.study_of.format(date=iso(date) or self.words.undated)
        name = clean(description, _LONGEST_NAME)
        if not name:
            return said
        return self.words.compared_series.format(
            study=said, series=self.words.series.format(description=name)
        )

    def statement(self, finding: Finding) -> str:
        """A finding in words, with the numbers that decided and the threshold that they were held against."""
        words = self.words
        said = f"{self.finding(finding)}{words.colon}{words.present if finding.present else words.absent}"
        because = "; ".join(self._decided(finding, item) for item in finding.deciding) or finding.explanation
        said += words.aside.format(because) if because else ""
        urgent = finding.present and finding.urgency == "urgent"
        return self.line(f"{words.urgent}{words.colon}{said}" if urgent else said)

    def _decided(self, finding: Finding, measurement: Measurement) -> str:
        """One number that decided."""
        words = self.words
        value = self.value(measurement, unlike=finding.bounds)
        bound = words.threshold.format(bound=self.bound(finding, measurement.unit.value))
        # A class is of the whole image, and so is what it is compared with.
        where = [self.where(measurement)] if measurement.about is None else []
        subject = words.comma.join([self.measurement(measurement), *where])
        return f"{subject}{words.colon}{value}{words.comma}{bound}"

    def value(self, measurement: Measurement, *, unlike: tuple[float | None, ...] = ()) -> str:
        """The number with its unit, or that there is none."""
        if not math.isfinite(measurement.value):
            return self.words.not_computed
        return quantity(measurement.value, measurement.unit.value, unlike=unlike)

    def bound(self, finding: Finding, ucum: str) -> str:
        """A finding's threshold, in the unit of what it is held against."""
        low, high, least = finding.bounds
        if least is not None:
            return self.words.at_least.format(value=quantity(least, ucum))
        if low is not None and high is not None:
            return self.words.between.format(low=quantity(low, ucum), high=quantity(high, ucum))
        if low is not None:
            return self.words.above.format(value=quantity(low, ucum))
        return self.words.below.format(value=quantity(high, ucum)) if high is not None else ""


def of(context: ResultContext, findings: Findings) -> Phrases:
    """How this answer is said. ValueError where there is no such language."""
    return Phrases(
        words=wording(context.language),
        translation=context.model.words.get(context.language, Translation()),
        findings=findings,
    )


def wording(language: str) -> Wording:
    """A language's sentences. ValueError where there is no such language."""
    if language not in LANGUAGES:
        raise ValueError(f"no report can be written in {language!r}; languages: {', '.join(LANGUAGES)}")
    return LANGUAGES[language]


def clean(text: str, longest: int) -> str:
    """One line of letters that can be seen, in logical order, with an ellipsis where it was longer."""
    spaced = re.sub(r"\s+", " ", text)
    seen = "".join(letter for letter in spaced if unicodedata.category(letter) not in _UNSEEN).strip()
    return seen if len(seen) <= longest else seen[: longest - 1].rstrip() + "…"


def iso(date: str) -> str:
    """A date (PS3.5 6.2, DA) as 2026-03-02; "" where it is none."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else ""


def quantity(value: float, ucum: str, *, unlike: tuple[float | None, ...] = ()) -> str:
    """A finite number with its unit."""
    return f"{printing.number(value, unlike=unlike)} {printing.unit(ucum)}".strip()
