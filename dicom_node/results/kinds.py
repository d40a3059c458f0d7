"""The kinds of result objects: what makes one, and what compares it with the findings once it is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from dicom_node.results import (
    fractional,
    key_images,
    key_objects,
    labelmap,
    parametric_map,
    pdf,
    presentation_state,
    rtstruct,
    seg,
    segments,
    sr,
    sr_display,
    verify_fractional,
    verify_key_images,
    verify_key_objects,
    verify_labelmap,
    verify_parametric_map,
    verify_pdf,
    verify_presentation_state,
    verify_rtstruct,
    verify_seg,
    verify_sr,
    verify_sr_display,
)
from dicom_node.results.context import ResultContext
from engines.findings import Findings


class Writer(Protocol):
    """A module that makes objects of one kind."""

    def build(
        self, context: ResultContext, findings: Findings, made: Mapping[str, Dataset], /
    ) -> Dataset | None:
        """The object, given those `made` before it by kind; None where the findings have nothing for it."""


class Gate(Protocol):
    """A module that reads objects of one kind."""

    def check(
        self, ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str], /
    ) -> None:
        """Compare an object, as read from disk, with the findings and the kinds `made` before it.

        Raises GateError that says what differs.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of result object."""

    writer: Writer
    gate: Gate
    #: Why a source cannot carry it, for people; "" where it can.
    unfit: Callable[[ResultContext], str] = lambda _: ""
    #: Why findings are too much for it, for people; "" where they are not.
    excessive: Callable[[Findings], str] = lambda _: ""
    #: The kinds that it refers to where they were made: where one of them may not leave, neither may it.
    refers_to: tuple[str, ...] = ()


#: By name, in the order in which they are made. `context.KINDS` has the same names, as a series list shows them.
MADE: dict[str, Kind] = {
    "seg": Kind(writer=seg, gate=verify_seg, unfit=segments.unplaced),
    "labelmap": Kind(writer=labelmap, gate=verify_labelmap, unfit=segments.unplaced),
    "rtstruct": Kind(
        writer=rtstruct, gate=verify_rtstruct, unfit=segments.without_place, excessive=rtstruct.excessive
    ),
    "parametric-map": Kind(writer=parametric_map, gate=verify_parametric_map, unfit=segments.without_place),
    "fractional": Kind(writer=fractional, gate=verify_fractional, unfit=segments.unplaced),
    "presentation-state": Kind(
        writer=presentation_state,
        gate=verify_presentation_state,
        unfit=presentation_state.unfit,
        excessive=presentation_state.excessive,
    ),
    "key-images": Kind(writer=key_images, gate=verify_key_images),
    "sr": Kind(writer=sr, gate=verify_sr, refers_to=segments.KINDS),
    "sr-display": Kind(writer=sr_display, gate=verify_sr_display),
    "pdf": Kind(writer=pdf, gate=verify_pdf),
}
#: It names all others that were made.
MADE["key-objects"] = Kind(writer=key_objects, gate=verify_key_objects, refers_to=tuple(MADE))
