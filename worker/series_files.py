"""The files of a series, as a model's input is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The files of a series."""

    series_instance_uid: str
    paths: Sequence[Path]
    #: The SHA-256 of each, where it is known.
    digests: Sequence[str] = ()
