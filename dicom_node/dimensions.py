"""In what images at one position differ, in words."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.datadict import dictionary_description, dictionary_has_tag
from pydicom.dataset import Dataset

from dicom_node import elements

#: What a series may have several of at each position, and the attributes that say so.
_KNOWN = (
    ("points in time", ("TemporalPositionIndex", "TemporalPositionIdentifier", "TemporalPositionTimeOffset")),
    ("cardiac phases", ("NominalCardiacTriggerDelayTime", "TriggerTime")),
    ("echoes", ("EffectiveEchoTime", "EchoTime", "EchoNumbers")),
    ("b-values", ("DiffusionBValue",)),
    ("diffusion directions", ("DiffusionDirectionality", "DiffusionGradientDirectionSequence")),
    ("kinds of image", ("ImageType", "ComplexImageComponent")),
    ("reconstruction kernels", ("ConvolutionKernel",)),
    ("tube voltages", ("KVP",)),
    ("stacks", ("StackID",)),
)


def differing(images: Sequence[Dataset]) -> list[str]:
    """What the images have several of, e.g. "b-values"; nothing where their headers do not say."""
    known = [what for what, keywords in _KNOWN if any(_differ(images, keyword) for keyword in keywords)]
    return known or _indexed(images)


def _differ(images: Sequence[Dataset], keyword: str) -> bool:
    return len({elements.text(ds, keyword) for ds in images} - {""}) > 1


def _indexed(images: Sequence[Dataset]) -> list[str]:
    """The dimensions in which multi-frame images order their frames, where these differ (PS3.3 C.7.6.17)."""
    dimensions = elements.value(images[0], "DimensionIndexSequence") or ()
    values = [elements.numbers(ds, "DimensionIndexValues", len(dimensions)) for ds in images]
    found = []
    for place, dimension in enumerate(dimensions):
        if len({None if one is None else float(one[place]) for one in values}) > 1:
            tag = elements.value(dimension, "DimensionIndexPointer")
            known = tag is not None and dictionary_has_tag(tag)
            found.append(
                f"values of {dictionary_description(tag)}" if known else "values of a private attribute"
            )
    return found
