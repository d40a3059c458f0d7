"""The demo's report: one HTML page with the pictures, what was found and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from worker.demo import Shown

#: What each picture shows, by its name.
_CAPTIONS = {
    "axial-1": "Axial, lower quarter",
    "axial-2": "Axial, middle",
    "axial-3": "Axial, upper quarter",
    "coronal": "Coronal, from the front",
    "sagittal": "Sagittal, through the right lung",
}


def write(path: Path, shown: Shown, pictures: Sequence[Path], *, seconds: float) -> Path:
    """Write the report beside its pictures; returns its path."""
    environment = Environment(
        loader=PackageLoader("worker", "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("demo_report.html").render(
        shown=shown,
        job=shown.job,
        seconds=seconds,
        pictures=[
            (picture.relative_to(path.parent).as_posix(), _CAPTIONS.get(picture.stem, picture.stem))
            for picture in pictures
        ],
    )
    path.write_text(page, encoding="utf-8")
    return path
