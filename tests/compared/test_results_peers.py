"""Result objects in front of programs that others wrote."""

from __future__ import annotations

import json
from pathlib import Path

import highdicom
import numpy as np
import pytest
from PIL import Image

from dicom_node import results
from dicom_node.results import sr
from dicom_node.results.context import Predecessor, Report
from engines.findings import Code
from tests.support import phantoms
from tests.support import results as cases
from tests.support.validators import located, nrrd, read_nrrd, run

#: What dciodvfy calls the IODs, in the order in which the objects are made. Debian's is older than the label map.
IODS = {
    "seg": "Segmentation",
    "rtstruct": "RTStructureSet",
    "parametric-map": "ParametricMap",
    "fractional": "Segmentation",
    "presentation-state": "GrayscaleSoftcopyPresentationState",
    "key-images": "MultiframeTrueColorSCImage",
    "sr": "Comprehensive3DSR",
    "sr-display": "Comprehensive3DSR",
    "pdf": "EncapsulatedPDF",
    "key-objects": "KeyObjectSelectionDocument",
}
KINDS = tuple(IODS)


def make(folder: Path, lie: str, kinds: tuple[str, ...] = KINDS, **changes: object) -> list[Path]:
    """Write the results of a phantom; their paths, in the order in which they are made."""
    source = cases.series(cases.LIES[lie])
    made = results.make_results(cases.context(source), cases.findings(source, **changes), kinds, folder)
    assert [item.problem for item in made] == [""] * len(made)
    return [item.path for item in made]


@pytest.mark.peer("dicom3tools")
@pytest.mark.parametrize("lie", cases.LIES)
def test_dciodvfy_finds_no_error(lie: str, tmp_path: Path) -> None:
    for path, iod in zip(make(tmp_path, lie), IODS.values(), strict=True):
        said = run("dciodvfy", "-new", path)
        assert iod in said
        assert "Error" not in said, said


@pytest.mark.peer("dicom3tools")
@pytest.mark.peer("pixelmed")
def test_others_find_no_error_in_a_chinese_report(tmp_path: Path) -> None:
    source = cases.series(cases.LIES["axial"])
    context = cases.context(source, language="zh")
    for made in results.make_results(context, cases.findings(source), ("seg", "sr", "pdf"), tmp_path):
        assert made.verified, made.problem
        assert "Error" not in run("dciodvfy", "-new", made.path)
    assert "Error" not in run("DicomSRValidator", tmp_path / "sr.dcm")


@pytest.mark.peer("dicom3tools")
def test_dciodvfy_finds_no_error_in_a_segmentation_with_an_empty_segment(tmp_path: Path) -> None:
    labels = np.zeros(cases.LIES["axial"].shape, np.uint8)
    labels[3, 4, 5] = 2
    for path in make(tmp_path, "axial", mask=labels):
        assert "Error" not in run("dciodvfy", "-new", path)


def make_later(folder: Path) -> list[Path]:
    """Results that take the place of earlier ones, and those, which come first."""
    source = cases.series(cases.LIES["axial"])
    first = cases.context(source)
    report = Report(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid=first.uid("sr", "instance"),
        series_instance_uid=first.uid("sr", "series"),
    )
    earlier = Predecessor(revision=1, created_at=first.created_at, report=report)
    second = cases.context(source, job_identity="0" * 64, predecessor=earlier)
    made = [
        item
        for name, context in (("first", first), ("second", second))
        for item in results.make_results(context, cases.findings(source), KINDS, folder / name)
    ]
    assert [item.problem for item in made] == [""] * 2 * len(KINDS)
    return [item.path for item in made]


@pytest.mark.peer("dicom3tools")
@pytest.mark.parametrize(
    "changes",
    [
        {"BodyPartExamined": None, "Laterality": None},
        {"BodyPartExamined": "KNEE", "Laterality": "L"},
        {
            "LossyImageCompression": "01",
            "LossyImageCompressionRatio": 8,
            "LossyImageCompressionMethod": "ISO_10918_1",
        },
    ],
)
def test_dciodvfy_finds_no_error_in_a_single_key_image(changes: dict[str, object], tmp_path: Path) -> None:
    phantom = cases.LIES["axial"]
    headers = phantoms.datasets(phantom)
    for ds in headers:
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
            if value is None:
                delattr(ds, keyword)
    source = cases.series(phantom, headers)
    labels = np.zeros(phantom.shape, np.uint8)
    labels[3, 4:9, 5:7] = 2
    [made] = results.make_results(
        cases.context(source), cases.findings(source, mask=labels), ("key-images",), tmp_path
    )
    assert made.verified, made.problem
    said = run("dciodvfy", "-new", made.path)
    assert "SCImage" in said and "Error" not in said, said


@pytest.mark.peer("dicom3tools")
def test_dciodvfy_finds_no_error_in_results_that_replace_others(tmp_path: Path) -> None:
    later = make_later(tmp_path)
    for path in later:
        assert "Error" not in run("dciodvfy", "-new", path)
    assert "Error" not in run("dcentvfy", *later)


@pytest.mark.peer("pixelmed")
@pytest.mark.peer("dcmtk")
def test_the_report_that_replaces_another_fits_its_template_and_names_it(tmp_path: Path) -> None:
    first, second = (path for path in make_later(tmp_path) if path.name == "sr.dcm")
    said = run("DicomSRValidator", second)
    assert "IOD validation complete" in said
    assert "Error" not in said, said
    predecessors = [line for line in run("dsrdump", second).splitlines() if "Predecessor" in line]
    assert len(predecessors) == 1 and predecessors[0].split()[-1] == "1"
    assert "Predecessor" not in run("dsrdump", first)


@pytest.mark.peer("dicom3tools")
def test_dcentvfy_finds_source_and_results_consistent(tmp_path: Path) -> None:
    headers = phantoms.datasets(cases.LIES["axial"])
    images = phantoms.write(headers, tmp_path / "source")
    source = cases.series(cases.LIES["axial"], headers)
    made = results.make_results(cases.context(source), cases.findings(source), KINDS, tmp_path)
    said = run("dcentvfy", *images, *(item.path for item in made))
    assert "Error" not in said, said


@pytest.mark.peer("pixelmed")
@pytest.mark.parametrize(
    ("kinds", "title"),
    [
        (("seg", "sr"), sr.TITLE),
        # The validator checks the groups only under a title that it knows.
        (("seg", "sr"), Code(value="126000", scheme="DCM", meaning="Imaging Measurement Report")),
        (("sr",), Code(value="126000", scheme="DCM", meaning="Imaging Measurement Report")),
    ],
)
def test_the_report_fits_its_template(
    kinds: tuple[str, ...], title: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sr, "TITLE", title)
    said = run("DicomSRValidator", make(tmp_path, "axial", kinds)[-1])
    assert "Found Root Template TID_1500" in said
    assert "IOD validation complete" in said
    assert "Error" not in said, said


@pytest.mark.peer("dcmtk")
def test_dsrdump_reads_the_report(tmp_path: Path) -> None:
    _, report = make(tmp_path, "axial", ("seg", "sr"))
    said = run("dsrdump", report)
    assert 'NUM:(,,"Volume")="2345.68" (mL,UCUM,"milliliter")' in said
    assert '"Pulmonary emphysema")=(272519000,SCT,"Absent")' in said
    assert "LAA-950 8.4 %" in said
    assert "E: " not in said, said


@pytest.mark.peer("dcmtk")
@pytest.mark.peer("pixelmed")
def test_others_read_the_key_object_selection(tmp_path: Path) -> None:
    selection = make(tmp_path, "axial")[-1]
    said = run("dsrdump", selection)
    assert "Key Object Selection Document" in said
    assert said.count("contains IMAGE") == 2 + 4 and said.count("contains COMPOSITE") == 5
    assert "E: " not in said, said
    assert "Error" not in run("DicomSRValidator", selection)


@pytest.mark.peer("dicom3tools")
@pytest.mark.peer("dcmtk")
@pytest.mark.peer("pixelmed")
@pytest.mark.parametrize("reason", ["missing-slice", "engine"])
def test_others_read_that_the_ai_was_not_performed(reason: str, tmp_path: Path) -> None:
    source = cases.series(cases.LIES["axial"])
    context = cases.context(source)
    failure = results.Failure(
        headers=source.datasets,
        job_identity=context.job_identity,
        model=context.model,
        created_at=context.created_at,
        secondread_version="0.1.0",
        reason=reason,
        error="Slice 4 of 12 is missing. Send the series again.",
    )
    made = results.make_failure(failure, tmp_path)
    assert made.problem == ""
    said = run("dciodvfy", "-new", made.path)
    assert "BasicTextSR" in said
    assert "Error" not in said, said
    read = run("dsrdump", "+Pl", made.path)
    assert "AI not performed: chest-ct 1.0.0 did not analyse series" in read
    assert "E: " not in read, read
    validated = run("DicomSRValidator", made.path)
    assert "Found BasicTextSR IOD" in validated and "Error" not in validated, validated
    images = [tmp_path / f"{index}.dcm" for index in range(len(source.datasets))]
    for ds, path in zip(source.datasets, images, strict=True):
        ds.save_as(path)
    assert "Error" not in run("dcentvfy", made.path, *images)


@pytest.mark.peer("dcmtk")
def test_dcmtk_checks_the_presentation_state_and_shows_an_image_by_it(tmp_path: Path) -> None:
    # Given images with a window
    phantom = cases.LIES["axial"]
    headers = phantoms.datasets(phantom)
    for ds in headers:
        ds.WindowCenter, ds.WindowWidth = 200, 1000
    source = cases.series(phantom, headers)
    [made] = results.make_results(
        cases.context(source), cases.findings(source), ("presentation-state",), tmp_path
    )
    # When DCMTK checks the state; its pattern for a date with an offset matches none
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(made.path.read_bytes())
    run("dcmodify", "-nb", "-ma", "(0018,a001)[*].(0018,a002)=20261120", copy)
    said = run("dcmpschk", copy)
    assert "Test passed." in said and "Error" not in said, said
    # Then it shows the first key slice by it as the window says
    image, shown = phantoms.write(headers, tmp_path / "images")[2], tmp_path / "shown.pgm"
    said = run("dcmp2pgm", "-p", made.path, image, shown)
    grey = np.asarray(Image.open(shown), dtype=float)
    values = phantoms.asymmetric(phantom.shape)[2]
    expected = np.clip((values - (200 - 500)) / 1000, 0, 1) * 255
    assert np.abs(grey - expected).max() <= 2, said


@pytest.mark.peer("dcmqi")
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("labelmap", "1.nrrd"),
        # A file for each segment
        ("seg", "{number}.nrrd"),
    ],
    ids=["labelmap", "seg"],
)
@pytest.mark.parametrize("lie", ["axial", "coronal", "double oblique", "not bytewise"])
def test_dcmqi_reads_the_same_voxels_at_the_same_points(
    lie: str, kind: str, file: str, tmp_path: Path
) -> None:
    # Given a written label map or Segmentation, when dcmqi converts it
    [path] = make(tmp_path, lie, (kind,))
    run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    # Then each label has the mask's voxels, each at its point in the patient
    phantom = cases.LIES[lie]
    labels = cases.mask(phantom.shape)
    for number in (1, 2, 3):
        wanted = located(np.argwhere(labels == number), phantoms.affine(phantom))
        assert read_nrrd(tmp_path / file.format(number=number), number) == wanted


@pytest.mark.peer("dcmqi")
@pytest.mark.parametrize("lie", cases.LIES)
def test_dcmqi_reads_the_same_numbers_at_the_same_points(lie: str, tmp_path: Path) -> None:
    # Given a written Parametric Map, when dcmqi converts it
    [path] = make(tmp_path, lie, ("parametric-map",))
    run("paramap2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    # Then it has the map's numbers, each at its point in the patient, and knows what they are
    array, affine = nrrd(tmp_path / "pmap.nrrd")
    phantom = cases.LIES[lie]
    wanted = cases.probability(phantom.shape).array
    for value in np.unique(wanted)[1:]:
        points = located(np.argwhere(wanted == value), phantoms.affine(phantom))
        assert located(np.argwhere(array == value), affine) == points
    said = json.loads((tmp_path / "meta.json").read_text())
    assert said["QuantityValueCode"]["CodeMeaning"] == "Probability"
    assert said["MeasurementUnitsCode"]["CodeValue"] == "1"


@pytest.mark.peer("dcmqi")
def test_highdicom_and_dcmqi_count_alike(tmp_path: Path) -> None:
    [path] = make(tmp_path, "sagittal", ("seg",))
    run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    array = highdicom.seg.segread(path).get_volume(combine_segments=True).array
    for number in (1, 2, 3):
        assert len(read_nrrd(tmp_path / f"{number}.nrrd", number)) == int((array == number).sum()) > 0
