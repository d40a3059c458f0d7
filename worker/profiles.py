"""Viewer profiles: which kinds of results go to a destination, given what its people look at them with.

A model's manifest lists the kinds that its author finds useful. `default` sends these. The other profiles choose
among them, and add forms in which their viewer shows the same findings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT = "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A kind that a viewer shows."""

    kind: str
    #: Kinds that hold all that this one shows: a manifest that lists one of them need not list it.
    instead_of: tuple[str, ...] = ()

    def is_had(self, listed: Collection[str]) -> bool:
        """Whether a model whose manifest lists these kinds has what this one shows."""
        return any(kind in listed for kind in (self.kind, *self.instead_of))


_VOXELS = (Form(kind="seg"), Form(kind="labelmap"))
_NUMBERS = (Form(kind="sr"),)
_PICTURES = (Form(kind="key-images"),)
_SELECTION = (Form(kind="key-objects"),)
_OUTLINES = (Form(kind="rtstruct"),)
_DRAWN_OVER = (Form(kind="presentation-state"),)
_PROBABILITIES = (Form(kind="parametric-map"),)
_DERIVED = (Form(kind="image-series"),)
_PRINTED = (Form(kind="pdf", instead_of=("sr",)),)

#: By name; of each row the first form that the model has is sent. A new kind is a line wherever it is shown.
PROFILES: dict[str, tuple[tuple[Form, ...], ...]] = {
    # OHIF 3.13: shows no Key Object Selection, presentation state or FRACTIONAL Segmentation; the report as text, the
    # display report drawn (docs/viewers.md).
    "ohif": (
        _VOXELS,
        _NUMBERS,
        (Form(kind="sr-display", instead_of=("sr",)),),
        _PICTURES,
        _PRINTED,
        _PROBABILITIES,
        _DERIVED,
    ),
    # Weasis 4.7: Segmentations of both kinds, reports as text, key objects as stars in the list.
    "weasis": (
        _VOXELS,
        _NUMBERS,
        _PICTURES,
        _SELECTION,
        _OUTLINES,
        _DRAWN_OVER,
        (Form(kind="fractional"),),
        _DERIVED,
    ),
    # 3D Slicer with its DICOM extensions works with voxels and numbers, and makes its own pictures.
    "slicer": (_VOXELS, _NUMBERS, _OUTLINES, _PROBABILITIES, _DERIVED),
    # A viewer that shows neither Segmentations nor reports: pictures; the report is there for whoever reads it.
    "plain-pacs": (
        (Form(kind="key-images", instead_of=("seg", "labelmap")),),
        _PRINTED,
        _NUMBERS,
        _SELECTION,
        _DRAWN_OVER,
        _DERIVED,
    ),
}
NAMES = (DEFAULT, *PROFILES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a destination's configuration says of the results that it takes."""

    profile: str = DEFAULT
    #: Kinds whose objects are larger, together, are not sent there; None: however large.
    max_megabytes: float | None = None


def kinds(profile: str, listed: Collection[str]) -> tuple[str, ...]:
    """The kinds that a profile takes of a model whose manifest lists these. Raises KeyError for no profile."""
    if profile == DEFAULT:
        return tuple(listed)
    chosen = (next((form.kind for form in row if form.is_had(listed)), None) for row in PROFILES[profile])
    return tuple(kind for kind in chosen if kind is not None)


def sends(
    send_to: Collection[str], terms: Mapping[str, Terms], listed: Collection[str]
) -> dict[str, dict[str, Any]]:
    """What of a model's results goes to each destination, for a job's row: that stays, whatever is set later."""
    return {name: _entry(terms.get(name, Terms()), listed) for name in send_to}


def sends_of_another(
    before: Mapping[str, Mapping[str, Any]], listed: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The same of another model's results, under the terms of a job's row."""
    terms = {
        name: Terms(profile=entry["profile"], max_megabytes=entry["max_megabytes"])
        for name, entry in before.items()
    }
    return sends(terms, terms, listed)


def _entry(terms: Terms, listed: Collection[str]) -> dict[str, Any]:
    return {
        "profile": terms.profile,
        "kinds": list(kinds(terms.profile, listed)),
        "max_megabytes": terms.max_megabytes,
    }


def wanted(sent: Mapping[str, Mapping[str, Any]], listed: Collection[str]) -> tuple[str, ...]:
    """The kinds that a job makes: all that any destination takes; where none takes any, what the manifest lists."""
    union = dict.fromkeys(kind for entry in sent.values() for kind in entry["kinds"])
    return tuple(union) or tuple(listed)


def kept_back(sent: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int]) -> dict[tuple[str, str], str]:
    """Which of the kinds made, by their size in bytes, all objects of it together, do not go to which destination.

    The value says why, for people; "" where the destination's profile does not take the kind.
    """
    found: dict[tuple[str, str], str] = {}
    for name, entry in sent.items():
        cap = entry["max_megabytes"]
        for kind, size in sizes.items():
            if kind not in entry["kinds"]:
                found[kind, name] = ""
            elif cap is not None and size > cap * 1e6:
                found[kind, name] = (
                    f"no {kind} to {name}: it has {size / 1e6:.3g} MB, and at most {cap:g} MB go there "
                    "(max_megabytes)"
                )
    return found


def left_empty(sent: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Destinations that get nothing by their profile, for people."""
    return tuple(
        f"nothing goes to {name}: its profile {entry['profile']} takes nothing that the model lists"
        for name, entry in sent.items()
        if not entry["kinds"]
    )
