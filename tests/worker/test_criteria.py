"""The language of `when`: every operator, every kind of value, and a trace that holds all that was tested."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from worker import criteria
from worker.errors import CriteriaError


def _verdict(when: Any, **attributes: Any) -> bool:
    return criteria.parse(when).evaluate(attributes).verdict


@pytest.mark.parametrize(
    ("wanted", "value", "verdict"),
    [
        # Equality
        ("CT", "CT", True),
        ("ct", " CT ", True),
        ("CT", "MR", False),
        ("Straße", "STRASSE", True),
        (5, "5", True),
        (5, 5.0, True),
        ("5", 5, True),
        ("5.0", "5", True),
        (" 5 ", "5.00", True),
        ("5e0", 5, True),
        (-0.5, "-.5", True),
        (5, 50, False),
        (5, "5mm", False),
        ("5", "5 mm", False),
        ("1.2.840.10008.1.2", "1.2.840.10008.1.2", True),
        ("1.2.840", "1.2.8400", False),
        # Globs
        ("*chest*", "CT Chest routine", True),
        ("chest*", "CT Chest", False),
        ("C?", "ct", True),
        ("C?", "CTA", False),
        ("[ab]*", "Beta", True),
        ("[!ab]*", "Beta", False),
        ("*lung*", "over\nlung\nlines", True),
        # Regular expressions
        ("/lung|thorax/", "CT THORAX", True),
        ("/^lung/", "the lung", False),
        ("/^5$/", 5, True),
        ("/", "/", True),
        ("//", "anything", True),
        # Comparisons
        ("<=5", 5, True),
        ("<=5", "5.0", True),
        ("<5", 5, False),
        ("> 5", "5.01", True),
        (">=5", 4.99, False),
        ("<=5", "thin", False),
        ("<=5", "", False),
        (">=-10", -10, True),
        # Ranges, ends included
        ("1..5", 1, True),
        ("1..5", "5", True),
        ("1..5", 5.001, False),
        ("-3..-1", -2, True),
        # Ages
        (">=18Y", "018Y", True),
        (">=18Y", "017Y", False),
        ("18Y..120Y", "045Y", True),
        ("<1Y", "011M", True),
        ("<1Y", "012M", False),
        (">1Y", "013M", True),
        (">=4W", "028D", True),
        (">=18Y", "adult", False),
        # Dates
        (">=2026-01-01", "20260101", True),
        (">=20260101", "20251231", False),
        ("2026-01-01..2026-12-31", "20260630", True),
        ("2026-01-01..2026-12-31", "20270101", False),
        ("2026-11-01", "20261101", True),
        # Lists
        (["CHEST", "LUNG"], "lung", True),
        (["CHEST", "LUNG"], "HEAD", False),
        (["*chest*", "/thx/", "<=5"], "CT THX", True),
        ([1, 2, "7..9"], 8, True),
        # Missing
        (None, "", True),
        (None, None, True),
        (None, [], True),
        (None, ["", None], True),
        (None, "x", False),
        (None, 0, False),
        # Several values
        ("PRIMARY", ["ORIGINAL", "PRIMARY", "AXIAL"], True),
        ("LOCALIZER", ["ORIGINAL", "PRIMARY", "AXIAL"], False),
        ("<=0.5", [0.7, 0.5], True),
        ("<=0.5", [None, 0.7, ""], False),
    ],
)
def test_one_attribute(wanted: Any, value: Any, verdict: bool) -> None:
    trace = criteria.parse({"SeriesDescription": wanted}).evaluate({"SeriesDescription": value})
    assert trace.verdict is verdict, trace


@pytest.mark.parametrize("wanted", ["CT", "*", "/./", "<=5", "1..5", ["CT"], 5, "//"])
@pytest.mark.parametrize("attributes", [{}, {"Modality": None}, {"Modality": ""}, {"Modality": []}])
def test_a_missing_attribute_is_a_verdict(wanted: Any, attributes: dict[str, Any]) -> None:
    (leaf,) = criteria.parse({"Modality": wanted}).evaluate(attributes).children
    assert (leaf.verdict, leaf.value, leaf.note) == (False, None, "missing")


def test_a_date_that_yaml_read_as_one_is_a_date() -> None:
    when = yaml.safe_load("StudyDate: 2026-11-01")
    assert _verdict(when, StudyDate="20261101")
    assert not _verdict(when, StudyDate="20261102")


def test_a_word_that_yaml_read_as_a_boolean_is_asked_for_in_quotes() -> None:
    when = yaml.safe_load("BurnedInAnnotation: NO")
    with pytest.raises(CriteriaError, match=r"routes\.a\.when\.BurnedInAnnotation: .*quotes"):
        criteria.parse(when, "routes.a.when")
    with pytest.raises(CriteriaError, match="quotes"):
        criteria.parse({"BurnedInAnnotation": ["x", True]})
    assert _verdict({"BurnedInAnnotation": "NO"}, BurnedInAnnotation="NO")


@pytest.mark.parametrize(
    ("when", "verdict"),
    [
        ({}, True),
        ({"Modality": "CT", "SliceThickness": "<=5"}, True),
        ({"Modality": "CT", "SliceThickness": ">5"}, False),
        ({"any": [{"Modality": "MR"}, {"Modality": "CT"}]}, True),
        ({"any": [{"Modality": "MR"}, {"Modality": "PT"}]}, False),
        ({"all": [{"Modality": "CT"}, {"SliceThickness": 1.25}]}, True),
        ({"all": [{"Modality": "CT"}, {"SliceThickness": 5}]}, False),
        ({"not": {"Modality": "MR"}}, True),
        ({"not": {"Modality": "CT"}}, False),
        # All of a mapping must hold, so its opposite is that one does not.
        ({"not": {"Modality": "CT", "SliceThickness": ">5"}}, True),
        ({"not": {"not": {"Modality": "CT"}}}, True),
        ({"not": {"ContrastBolusAgent": None}}, False),
        ({"not": {"any": [{"Modality": "MR"}, {"all": [{"Modality": "CT"}, {"SliceThickness": 5}]}]}}, True),
        ({"any": [{"not": {"Modality": "CT"}}, {"all": [{"not": {"Modality": "MR"}}]}]}, True),
        ({"any": [{}]}, True),
    ],
)
def test_groups_nest(when: Any, verdict: bool) -> None:
    assert _verdict(when, Modality="CT", SliceThickness="1.25") is verdict


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ([{"Modality": "CT"}], r"^when: write a mapping"),
        ("CT", r"^when: write a mapping"),
        (None, r"^when: write a mapping"),
        ({"Modalty": "CT"}, r"^when\.Modalty: no DICOM attribute .*did you mean Modality"),
        ({"slicethickness": 5}, r"did you mean SliceThickness"),
        ({"(0008,0060)": "CT"}, r"no DICOM attribute has the keyword"),
        ({5: "CT"}, r"when\.5: no DICOM attribute"),
        ({True: "CT"}, r"no DICOM attribute"),
        ({"any": {"Modality": "CT"}}, r"^when\.any: write a list of mappings"),
        ({"all": []}, r"^when\.all: write a list of mappings"),
        ({"any": ["CT"]}, r"^when\.any\[0\]: write a mapping"),
        (
            {"any": [{"Modality": "CT"}, {"not": {"Modlity": 1}}]},
            r"^when\.any\[1\]\.not\.Modlity: .*Modality",
        ),
        ({"not": [{"Modality": "CT"}]}, r"^when\.not: write a mapping"),
        ({"Modality": "/(/"}, r"^when\.Modality: /\(/ is not a regular expression"),
        ({"SliceThickness": "<=thin"}, r'^when\.SliceThickness: "thin" after <= is not a number'),
        ({"SliceThickness": "<=1,5"}, r"is not a number"),
        ({"SliceThickness": "1..thick"}, r'"thick" after <= is not'),
        ({"SliceThickness": "..5"}, r'"" after >= is not'),
        ({"Modality": []}, r"^when\.Modality: write a list of plain values"),
        ({"Modality": ["CT", None]}, r"list of plain values"),
        ({"Modality": [["CT"]]}, r"list of plain values"),
        ({"Modality": {"equals": "CT"}}, r"^when\.Modality: an attribute takes a value"),
    ],
)
def test_what_cannot_be_understood_is_named_with_its_place(when: Any, message: str) -> None:
    with pytest.raises(CriteriaError, match=message) as caught:
        criteria.parse(when)
    assert "\n" not in str(caught.value)


# What anybody may write, and what a file may hold -------------------------------------------------

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**600)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["045Y", "20260101", "2026-01-01", "5", "1e999", "٣", "nan", "inf", "0x10", "1_0", "²"])
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
_KEYWORDS = st.sampled_from(["Modality", "SliceThickness", "PatientAge", "StudyDate", "ImageType"])
_TESTS = st.sampled_from(
    [None, "CT", 5, 5.5, "<=5", ">18Y", "1..5", "2026-01-01..2026-12-31", "*c?t[a-z]*", "/^c.t$/"]
) | st.just(["CT", 5, "<3", "2026-01-01"])
_CRITERIA: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(_KEYWORDS, _TESTS, max_size=3),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "any": st.lists(inner, min_size=1, max_size=3),
            "all": st.lists(inner, min_size=1, max_size=3),
            "not": inner,
        },
    ),
    max_leaves=6,
)


def _leaves(when: dict[str, Any]) -> list[str]:
    """The attributes that a `when` tests, in the order it is written."""
    found = []
    for key, wanted in when.items():
        if key in ("any", "all"):
            found += [leaf for item in wanted for leaf in _leaves(item)]
        else:
            found += _leaves(wanted) if key == "not" else [key]
    return found


def _traced(trace: criteria.Trace) -> list[str]:
    if trace.subject in ("any", "all", "not"):
        return [leaf for child in trace.children for leaf in _traced(child)]
    return [trace.subject]


@given(when=_CRITERIA, attributes=st.dictionaries(_KEYWORDS, _JSON, max_size=5))
def test_no_value_can_break_an_evaluation_and_every_test_is_in_its_trace(
    when: dict[str, Any], attributes: dict[str, Any]
) -> None:
    trace = criteria.parse(when).evaluate(attributes)
    assert _traced(trace) == _leaves(when)
    assert json.loads(json.dumps(trace.as_dict()))["verdict"] is trace.verdict


@given(when=_CRITERIA, attributes=st.dictionaries(_KEYWORDS, _SCALARS, max_size=5))
def test_what_decided_would_have_decided_alone(when: dict[str, Any], attributes: dict[str, Any]) -> None:
    """Turning every other test round does not change the verdict."""
    trace = criteria.parse(when).evaluate(attributes)
    decisive = {id(leaf) for leaf in trace.decisive()}
    assert _with_others_turned(trace, decisive) is trace.verdict


def _with_others_turned(trace: criteria.Trace, decisive: set[int]) -> bool:
    if trace.subject not in ("any", "all", "not"):
        return trace.verdict if id(trace) in decisive else not trace.verdict
    verdicts = [_with_others_turned(child, decisive) for child in trace.children]
    if trace.subject == "not":
        return not all(verdicts)
    return any(verdicts) if trace.subject == "any" else all(verdicts)


@given(wanted=_JSON)
def test_whatever_is_written_is_understood_or_refused_in_words(wanted: Any) -> None:
    try:
        criteria.parse({"Modality": wanted}).evaluate({"Modality": "CT"})
    except CriteriaError as error:
        assert "Modality" in str(error)


# What decided -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "decisive"),
    [
        ({"Modality": "CT", "SliceThickness": "<=5"}, ["SliceThickness"]),
        ({"Modality": "MR", "SliceThickness": "<=5"}, ["Modality", "SliceThickness"]),
        ({"any": [{"Modality": "CT"}, {"Modality": "MR"}]}, ["Modality"]),
        ({"Modality": "CT", "not": {"BodyPartExamined": "CHEST"}}, ["BodyPartExamined"]),
        ({"not": {"Modality": "CT", "SliceThickness": "<=5"}}, ["SliceThickness"]),
    ],
)
def test_the_tests_that_made_the_verdict(when: Any, decisive: list[str]) -> None:
    trace = criteria.parse(when).evaluate(
        {"Modality": "CT", "SliceThickness": 7, "BodyPartExamined": "CHEST"}
    )
    assert [leaf.subject for leaf in trace.decisive()] == decisive


def test_the_trace_shows_test_value_and_note() -> None:
    when = {"Modality": ["CT", "PT"], "SliceThickness": "<=5", "ContrastBolusAgent": None}
    trace = criteria.parse(when).evaluate({"Modality": "CT", "SliceThickness": [7, 8]})
    assert trace.as_dict() == {
        "subject": "all",
        "verdict": False,
        "children": [
            {"subject": "Modality", "verdict": True, "test": "CT | PT", "value": "CT", "note": "matches"},
            {
                "subject": "SliceThickness",
                "verdict": False,
                "test": "<=5",
                "value": [7, 8],
                "note": "does not match",
            },
            {
                "subject": "ContrastBolusAgent",
                "verdict": True,
                "test": "missing",
                "value": None,
                "note": "missing",
            },
        ],
    }
