"""The gate for a printed report: its bytes are the pages of these findings, and it says what it holds."""

from __future__ import annotations

from collections.abc import Collection

from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import codes, pdf, pdf_pages, report, sr
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a printed report, as read from disk, with the findings. GateError says what differs.

    The same findings make the same bytes, so the pages are made once more and compared whole.
    """
    said = (ds.MIMETypeOfEncapsulatedDocument, ds.BurnedInAnnotation, ds.get("VerificationFlag"))
    if said != (pdf.MIME_TYPE, "YES", "UNVERIFIED"):
        raise GateError("it does not say that it is an unverified PDF which names its patient")
    if ds.DocumentTitle != report.worded(context, findings).title:
        raise GateError("the document's title is not the report's")
    if codes.read(ds.ConceptNameCodeSequence[0]) != sr.TITLE:
        raise GateError("the document's concept name is not the report's")
    sources = [str(item.ReferencedSOPInstanceUID) for item in ds.SourceInstanceSequence]
    if sources != context.source_uids():
        raise GateError("the source instances are not the source images")
    document = pdf_pages.render(context, findings)
    length = ds.EncapsulatedDocumentLength
    if length != len(document) or ds.EncapsulatedDocument[:length] != document:
        raise GateError("the pages are not those of the findings")
