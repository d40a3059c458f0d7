"""Results of single images in front of programs that others wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import results
from dicom_node.series import read_series
from tests.compared.test_results_peers import IODS, run
from tests.dicom_node.test_results_single_images import IMPOSSIBLE, mask
from tests.support import phantoms, planar
from tests.support import results as cases

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

#: A single key image is a plain Secondary Capture.
NAMES = {**IODS, "key-images": "SCImage"}


def make(modality: str, folder: Path) -> tuple[Path, dict[str, Path]]:
    """The source image, then the results of the kinds that the validator knows, by kind."""
    images = phantoms.write([planar.ALL[modality]()], folder / "source")
    source = read_series(images, planar=True)
    found = cases.findings(source, mask=mask(), impossible=IMPOSSIBLE)
    made = results.make_results(cases.context(source), found, tuple(NAMES), folder)
    assert [item.problem for item in made] == [""] * len(made)
    return images[0], {item.kind: item.path for item in made}


@pytest.mark.peer("dicom3tools")
@pytest.mark.parametrize("modality", planar.ALL)
def test_dciodvfy_and_dcentvfy_find_no_error(modality: str, tmp_path: Path) -> None:
    image, made = make(modality, tmp_path)
    assert "Error" not in run("dciodvfy", "-new", image)
    for kind, path in made.items():
        said = run("dciodvfy", "-new", path)
        assert NAMES[kind] in said
        assert "Error" not in said, said
    assert "Error" not in run("dcentvfy", image, *made.values())


@pytest.mark.peer("pixelmed")
@pytest.mark.peer("dcmtk")
def test_others_read_the_report_and_the_selection(tmp_path: Path) -> None:
    _, made = make("DX", tmp_path)
    for path in (made["sr"], made["sr-display"], made["key-objects"]):
        said = run("DicomSRValidator", path)
        assert "IOD validation complete" in said and "Error" not in said, said
    said = run("dsrdump", made["sr"])
    assert '"Comment")="Area (square millimeter) ca' in said
    assert "E: " not in said, said
