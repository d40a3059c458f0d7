"""What an analysis and a delivery need at hand, and what an analysis leaves to be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from db.base import Database
from dicom_node.results import ResultFile
from dicom_node.results.report import WordedReport
from dicom_node.senders import Destination, Sender
from engines.findings import Findings
from engines.volume import Volume
from worker.lightbox import LightBox
from worker.sections import Work
from worker.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What an analysis needs at hand."""

    database: Database
    shelf: Shelf
    spool_root: Path
    #: Folder of result objects and pictures.
    results_root: Path
    #: Who holds the leases: this process.
    owner: str
    lease: timedelta
    #: Attempts, and how long each may take.
    work: Work = field(default_factory=Work)
    #: Of the reports in words.
    language: str = "en"
    #: Reads series, and keeps the last ones for the next model.
    lightbox: LightBox = field(default_factory=LightBox)
    #: Ends this process, where it may be ended: native code cannot be interrupted.
    end_process: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Post:
    """What a delivery needs at hand."""

    database: Database
    results_root: Path
    destinations: Mapping[str, Destination]
    open_sender: Callable[[Destination], Sender]
    #: `dicom_node.senders.commitment.ask`.
    ask_commitment: Callable[..., None]
    owner: str


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What an analysis leaves to be stored."""

    volume: Volume
    findings: Findings
    files: Sequence[ResultFile]
    notes: tuple[str, ...]
    report: WordedReport
