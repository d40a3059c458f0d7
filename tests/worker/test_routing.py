"""Routing is a pure function from attributes to decisions, each with the trace that decided."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import criteria, routing
from worker.routing import InputRule, ModelRule, RouteRule, SeriesView


def _route(name: str = "chest ct", *run: str, when: Any = None, send_to: tuple[str, ...] = ()) -> RouteRule:
    wanted = {"Modality": "CT"} if when is None else when
    return RouteRule(name=name, when=criteria.parse(wanted), run=run or ("chest-ct",), send_to=send_to)


def _model(name: str = "chest-ct", series: Any = None) -> dict[str, ModelRule]:
    inputs = (InputRule(role="image", series=criteria.parse(series or {})),)
    rule = ModelRule(name=name, version="1", digest="d" * 64, inputs=inputs, results=("seg",))
    return {name: rule}


def _view(number: int, **attributes: Any) -> SeriesView:
    return SeriesView(
        series_id=number,
        series_instance_uid=f"1.2.{number}",
        attributes={"Modality": "CT", **attributes},
        sop_instance_uids=(f"1.2.{number}.1", f"1.2.{number}.2"),
    )


def test_each_route_is_asked_about_each_series() -> None:
    routes = [_route("a"), _route("b", when={"Modality": "MR"})]
    decisions = routing.decide(routes, _model(), [_view(1), _view(2, Modality="MR")])
    assert [(one.route, one.series and one.series.series_id, one.matched) for one in decisions] == [
        ("a", 1, True),
        ("a", 2, False),
        ("b", 1, False),
        ("b", 2, True),
    ]


def test_the_same_question_has_the_same_answer_and_changes_nothing() -> None:
    routes = [_route("a", "chest-ct", "other"), _route("b", when={"any": [{"SliceThickness": "<=5"}]})]
    views = [_view(1, SliceThickness="2.5"), _view(2), _view(3, Modality=None, ImageType=["A", "B"])]
    models = _model(series={"SliceThickness": "<3"})
    before = copy.deepcopy([(dict(view.attributes), view.sop_instance_uids) for view in views])
    first = routing.decide(routes, models, views)
    assert routing.decide(routes, models, views) == first
    assert [(dict(view.attributes), view.sop_instance_uids) for view in views] == before


def test_a_route_that_does_not_match_says_which_value_was_found() -> None:
    (decision,) = routing.decide([_route()], _model(), [_view(1, Modality="MR")])
    assert (decision.model, decision.matched) == ("", False)
    assert decision.reason == "the route does not match: Modality is MR, wanted CT"


def test_a_missing_attribute_is_said_to_be_missing() -> None:
    route = _route(when={"SliceThickness": "<=5", "ImageType": "PRIMARY"})
    (decision,) = routing.decide([route], _model(), [_view(1, ImageType=["DERIVED", "SECONDARY"])])
    assert decision.reason == (
        "the route does not match: SliceThickness is missing, wanted <=5; "
        "ImageType is DERIVED\\SECONDARY, wanted PRIMARY"
    )


def test_a_test_that_must_not_hold_is_told_apart_from_one_that_must() -> None:
    route = _route(when={"not": {"ImageType": "LOCALIZER"}})
    (decision,) = routing.decide([route], _model(), [_view(1, ImageType=["ORIGINAL", "LOCALIZER"])])
    assert (
        decision.reason == "the route does not match: ImageType is ORIGINAL\\LOCALIZER, tested for LOCALIZER"
    )


def test_each_model_of_a_route_has_its_own_word() -> None:
    models = _model() | _model("thin", {"SliceThickness": "<=1"})
    route = _route("a", "chest-ct", "thin", "gone")
    decisions = routing.decide([route], models, [_view(1, SliceThickness="2.5")])
    assert [(one.model, one.matched) for one in decisions] == [
        ("chest-ct", True),
        ("thin", False),
        ("gone", False),
    ]
    assert "the model does not take it: SliceThickness is 2.5, wanted <=1" in decisions[1].reason
    assert "no usable model gone" in decisions[2].reason and "models list" in decisions[2].reason


def test_the_trace_holds_the_route_s_tests_and_the_model_s() -> None:
    models = _model(series={"SliceThickness": "<=1"})
    (decision,) = routing.decide([_route()], models, [_view(1, SliceThickness="2.5")])
    whole = decision.trace.as_dict()
    leaves = [leaf for part in whole["children"] for leaf in part["children"]]
    assert [(leaf["subject"], leaf["verdict"]) for leaf in leaves] == [
        ("Modality", True),
        ("SliceThickness", False),
    ]
    assert whole["verdict"] is False


_UIDS = st.lists(st.from_regex(r"1(\.[1-9][0-9]{0,3}){1,4}", fullmatch=True), unique=True, max_size=8)


@given(uids=_UIDS, data=st.data())
def test_a_job_is_the_same_in_whatever_order_its_images_came(uids: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(uids))
    first = routing.identity("d", uids, {"series": "1.2", "a": 1})
    assert routing.identity("d", shuffled, {"a": 1, "series": "1.2"}) == first
    assert len(first) == 64


@pytest.mark.parametrize(
    ("digest", "uids", "parameters"),
    [
        ("e", ["1.1", "1.2"], {"series": "1"}),
        ("d", ["1.1"], {"series": "1"}),
        ("d", ["1.1", "1.2", "1.3"], {"series": "1"}),
        ("d", ["1.11.2"], {"series": "1"}),
        ("d", ["1.1", "1.2"], {"series": "2"}),
        ("d", ["1.1", "1.2"], {}),
    ],
)
def test_another_model_other_images_or_another_series_is_another_job(
    digest: str, uids: list[str], parameters: dict[str, str]
) -> None:
    assert routing.identity(digest, uids, parameters) != routing.identity(
        "d", ["1.1", "1.2"], {"series": "1"}
    )


def test_an_identity_does_not_change_between_versions() -> None:
    """Result UIDs are derived from it: were it made otherwise, an old job would be answered twice."""
    assert routing.identity("d" * 64, ["1.2", "1.1"], {"series": "1"}) == (
        "933982ac7a22adbe0cc840d54eb1d96d13f8cc56c33d24a07f2fb225283389d2"
    )
