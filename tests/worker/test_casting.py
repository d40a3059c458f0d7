"""Each role of a model has one series, or there is no job and everybody can read why."""

from __future__ import annotations

from typing import Any

import pytest

from worker import criteria, routing, subjects
from worker.casting import InputRule, SeriesView
from worker.routing import Decision, ModelRule, RouteRule


def _input(role: str, *prefer: dict[str, Any]) -> InputRule:
    return InputRule(
        role=role,
        series=criteria.parse({"SeriesDescription": f"{role} *"}),
        prefer=tuple(criteria.parse(wish) for wish in prefer),
    )


def _view(number: int, description: str, **attributes: Any) -> SeriesView:
    complete = attributes.pop("complete", True)
    return SeriesView(
        series_id=number,
        series_instance_uid=f"1.2.{number}",
        attributes={"Modality": "MR", "SeriesDescription": description, **attributes},
        sop_instance_uids=(f"1.2.{number}.1", f"1.2.{number}.2"),
        complete=complete,
    )


T1, T2, LOCALIZER = _view(1, "t1 tse"), _view(2, "t2 tse"), _view(3, "survey")
INPUTS = (_input("t1"), _input("t2"))


def _decide(
    *series: SeriesView, beside: tuple[SeriesView, ...] = (), inputs: Any = INPUTS, when: Any = None
) -> Any:
    rule = ModelRule(name="pair", version="1", digest="d" * 64, inputs=inputs, results=("seg",))
    route = RouteRule(
        name="brain", when=criteria.parse(when or {"Modality": "MR"}), run=("pair",), send_to=()
    )
    return routing.decide([route], {"pair": rule}, series, beside=beside)


def _said(decisions: list[Decision]) -> dict[str, str]:
    """Reasons by series, "" for the study."""
    return {one.series.series_instance_uid if one.series else "": one.reason for one in decisions}


def test_a_series_for_each_role_is_one_job() -> None:
    decisions = _decide(LOCALIZER, T2, T1)
    assert _said(decisions) == {
        "1.2.3": "it fits no role: as t1 SeriesDescription is survey, wanted t1 *; "
        "as t2 SeriesDescription is survey, wanted t2 *",
        "1.2.2": "it takes the role t2",
        "1.2.1": "it takes the role t1",
        "": "each role has its series: t1 is series 1.2.1, t2 is series 1.2.2",
    }
    assert [one.matched for one in decisions] == [False, True, True, True]
    (job,) = [one for one in decisions if one.taken]
    assert list(job.taken.items()) == [("t1", T1), ("t2", T2)] and job.series is None


def test_a_role_without_a_series_is_named_with_what_was_looked_at() -> None:
    decisions = _decide(T1, LOCALIZER)
    assert not any(one.taken or one.matched for one in decisions)
    assert _said(decisions)["1.2.1"] == "it fits the role t1; the model's own line says why there is no job"
    assert _said(decisions)[""] == (
        "no job: no series fits the role t2: of series 1.2.1 SeriesDescription is t1 tse, wanted t2 *; "
        "of series 1.2.3 SeriesDescription is survey, wanted t2 *"
    )
    (study,) = [one for one in decisions if one.series is None]
    assert study.trace.as_dict()["children"] == [
        {"subject": "role t1", "verdict": True, "test": "one series", "value": ["1.2.1"], "note": ""},
        {"subject": "role t2", "verdict": False, "test": "one series", "value": None, "note": "no series"},
    ]


def test_a_study_of_very_many_series_does_not_make_an_endless_sentence() -> None:
    reason = _said(_decide(T1, *(_view(number, "survey") for number in range(10, 60))))[""]
    assert reason.endswith("; and 43 more series do not") and reason.count("of series") == 8


def test_a_series_that_the_route_does_not_match_has_no_role_and_is_named() -> None:
    pet = _view(2, "t2 tse", Modality="PT")
    said = _said(_decide(T1, pet))
    assert said["1.2.2"] == "the route does not match: Modality is PT, wanted MR"
    assert "series 1.2.2 fits, but the route does not match it: Modality is PT, wanted MR" in said[""]


def test_a_route_that_matches_nothing_asks_no_model() -> None:
    assert [one.model for one in _decide(T1, T2, when={"Modality": "CT"})] == ["", ""]


@pytest.mark.parametrize("double", ["t1 sag", "t2 sag"])
def test_two_series_that_fit_one_role_are_no_job(double: str) -> None:
    decisions = _decide(T1, T2, _view(4, double))
    assert not any(one.taken for one in decisions)
    role, first = double[:2], {"t1": "1.2.1", "t2": "1.2.2"}[double[:2]]
    assert f"no job: 2 series fit the role {role}: {first} and 1.2.4; let the" in _said(decisions)[""]


def test_a_series_that_fits_two_roles_is_no_job() -> None:
    both = InputRule(role="t1c", series=criteria.parse({"SeriesDescription": "t1 *"}))
    decisions = _decide(T1, T2, inputs=(*INPUTS, both))
    assert not any(one.taken for one in decisions)
    assert "series 1.2.1 fits the roles t1 and t1c" in _said(decisions)[""]
    assert _said(decisions)["1.2.1"].startswith("it fits the role t1 and the role t1c; ")


def test_a_preference_decides_and_one_that_nothing_meets_does_not() -> None:
    inputs = (_input("t1"), _input("t2", {"SliceThickness": "<=0.1"}, {"SliceThickness": "<=1"}))
    thin, thick = _view(4, "t2 space", SliceThickness="1"), _view(5, "t2 tse", SliceThickness="4")
    decisions = _decide(T1, thick, thin, inputs=inputs)
    (job,) = [one for one in decisions if one.taken]
    assert job.taken["t2"] is thin
    assert _said(decisions)["1.2.5"] == "it fits the role t2; series 1.2.4 is preferred"
    # Two that are equally wanted are as bad as without it
    assert (
        "2 series fit the role t2: 1.2.4 and 1.2.6"
        in (_said(_decide(T1, thin, _view(6, "t2 a", SliceThickness="1"), inputs=inputs))[""])
    )


def test_a_series_that_still_comes_is_waited_for() -> None:
    decisions = _decide(T1, beside=(_view(2, "t2 tse", complete=False),))
    assert not any(one.taken for one in decisions)
    assert _said(decisions)[""] == "no job: series 1.2.2, its t2, is not complete yet"
    # Once it is complete the one that was complete before takes part
    decisions = _decide(T2, beside=(T1,))
    assert _said(decisions).keys() == {"1.2.2", ""}
    (job,) = [one for one in decisions if one.taken]
    assert list(job.taken) == ["t1", "t2"]


def test_a_result_takes_no_role() -> None:
    guarded = SeriesView(
        series_id=4,
        series_instance_uid="1.2.4",
        attributes=T1.attributes,
        sop_instance_uids=("1",),
        guarded="our own",
    )
    decisions = _decide(guarded, T1, T2)
    assert [one.matched for one in decisions] == [False, True, True, True]


def test_every_series_and_every_role_is_part_of_the_identity() -> None:
    taken = {"t1": T1, "t2": T2}
    more = _view(2, "t2 tse")
    more = SeriesView(
        series_id=2,
        series_instance_uid="1.2.2",
        attributes=more.attributes,
        sop_instance_uids=(*more.sop_instance_uids, "1.2.2.3"),
    )
    made = [
        subjects.identity("d", named)
        for named in (
            taken,
            {"t1": T1},
            {"t1": T1, "t2": more},
            {"t2": T2, "t1": T1},
            {"t1": T1, "flair": T2},
            {"t1": T1, "t2": T2, "t3": LOCALIZER},
        )
    ]
    assert len(set(made)) == len(made)
    shuffled = SeriesView(
        series_id=2,
        series_instance_uid="1.2.2",
        attributes={},
        sop_instance_uids=tuple(reversed(T2.sop_instance_uids)),
    )
    assert subjects.identity("d", {"t1": T1, "t2": shuffled}) == made[0]


def test_the_identity_of_one_series_is_what_it_always_was() -> None:
    assert subjects.identity("d", {"image": T1}) == routing.identity(
        "d", T1.sop_instance_uids, {"series": "1.2.1"}
    )
