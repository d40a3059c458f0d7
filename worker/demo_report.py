"""The demo's report: one HTML page with the pictures, what was found and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from engines import printing
from engines.findings import Segment
from worker import demo_pacs, views, words
from worker.settings import Settings

#: What each picture shows, by its name.
_CAPTIONS = {
    "axial-1": "Axial, lower quarter",
    "axial-2": "Axial, middle",
    "axial-3": "Axial, upper quarter",
    "coronal": "Coronal, from the front",
    "sagittal": "Sagittal, through the right lung",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What a demo run had to show."""

    folder: Path
    settings: Settings
    study: views.StudyLine
    job: views.JobDetail
    #: What the model can outline, with the colours of the pictures.
    segments: tuple[Segment, ...]
    pacs_name: str
    held: list[demo_pacs.Held]
    #: Seconds of the stages that the demo itself saw.
    seconds: dict[str, float]


def write(path: Path, shown: Shown, pictures: Sequence[Path], *, seconds: float) -> Path:
    """Write the report beside its pictures; returns its path."""
    environment = Environment(
        loader=PackageLoader("worker", "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("demo_report.html").render(
        shown=shown,
        job=shown.job,
        seconds=seconds,
        words=words,
        printing=printing,
        pictures=[
            (picture.relative_to(path.parent).as_posix(), _CAPTIONS.get(picture.stem, picture.stem))
            for picture in pictures
        ],
    )
    path.write_text(page, encoding="utf-8")
    return path
