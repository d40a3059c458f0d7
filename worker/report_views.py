"""The shape of a report in words, for the page and the API."""

from __future__ import annotations

from pydantic import BaseModel


class ConclusionLine(BaseModel):
    """A line of a report's conclusion."""

    #: urgent, present, absent, or a remark.
    weight: str
    text: str


class ReportTable(BaseModel):
    """A table of a report: the first two columns say what and where."""

    heading: str
    #: What is said before it; "" where nothing is.
    said: str
    columns: list[str]
    rows: list[list[str]]


class ReportView(BaseModel):
    """A report in words, as the job's results have it."""

    #: en or zh.
    language: str
    title: str
    #: How it is to be taken.
    standing: str
    about: str
    #: Heading of the conclusions, most urgent first.
    conclusion: str
    conclusions: list[ConclusionLine]
    measurements: ReportTable
    comparison: ReportTable
    #: Heading of what it rests on and lacks.
    limits: str
    limitations: list[str]
