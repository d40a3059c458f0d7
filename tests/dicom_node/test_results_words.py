"""The report in words: what a doctor reads first, in English and in Chinese, and nothing that misleads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node import results
from dicom_node.results import legend, report, sr_words
from dicom_node.results.context import EarlierValue, EarlierValues, Predecessor, Report
from dicom_node.results.report import Weight, WordedReport
from engines.findings import Finding, Translation, Urgency
from tests.support import phantoms
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])
CHINESE = Translation(
    intended_use="勾画肺并测量。",
    segments={1: "左肺", 2: "右肺", 3: "结节"},
    measurements={"volume": "体积", "density": "平均 CT 值", "low": "低密度区"},
    findings={"emphysema": "肺气肿"},
)
MODEL = replace(cases.MODEL, intended_use="Outlines the lungs.", words={"zh": CHINESE})
RULED = replace(cases.FINDINGS[0], deciding=(cases.MEASUREMENTS[-1],), above=10.0)
EARLIER = EarlierValues(
    study_date="20250301",
    series_description="Lung 1.0",
    model_version="0.9.0",
    values=(
        EarlierValue(key="volume", segment="Left lung", value=2200.0, unit="mL"),
        EarlierValue(key="density", segment="Left lung", value=-800.0, unit="[hnsf'U]"),
        EarlierValue(key="low", segment="", value=7.3, unit="%"),
        EarlierValue(key="volume", segment="Spleen", value=1.0, unit="mL"),
    ),
)


def words(findings: dict[str, Any] | None = None, **context: Any) -> WordedReport:
    """The report of the phantom's findings."""
    return report.worded(
        cases.context(SOURCE, **{"model": MODEL, **context}), cases.findings(SOURCE, **(findings or {}))
    )


def finding(key: str, **changes: Any) -> Finding:
    return replace(RULED, key=key, code=replace(RULED.code, meaning=key), **changes)


def test_the_whole_report_in_english() -> None:
    assert report.text(words({"findings": (RULED,)}, comparison=EARLIER)) == (
        "AI report: chest-ct 1.0.0\n"
        "AI result, not verified by a physician. For research only, not for diagnosis.\n"
        'Analysed: 12 images, CT, study of 2026-11-01, series "Asymmetric phantom"\n'
        "\n"
        "Conclusion\n"
        "- No findings: nothing of what this model looks for is present.\n"
        "- Pulmonary emphysema: absent "
        "(Low attenuation area, Left lung + Right lung: 8.4 %, threshold above 10 %)\n"
        "\n"
        "Measurements\n"
        "- Volume, Left lung: 2346 mL\n"
        "- Attenuation Coefficient, mean, Left lung: -812 HU\n"
        "- Low attenuation area, Left lung: 14.5 %\n"
        "- Volume, Right lung: 2789 mL\n"
        "- Low attenuation area, Right lung: 3.25 %\n"
        "- Volume, Left lung + Right lung: 5135 mL\n"
        "- Low attenuation area, Left lung + Right lung: 8.4 % (Pulmonary emphysema: above 10 %)\n"
        "\n"
        "Comparison\n"
        'Compared with the study of 2025-03-01, series "Lung 1.0", analysed by chest-ct 0.9.0.\n'
        "- Volume, Left lung: Earlier: 2200 mL, Now: 2346 mL, Change: +146 mL (+6.62 %)\n"
        "- Attenuation Coefficient, mean, Left lung: Earlier: -800 HU, Now: -812 HU, Change: -12.2 HU\n"
        "- Low attenuation area, Left lung + Right lung: "
        "Earlier: 7.3 %, Now: 8.4 %, Change: +1.1 percentage points\n"
        "\n"
        "Limits and origin\n"
        "- Intended use: Outlines the lungs.\n"
        "- Model: chest-ct 1.0.0, secondread project (digest 0123456789ab), on openvino 2026.4 CPU float32.\n"
        "- Made by secondread 0.1.0 on 2026-11-20 10:00.\n"
    )


def test_the_same_in_chinese() -> None:
    text = report.text(words({"findings": (RULED,)}, comparison=EARLIER, language="zh"))
    for line in (
        "人工智能报告：chest-ct 1.0.0",
        "人工智能结果，未经医师核实。仅供研究，不得用于诊断。",
        "- 未见异常发现：本模型所检测的项目均未见。",
        "- 肺气肿：未见（低密度区，左肺 + 右肺：8.4 %，阈值：高于 10 %）",
        "- 体积，左肺：2346 mL",
        "对比对象：2025-03-01 的检查，序列“Lung 1.0”，由 chest-ct 0.9.0 分析。",
        "- 体积，左肺：既往：2200 mL，本次：2346 mL，变化：+146 mL（+6.62 %）",
        "- 预期用途：勾画肺并测量。",
    ):
        assert line in text.splitlines()


def test_what_a_model_does_not_translate_stays_as_it_says_it() -> None:
    untold = report.text(words({"findings": (RULED,)}, language="zh", model=cases.MODEL))
    assert "- Pulmonary emphysema：未见" in untold and "- Volume，Left lung：2346 mL" in untold


def test_a_language_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="languages: en, zh"):
        words(language="xx")


def test_the_most_urgent_is_first_and_then_what_is_present() -> None:
    several = (
        finding("a"),
        finding("b", present=True),
        finding("c", present=True, urgency=Urgency.URGENT),
        finding("d", urgency=Urgency.URGENT),
        finding("e", present=True, urgency=Urgency.URGENT),
    )
    lines = words({"findings": several}).conclusions
    assert [item.text.split("(")[0].strip() for item in lines] == [
        "URGENT: c: present", "URGENT: e: present", "b: present", "a: absent", "d: absent",
    ]  # fmt: skip
    assert [item.weight for item in lines] == ["urgent", "urgent", "present", "absent", "absent"]


def test_no_finding_is_claimed_where_the_model_looks_for_none() -> None:
    lines = words({"findings": ()}).conclusions
    assert [item.text for item in lines] == [
        "The model makes no statement on findings; it measured what is listed below."
    ]
    assert lines[0].weight is Weight.REMARK


def test_an_empty_mask_is_a_report_of_what_was_not_found() -> None:
    empty = np.zeros(cases.LIES["axial"].shape, np.uint8)
    made = words({"mask": empty, "measurements": (), "findings": ()})
    assert [item.text for item in made.conclusions] == [
        "The model found nothing to outline or to measure, and makes no statement on findings.",
        "Not found in the images: Left lung, Right lung, Nodule.",
    ]
    assert made.measurements.rows == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_does_not_exist_is_said_to_be_none(value: float) -> None:
    broken = replace(cases.MEASUREMENTS[0], value=value)
    made = words({"measurements": (broken,)}, comparison=EARLIER)
    assert made.measurements.rows == (("Volume", "Left lung", "could not be computed", ""),)
    assert made.comparison.rows == ()
    assert made.comparison.said.endswith("No measurement was made in both.")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_finding_and_a_picture_say_so_too(value: float) -> None:
    measured = replace(cases.MEASUREMENTS[6], value=value)
    report = words(
        {"measurements": (measured,), "findings": (finding("low", deciding=(measured,), above=10.0),)}
    )
    assert report.conclusions[-1].text.endswith("could not be computed, threshold above 10 %)")
    assert legend.measured(measured) == "Low attenuation area: could not be computed"


def test_a_number_never_looks_like_a_threshold_that_it_exceeds() -> None:
    value = replace(cases.MEASUREMENTS[-1], value=10.004)
    made = words({"findings": (replace(RULED, present=True, deciding=(value,)),), "measurements": (value,)})
    assert "10.004 %, threshold above 10 %" in made.conclusions[0].text
    assert made.measurements.rows[0][2] == "10.004 %"


def test_both_bounds_are_said() -> None:
    made = words({"findings": (replace(RULED, below=20.0),)})
    assert "threshold between 10 % and 20 %" in made.conclusions[-1].text


@pytest.mark.parametrize(
    ("then", "now", "unit", "said"),
    [
        (100.0, 150.0, "mL", "+50 mL (+50 %)"),
        (100.0, 100.0, "mL", "0 mL (0 %)"),
        (0.0, 5.0, "mL", "+5 mL"),
        (10.0, 2.0, "1", "-8 (-80 %)"),
        (37.0, 38.0, "Cel", "+1 °C"),
    ],
)
def test_a_change_is_absolute_and_in_percent_where_that_means_something(
    then: float, now: float, unit: str, said: str
) -> None:
    measured = replace(cases.MEASUREMENTS[0], value=now, unit=replace(cases.MILLILITRE, value=unit))
    earlier = replace(EARLIER, values=(replace(EARLIER.values[0], value=then, unit=unit),))
    [row] = words({"measurements": (measured,)}, comparison=earlier).comparison.rows
    assert row[-1] == said


def test_what_was_measured_in_another_unit_is_not_compared() -> None:
    other = replace(EARLIER, values=(replace(EARLIER.values[0], unit="cm3"),))
    assert words(comparison=other).comparison.rows == ()


def test_without_an_earlier_study_that_is_said() -> None:
    assert words().comparison.said == "No earlier result of this model for this patient is known here."


@pytest.mark.parametrize(("language", "said"), [("en", "AI not performed"), ("zh", "未进行")])
def test_who_was_told_that_there_is_no_answer_is_told_that_there_is_one(language: str, said: str) -> None:
    told = Report(sop_class_uid="1.2", sop_instance_uid="1.2.3", series_instance_uid="1.2.4")
    assert not any(said in line for line in words(language=language).limitations)
    assert any(said in line for line in words(language=language, announced=(told,)).limitations)


def test_limits_name_what_it_replaces_what_it_lacks_and_what_was_odd() -> None:
    headers = phantoms.datasets(cases.LIES["axial"])
    for ds in headers:
        del ds.FrameOfReferenceUID
    source = replace(cases.series(cases.LIES["axial"], headers), notes=("slices were sorted",))
    context = cases.context(source)
    earlier = Predecessor(revision=1, created_at=context.created_at, report=None)
    made = report.worded(replace(context, predecessor=earlier), cases.findings(source))
    assert made.limitations[0].startswith("Revision 2: replaces revision 1 of 2026-11-20 10:00:00")
    assert made.limitations[1].startswith("There is no Segmentation of what was found: ")
    assert made.limitations[2] == "About the images: slices were sorted"


def test_many_segments_together_are_counted() -> None:
    segments = tuple(replace(cases.SEGMENTS[0], number=n, label=f"Rib {n}") for n in range(1, 25))
    measured = tuple(replace(cases.MEASUREMENTS[0], segment_number=n) for n in (*range(1, 25), None))
    made = words({"segments": segments, "measurements": measured})
    assert made.measurements.rows[-1][1] == "Rib 1 + Rib 2 + Rib 3 + 21 more"


HOSTILE = "\u202eevil\x00\x1b[31m\n\r\t<b onload=x>&amp;" + "x" * 500


def test_hostile_words_are_one_line_that_reads_as_it_is_written() -> None:
    segment = replace(cases.SEGMENTS[0], label=HOSTILE)
    named = replace(cases.MODEL, intended_use=HOSTILE * 20, manufacturer=HOSTILE)
    made = words({"segments": (segment, *cases.SEGMENTS[1:])}, model=named)
    where = made.measurements.rows[0][1]
    assert where.startswith("evil[31m <b onload=x>&amp;xxx") and where.endswith("…") and len(where) == 80
    assert all(line.isprintable() and len(line) <= 1000 for line in made.limitations)
    assert "\u202e" not in report.text(made)


def test_the_report_has_nothing_of_the_patient() -> None:
    text = report.text(words())
    for keyword in ("PatientName", "PatientID", "AccessionNumber"):
        assert str(SOURCE.datasets[0][keyword].value) not in text


@pytest.mark.parametrize(("language", "code"), [("en", "en-US"), ("zh", "zh-CN")])
def test_the_structured_report_has_every_line_and_names_their_language(
    language: str, code: str, tmp_path: Path
) -> None:
    context = cases.context(SOURCE, model=MODEL, comparison=EARLIER, language=language)
    found = cases.findings(SOURCE, findings=(RULED,))
    [made] = results.make_results(context, found, ("sr",), tmp_path)
    assert made.verified, made.problem
    ds = dcmread(made.path)
    assert ds.ContentSequence[0].ConceptCodeSequence[0].CodeValue == code
    read = [text for _, text in sr_words.read(ds)]
    written = report.text(report.worded(context, found)).splitlines()
    headings = ("Conclusion", "Measurements", "Comparison", "Limits and origin", "")
    headings += ("结论", "测量值", "与既往结果对比", "局限性与来源")
    assert read == [line.removeprefix("- ") for line in written if line not in headings]
