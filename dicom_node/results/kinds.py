"""The kinds of result objects: what makes one, and what compares it with the findings once it is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from dicom_node.results import (
    fractional,
    image_series,
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
    verify_image_series,
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


class SeriesWriter(Protocol):
    """A module that makes several objects of one kind, all in one series."""

    def each(self, context: ResultContext, findings: Findings, /) -> Iterator[Dataset]:
        """The objects in their order, one at a time; none where the findings have nothing for it."""

    def middle(self, context: ResultContext, /) -> int:
        """Which of them, from 0, stands for all where one must."""

    def uid(self, context: ResultContext, number: int, /) -> str:
        """The SOP Instance UID of one, from 0."""


class SeriesGate(Protocol):
    """A module that reads such objects."""

    def checker(self, context: ResultContext, findings: Findings, /) -> Callable[[Dataset, int], None]:
        """What compares one object, as read from disk, with the findings; it is given its number, from 0.

        It raises GateError that says what differs.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class _Terms:
    """What is asked of every kind before it is made."""

    #: Why a source cannot carry it, for people; "" where it can.
    unfit: Callable[[ResultContext], str] = lambda _: ""
    #: Why findings are too much for it, for people; "" where they are not.
    excessive: Callable[[Findings], str] = lambda _: ""
    #: The kinds that it refers to where they were made: where one of them may not leave, neither may it.
    refers_to: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind(_Terms):
    """One kind of result object."""

    writer: Writer
    gate: Gate


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesKind(_Terms):
    """One kind of result of which there are many objects."""

    writer: SeriesWriter
    gate: SeriesGate


#: By name, in the order in which they are made. `context.KINDS` has the same names, as a series list shows them.
MADE: dict[str, Kind | SeriesKind] = {
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
    "image-series": SeriesKind(
        writer=image_series, gate=verify_image_series, excessive=image_series.excessive
    ),
    "sr": Kind(writer=sr, gate=verify_sr, refers_to=segments.KINDS),
    "sr-display": Kind(writer=sr_display, gate=verify_sr_display),
    "pdf": Kind(writer=pdf, gate=verify_pdf),
}
#: It names all others that were made.
MADE["key-objects"] = Kind(writer=key_objects, gate=verify_key_objects, refers_to=tuple(MADE))


def part_uid(name: str, context: ResultContext, number: int) -> str:
    """The SOP Instance UID of one of the many objects of a kind, from 0."""
    kind = MADE[name]
    assert isinstance(kind, SeriesKind)
    return kind.writer.uid(context, number)
