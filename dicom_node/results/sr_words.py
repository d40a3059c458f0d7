"""The report in words within the structured report, line by line, each with the name of what it is."""

from __future__ import annotations

from collections.abc import Iterator

from highdicom import sr
from pydicom.dataset import Dataset

from dicom_node.results import codes, report
from dicom_node.results.context import ResultContext
from engines.findings import Code, Findings

#: Holds statements without numbers; TID 1500 has it for text too (PS3.16).
CONTAINER = Code(value="C0034375", scheme="UMLS", meaning="Qualitative Evaluations")

#: Names of the lines (PS3.16 Annex D).
SUMMARY = Code(value="121111", scheme="DCM", meaning="Summary")
CONCLUSION = Code(value="121077", scheme="DCM", meaning="Conclusion")
PREVIOUS = Code(value="121069", scheme="DCM", meaning="Previous Finding")


def container(context: ResultContext, findings: Findings) -> sr.ContainerContentItem:
    """The report as a container of lines (PS3.16 TID 1500)."""
    made = sr.ContainerContentItem(
        name=codes.concept(CONTAINER), is_content_continuous=False, relationship_type="CONTAINS"
    )
    items = [
        sr.TextContentItem(name=codes.concept(name), value=text, relationship_type="CONTAINS")
        for name, text in lines(context, findings)
    ]
    made.ContentSequence = sr.ContentSequence(items)
    return made


def lines(context: ResultContext, findings: Findings) -> Iterator[tuple[Code, str]]:
    """What each line is, and the line: all of the report but the headings, in its order."""
    words = report.worded(context, findings)
    for text in (words.title, words.standing, words.about):
        yield SUMMARY, text
    for item in words.conclusions:
        yield CONCLUSION, item.text
    for name, table in ((codes.FINDING, words.measurements), (PREVIOUS, words.comparison)):
        for text in [*([table.said] if table.said else []), *report.lines_of(table, words.language)]:
            yield name, text
    for text in words.limitations:
        yield codes.COMMENT, text


def read(ds: Dataset) -> list[tuple[Code, str]]:
    """The lines of every such container of a report, as read from disk."""
    return [
        (codes.read(item.ConceptNameCodeSequence[0]), str(item.TextValue))
        for container in ds.get("ContentSequence") or ()
        if container.ValueType == "CONTAINER"
        and codes.read(container.ConceptNameCodeSequence[0]) == CONTAINER
        for item in container.ContentSequence
        if item.ValueType == "TEXT"
    ]
