"""Findings -> a Key Object Selection: the source's slices that matter, and all results of the run."""

from __future__ import annotations

from collections.abc import Mapping

from highdicom import ko
from pydicom.dataset import Dataset

from dicom_node.frame_header import frame_number
from dicom_node.results import codes, explicit, header, key_slices, observer, references
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A selection (PS3.3 A.35.4, PS3.16 TID 2010) of the key slices and of every object made before it.

    It ties the objects of one run together: whoever finds it finds them all. None where there is nothing
    to select.
    """
    selected = selection(context, findings, made)
    if not selected:
        return None
    document: Dataset = ko.KeyObjectSelectionDocument(
        evidence=[context.stub, *selected],
        content=ko.KeyObjectSelection(
            document_title=codes.concept(codes.OF_INTEREST),
            referenced_objects=selected,
            observer_device_context=observer.device(context),
            description=(
                f"Key slices and all results of {context.model.name} {context.model.version}: "
                f"{header.standing(context)}"
            ),
        ),
        **header.constructor(context, "key-objects"),
    )
    items = [item for item in document.ContentSequence if item.ValueType in ("IMAGE", "COMPOSITE")]
    for item, ds in zip(items, selected, strict=True):
        del item.ConceptNameCodeSequence  # TID 2010 gives its references no purpose; highdicom does
        if (number := frame_number(ds)) is not None:
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = number
    explicit.set_sequence(document, 0x0040A375, _evidence(context, selected))
    header.finish(document, context, header.describe(context, ["key objects"]))
    return document


def selection(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> list[Dataset]:
    """What is selected: the key slices, in their order, then the results; of a derived series its middle image."""
    slices = [context.source.datasets[chosen.index] for chosen in key_slices.choose(findings)]
    return [*slices, *made.values()]


def _evidence(context: ResultContext, selected: list[Dataset]) -> bytes:
    """Each selected instance, once (PS3.3 C.17.2.3)."""
    by_series: dict[str, dict[str, Dataset]] = {}
    for ds in selected:
        by_series.setdefault(str(ds.SeriesInstanceUID), {})[str(ds.SOPInstanceUID)] = ds
    series = [references.of_series(list(instances.values())) for instances in by_series.values()]
    return references.study(context, series)
