"""Classes and values of a whole image in reports: never present where the model says absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import content_tree, report, verify_sr
from engines import probability
from engines.findings import Findings, Translation
from engines.manifest_entries import CodeEntry
from engines.manifest_outputs import Class
from tests.support import answers, validators
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])
FOUND = answers.findings(SOURCE, measurements=answers.CLASSES, findings=answers.STATEMENTS)


def groups(folder: Path, found: Findings = FOUND) -> dict[str, verify_sr.Group]:
    """The report's groups by their Tracking Identifier."""
    [file] = results.make_results(cases.context(SOURCE), found, ("sr",), folder)
    assert file.problem == ""
    ds = dcmread(file.path)
    names = [
        str(item.TextValue) for item in content_tree.walk(ds) if content_tree.name(item) == ("112039", "DCM")
    ]
    return dict(zip(names, verify_sr.read_groups(ds).values(), strict=True))


def test_a_class_is_one_group_of_its_probability_and_its_statement(tmp_path: Path) -> None:
    made = groups(tmp_path)
    assert list(made) == ["chest-ct/Pneumothorax", "chest-ct/Pleural effusion", "chest-ct/Mass"]
    first = made["chest-ct/Pneumothorax"]
    [(name, unit, _, value, about)] = first.numbers
    assert (name.meaning, unit.value, about, value) == (
        "Probability",
        "1",
        answers.PNEUMOTHORAX,
        0.8312345678,
    )
    assert [(code.meaning, said.meaning) for code, said in first.statements] == [("Pneumothorax", "Present")]
    assert first.comments == ["URGENT: probability 0.83 (threshold 0.5)"]


def test_an_absent_class_is_not_the_finding_of_its_group(tmp_path: Path) -> None:
    absent = groups(tmp_path)["chest-ct/Pleural effusion"]
    assert [(code.meaning, said.meaning) for code, said in absent.statements] == [
        ("Pleural effusion", "Absent")
    ]
    assert absent.subjects == []


def test_a_class_without_a_threshold_makes_no_statement(tmp_path: Path) -> None:
    mass = groups(tmp_path)["chest-ct/Mass"]
    assert (mass.statements, mass.numbers[0][4]) == ([], answers.MASS)


def test_a_rule_about_a_class_stands_beside_its_own_statement(tmp_path: Path) -> None:
    rule = replace(answers.STATEMENTS[0], key="call_the_ward", above=0.9, at_least=None, present=False)
    both = groups(tmp_path, replace(FOUND, findings=(*answers.STATEMENTS, rule)))
    assert [said.meaning for _, said in both["chest-ct/call_the_ward"].statements] == ["Absent"]
    assert [said.meaning for _, said in both["chest-ct/Pneumothorax"].statements] == ["Present"]


def test_values_of_the_image_are_plain_measurements(tmp_path: Path) -> None:
    made = groups(tmp_path, answers.findings(SOURCE, measurements=answers.VALUES))
    [(name, unit, _, value, about)] = made["chest-ct/whole image"].numbers
    assert (name, unit.value, about, value) == (answers.AGE, "a", None, 61.5)


def test_the_gate_sees_a_probability_of_another_class(tmp_path: Path) -> None:
    [file] = results.make_results(cases.context(SOURCE), FOUND, ("sr",), tmp_path)
    exchanged = tuple(
        replace(item, about=other.about)
        for item, other in zip(answers.CLASSES, answers.CLASSES[::-1], strict=True)
    )
    with pytest.raises(GateError, match="are not the findings'"):
        verify_sr.check(dcmread(file.path), cases.context(SOURCE), replace(FOUND, measurements=exchanged), ())


def test_the_report_in_words_says_it_once() -> None:
    said = report.text(report.worded(cases.context(SOURCE), FOUND))
    assert (
        "- URGENT: Pneumothorax: present (probability of Pneumothorax: 0.831, threshold at least 0.5)\n"
        in said
    )
    assert (
        "- Pleural effusion: absent (probability of Pleural effusion: 0.125, threshold at least 0.5)\n"
        in said
    )
    assert "- probability of Mass, whole image: 0.5\n" in said


@pytest.mark.parametrize(("value", "said"), [(0.5, "0.5"), (0.4999999, "0.4999999")])
def test_a_probability_on_its_threshold_is_worded_as_reaching_it(value: float, said: str) -> None:
    # Given the statement that the engine makes of a class whose probability is, or just misses, its threshold
    entry = Class(
        index=0, key="mass", label="Mass", code=CodeEntry(value="4147007", scheme="SCT", meaning="Mass")
    )
    measurement = probability.measured(entry, value)
    finding = probability.stated(entry, measurement)
    assert finding is not None
    found = answers.findings(SOURCE, measurements=(measurement,), findings=(finding,))
    # Then what the report says of both is true
    known = "present" if value >= 0.5 else "absent"
    words = report.text(report.worded(cases.context(SOURCE), found))
    assert f"Mass: {known} (probability of Mass: {said}, threshold at least 0.5)" in words
    assert f"- probability of Mass, whole image: {said} (Mass: at least 0.5)\n" in words


def test_the_report_in_words_in_chinese() -> None:
    words = Translation(findings={"pneumothorax": "气胸", "nodule": "结节"})
    context = cases.context(SOURCE, language="zh", model=replace(cases.MODEL, words={"zh": words}))
    found = replace(FOUND, boxes=answers.BOXES)
    said = report.text(report.worded(context, found))
    assert "- 紧急：气胸：存在（气胸的概率：0.831，阈值：不低于 0.5）\n" in said
    assert "- 检出：结节（2），Mass（1）。\n" in said
    assert "- 结节 1，图像 5，第 5 层，共 12 层：置信度 93 %，9.8 × 6.4 × 7.5 mm\n" in said


def test_boxes_are_told_in_words() -> None:
    found = answers.findings(SOURCE, boxes=answers.BOXES)
    said = report.text(report.worded(cases.context(SOURCE), found))
    assert "- Found: Nodule (2), Mass (1).\n" in said
    assert "- Nodule 2, Image 9, slice 9 of 12: certainty 71 %, 4.2 × 3.2 × 2.5 mm\n" in said


@pytest.mark.peer("dicom3tools")
@pytest.mark.peer("pixelmed")
def test_others_find_nothing_wrong_with_it(tmp_path: Path) -> None:
    found = replace(FOUND, measurements=(*answers.CLASSES, *answers.VALUES))
    [file] = results.make_results(cases.context(SOURCE), found, ("sr",), tmp_path)
    assert validators.errors(validators.run("dciodvfy", "-new", file.path)) == []
    assert validators.errors(validators.run("DicomSRValidator", file.path)) == []
