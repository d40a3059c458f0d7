"""The gate for a Key Object Selection: it selects the key slices and every result made before it, no more."""

from __future__ import annotations

from collections.abc import Collection

from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import image_series, key_slices, references
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a selection, as read from disk, with the findings. GateError says what differs."""
    slices = context.source_slices()
    expected = [slices[chosen.index] for chosen in key_slices.choose(findings)]
    expected += [(_standing(context, kind), None) for kind in made]
    selected = [
        references.read_image(item.ReferencedSOPSequence[0])
        for item in ds.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    ]
    if selected != expected:
        raise GateError("what is selected is not the key slices and the results of this run")
    listed = sorted(
        reference[-1] for reference in references.read(ds, "CurrentRequestedProcedureEvidenceSequence")
    )
    if listed != sorted({uid for uid, _ in expected}):
        raise GateError("the evidence is not what is selected")


def _standing(context: ResultContext, kind: str) -> str:
    """The SOP Instance UID of the object that stands for a kind: of a derived series one image."""
    if kind == image_series.KIND:
        return image_series.uid(context, image_series.middle(context))
    return context.uid(kind, "instance")
