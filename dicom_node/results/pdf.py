"""Findings -> the report on paper: an Encapsulated PDF that any viewer shows, with its key images."""

from __future__ import annotations

from collections.abc import Mapping

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_node.results import codes, explicit, header, pdf_pages, report, sr
from dicom_node.results.context import ResultContext
from engines.findings import Findings

MIME_TYPE = "application/pdf"


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset:
    """The report in words as pages (PS3.3 A.45.1), which bear the patient's name: see decision 0088."""
    words = report.worded(context, findings)
    ds: Dataset = SOPClass(
        study_instance_uid=str(context.header.StudyInstanceUID),
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **header.constructor(context, "pdf"),
    )
    ds.ConversionType = "WSD"
    ds.AcquisitionDateTime = context.header.get("AcquisitionDateTime") or ""
    ds.BurnedInAnnotation = "YES"
    ds.DocumentTitle = words.title
    ds.ConceptNameCodeSequence = [codes.concept(sr.TITLE)]
    ds.CodingSchemeIdentificationSequence = [sr.coding_scheme()]
    ds.VerificationFlag = "UNVERIFIED"
    sources = [explicit.item(explicit.reference(image)) for image in context.source.instances]
    explicit.set_sequence(ds, 0x00420013, *sources)
    document = pdf_pages.render(context, findings)
    ds.MIMETypeOfEncapsulatedDocument = MIME_TYPE
    ds.EncapsulatedDocumentLength = len(document)
    ds.add_new("EncapsulatedDocument", "OB", document + b"\0" * (len(document) % 2))
    header.finish(ds, context, header.describe(context, ["report"]))
    return ds
