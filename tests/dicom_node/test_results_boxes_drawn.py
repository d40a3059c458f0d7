"""Boxes in pictures: on the key slices, in their colours, with what they are; and classes beside single images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results, series
from dicom_node.errors import GateError
from dicom_node.results import key_slices, legend, verify
from engines import box_overlay
from engines.volume import Volume
from tests.support import answers, phantoms, planar, validators
from tests.support import results as cases
from worker import pictures

SOURCE = cases.series(cases.LIES["axial"])
FOUND = answers.findings(SOURCE, boxes=answers.BOXES)
KINDS = ("presentation-state", "key-images", "sr", "sr-display", "pdf", "key-objects")


def test_the_key_slices_are_those_through_the_boxes() -> None:
    assert [(slice_.index, slice_.boxes) for slice_ in key_slices.choose(FOUND)] == [
        (0, (2,)),
        (4, (0,)),
        (8, (1,)),
    ]


def test_many_boxes_are_on_the_slices_of_the_most_certain() -> None:
    shape = (40, 32, 40)
    source = cases.series(phantoms.Phantom(shape=shape))
    many = tuple(
        answers.box(score=0.9 - index / 100, low=(index - 0.5, 4, 4), high=(index + 0.5, 9, 9))
        for index in range(0, 40, 2)
    )
    chosen = key_slices.choose(answers.findings(source, boxes=many))
    assert [slice_.index for slice_ in chosen] == list(range(0, 16, 2))


@pytest.mark.peer("dicom3tools")
def test_every_kind_that_draws_takes_boxes(tmp_path: Path) -> None:
    made = results.make_results(cases.context(SOURCE), FOUND, KINDS, tmp_path)
    assert {file.kind: file.problem for file in made} == dict.fromkeys(KINDS, "")
    said = [validators.run("dciodvfy", "-new", file.path) for file in made]
    assert validators.errors("\n".join(said)) == []


def harmed(folder: Path, kind: str, harm: Callable[[Dataset], None]) -> bytes:
    [file] = results.make_results(cases.context(SOURCE), FOUND, (kind,), folder)
    assert file.problem == ""
    ds = dcmread(file.path)
    harm(ds)
    written = BytesIO()
    ds.save_as(written)
    return written.getvalue()


def shifted(ds: Dataset) -> None:
    ds.PixelData = np.roll(ds.pixel_array, 40, axis=2).tobytes()


def line(ds: Dataset) -> Dataset:
    return next(item for item in ds.GraphicAnnotationSequence if item.GraphicLayer != "NOTE")


def line_moved(ds: Dataset) -> None:
    line(ds).GraphicObjectSequence[0].GraphicData[3] += 1


def words_changed(ds: Dataset) -> None:
    line(ds).TextObjectSequence[0].UnformattedTextValue = "Nodule"


@pytest.mark.parametrize(
    ("kind", "harm", "said"),
    [
        ("key-images", shifted, "is drawn elsewhere"),
        ("presentation-state", line_moved, "does not run around its box"),
        ("presentation-state", words_changed, "are not its own"),
    ],
)
def test_the_gate_sees_a_box_that_is_drawn_wrong(
    kind: str, harm: Callable[[Dataset], None], said: str, tmp_path: Path
) -> None:
    raw = harmed(tmp_path, kind, harm)
    with pytest.raises(GateError, match=said):
        verify.check(raw, kind, cases.context(SOURCE), FOUND, ())


def test_a_picture_shows_the_outline_and_leaves_the_inside() -> None:
    grey = np.full((320, 400, 3), 90, np.uint8)
    box = answers.BOXES[0]
    picture = box_overlay.draw(grey, [box], (32, 40))
    drawn = np.argwhere((picture == np.array(box.colour)).all(axis=2))
    assert drawn.min(axis=0).tolist() == [110, 205] and drawn.max(axis=0).tolist() == [189, 344]
    assert (picture[120:180, 215:335] == 90).all()


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_box_turns_with_its_image(plane: str) -> None:
    # Given a bright block and a box that is just it, in a series that lies oddly
    source = cases.series(cases.LIES["feet first"])
    geometry = source.volume.geometry
    array = np.zeros(geometry.shape, np.int16)
    array[3:6, 11:19, 21:35] = 1
    box = answers.box(low=(2.5, 10.5, 20.5), high=(5.5, 18.5, 34.5))
    orientation = {"axial": "HPL", "coronal": "PFL", "sagittal": "LFP"}[plane]
    # When both are turned, then the box is still just the block
    turned = box_overlay.reoriented(box, geometry, orientation)
    inside = np.argwhere(Volume(array=array, geometry=geometry).reoriented(orientation).array)
    assert (inside.min(axis=0) - 0.5).tolist() == list(turned.low)
    assert (inside.max(axis=0) + 0.5).tolist() == list(turned.high)


def test_the_page_of_a_job_shows_the_most_certain_box(tmp_path: Path) -> None:
    written = pictures.draw(SOURCE.volume, FOUND, tmp_path)
    assert len(written) == 5
    from PIL import Image

    colour = np.array(answers.BOXES[0].colour)
    for path in written:
        assert (np.asarray(Image.open(path)) == colour).all(axis=2).any(), path.name


def test_the_page_of_a_job_shows_the_image_that_was_made(tmp_path: Path) -> None:
    from PIL import Image

    image = replace(answers.derived(SOURCE), window=(-750, 250))
    inverted = replace(image, array=-image.array)
    first, second = (
        np.asarray(Image.open(pictures.draw(SOURCE.volume, answers.findings(SOURCE, image=made), folder)[0]))
        for made, folder in ((image, tmp_path / "a"), (inverted, tmp_path / "b"))
    )
    assert not np.array_equal(first, second)


def test_classes_stand_beside_a_single_image(tmp_path: Path) -> None:
    source = series.read_series(phantoms.write([planar.dx()], tmp_path / "source"), planar=True)
    found = answers.findings(source, measurements=answers.CLASSES, findings=answers.STATEMENTS)
    [file] = results.make_results(cases.context(source), found, ("key-images",), tmp_path)
    assert file.problem == ""
    lines = [
        words for words, *_ in legend._lines(cases.context(source), found, key_slices.choose(found)[0], "")
    ]
    assert lines[-3:] == ["0.831 Pneumothorax, present", "0.125 Pleural effusion, absent", "0.5 Mass"]


def test_a_volume_that_is_only_classified_has_no_key_slice() -> None:
    found = answers.findings(SOURCE, measurements=answers.CLASSES, findings=answers.STATEMENTS)
    assert key_slices.choose(found) == ()
