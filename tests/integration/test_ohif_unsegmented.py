"""What the real OHIF shows of models that do not segment: a detector's boxes, and an image that a model made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicom_node.results import boxes, image_series
from engines.volume import Volume
from tests.support import answers, phantoms, sight
from tests.support import results as cases
from tests.support.ohif import Viewer
from tests.support.viewed import store

pytestmark = [pytest.mark.peer("ohif"), pytest.mark.peer("orthanc"), pytest.mark.peer("chromium")]

#: OHIF draws lines in their place where pixels are square (docs/viewers.md).
SQUARE = phantoms.Phantom(spacing=(2.5, 0.7, 0.7))


@pytest.fixture(autouse=True)
def nothing_goes_wrong(viewer: Viewer) -> Iterator[None]:
    """No error in the page, no message, no question, in any test."""
    yield
    assert viewer.troubles() == []


def test_boxes_are_drawn_where_they_say(viewer: Viewer, tmp_path: Path) -> None:
    # Given a detector's boxes in a study
    nothing = np.zeros(SQUARE.shape, np.uint8)
    found = {"mask": nothing, "maps": (), "measurements": (), "findings": (), "boxes": answers.BOXES}
    study = store(viewer.archive, tmp_path, SQUARE, ("sr-display",), **found)
    placed = boxes.placed(cases.findings(study.source, **found))
    # When what is drawn is opened by its address
    report = study.results["sr-display"].series_instance_uid
    viewer.open(study.uid, report, until="eyes.shown() && eyes.drawn().length")
    assert sorted(tool for tool, _ in viewer.measurements()) == ["ArrowAnnotate"] * 3 + ["RectangleROI"] * 3
    # Then each is a rectangle at its coordinates on its image, with its words beside it
    for item in placed:
        viewer.scroll_to(study.image(item.slice))
        seen = viewer.look()
        rectangles = [
            points for kind, points in seen.shapes(SQUARE.shape[1:], SQUARE.spacing[1:]) if kind == "rect"
        ]
        wanted = np.array(item.corners[:4])
        assert any(np.abs(points - wanted).max() < 0.1 for points in rectangles), (item.label, rectangles)
        assert any(words.startswith(f"{item.label}, ") for words in seen.texts())


def test_a_derived_series_opens_with_its_own_values(viewer: Viewer, tmp_path: Path) -> None:
    # Given an image that a model made, which is not the source: it grows brighter from row to row
    phantom = cases.LIES["axial"]
    source = cases.series(phantom)
    rows = np.linspace(-800, 800, phantom.shape[1], dtype=np.float32)[:, None]
    made = Volume(
        array=source.volume.array.astype(np.float32) * np.float32(0.5) + rows,
        geometry=source.volume.geometry,
        unit=source.volume.unit,
    )
    study = store(viewer.archive, tmp_path, phantom, ("image-series",), image=made, image_label="denoised")
    series = study.results["image-series"].series_instance_uid
    # When it is opened by its address, then each image is the model's, in the source's order
    viewer.open(study.uid, series)
    context = cases.context(study.source, job_identity=study.uid)
    everywhere = np.ones(phantom.shape[1:], bool)
    for index in (2, 7):
        viewer.scroll_to(image_series.uid(context, index))
        colours = viewer.look().colours(phantom.shape[1:], phantom.spacing[1:])
        assert sight.likeness(colours, made.array[index], everywhere) > 0.95
        assert sight.likeness(colours, source.volume.array[index], everywhere) < 0.9
    # And it is listed for what it is
    assert any("AI unverified" in each["text"] for each in viewer.listed())
