"""No loop: results that come back, ours or another AI's, are known, kept, told of, and never analysed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from rich.console import Console

from db import models
from dicom_node import own_uids
from dicom_node.loop_guard import LoopGuard
from tests.dicom_node.test_loop_guard import device
from tests.worker import journey as journeys
from tests.worker.journey import SERIES, STUDY, Journey
from worker import explain, loop_guard
from worker.loop_guard import ConfiguredGuard
from worker.sections import Guard


def configured(**values: Any) -> ConfiguredGuard:
    return ConfiguredGuard.of(Guard(**values))


def results_of(journey: Journey) -> list[Dataset]:
    """What the PACS got."""
    return [pydicom.dcmread(file.path) for file in journey.sent()]


def state(journey: Journey) -> tuple[str, int, dict[str, int], int]:
    study = journey.why().study
    return study.state, study.revision, study.jobs, study.guarded


def kinds(journey: Journey) -> list[str]:
    return [event.kind for event in journey.rows(models.Event)]


def renamed(made: Sequence[Dataset]) -> list[Dataset]:
    """As a PACS stores them that gives every object new UIDs."""
    for number, ds in enumerate(made, start=1):
        ds.SeriesInstanceUID = f"{STUDY}.77.{number}"
        ds.SOPInstanceUID = f"{STUDY}.77.{number}.1"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return list(made)


@pytest.mark.parametrize("coerced", [False, True])
def test_our_results_routed_back_start_nothing(journey: Journey, coerced: bool) -> None:
    # Given a route that would take anything
    journey.routes = [journeys.route(when={"any": [{"Modality": "CT"}, {"Modality": ["SEG", "SR"]}]})]
    journey.run(journeys.datasets())
    assert state(journey) == ("done", 1, {"done": 1}, 0)
    made = results_of(journey)
    assert len(made) == 2
    # When the PACS routes them back to us, twice, and the CT with them
    for association in ("a2", "a3"):
        came = renamed(made) if coerced else made
        assert journey.arrive([*came, *journeys.datasets()], association=association) == []
    # Then nothing moved, and it is told why
    assert state(journey) == ("done", 1, {"done": 1}, 2)
    assert kinds(journey).count("guarded") == 2
    assert "late-images" not in kinds(journey)
    told = {series.modality: series.guarded for series in journey.why().series}
    assert told["CT"] == ""
    assert told["SEG"].startswith("it is a result of secondread") and told["SEG"] == told["SR"]
    assert len(journey.sent()) == 2
    with io.StringIO() as said:
        Console(file=said, width=200).print(explain.why_tree(journey.why()))
        assert f"guarded: {told['SEG']}" in said.getvalue()


def test_late_images_after_results_came_back_are_analysed_without_them(journey: Journey) -> None:
    made = journeys.datasets()
    journey.run(made[:4])
    journey.arrive(results_of(journey), association="a2")
    # When the rest of the CT comes
    (job_id,) = journey.arrive(made[4:], association="a3")
    answer = journey.why()
    assert (answer.study.state, answer.study.revision) == ("ready", 2)
    # Then every route says of the results why it passed them over
    verdicts = {line.series_instance_uid: line for line in answer.decisions}
    assert verdicts[SERIES].matched
    others = [line for uid, line in verdicts.items() if uid != SERIES]
    assert len(others) == 2
    for line in others:
        assert (line.matched, line.reason) == (
            False,
            "loop guard: it is a result of secondread, by its UID",
        )
    with io.StringIO() as said:
        Console(file=said, width=200).print(explain.why_tree(answer))
        assert "loop guard" in said.getvalue()
    journey.follow([job_id])
    assert journey.why().study.state == "done"


def test_a_study_of_results_only_ends_without_a_job(journey: Journey) -> None:
    journey.run(journeys.datasets())
    elsewhere = results_of(journey)
    for ds in elsewhere:
        ds.StudyInstanceUID = f"{STUDY}.5"
    assert journey.arrive(elsewhere, association="a2") == []
    answer = journey.why(f"{STUDY}.5")
    assert (answer.study.state, answer.jobs, answer.study.guarded) == ("done", [], 2)
    assert {line.reason for line in answer.decisions} == {
        "loop guard: it is a result of secondread, by its UID"
    }


def test_a_ct_that_another_ai_denoised_is_analysed(journey: Journey) -> None:
    made = journeys.datasets()
    for ds in made:
        ds.ContributingEquipmentSequence = [device("109101"), device()]
    assert len(journey.arrive(made)) == 1


def test_a_ct_that_went_round_too_often_is_not(journey: Journey) -> None:
    made = journeys.datasets()
    for ds in made:
        ds.ContributingEquipmentSequence = [device()] * 4
    assert journey.arrive(made) == []
    (decision,) = journey.why().decisions
    assert decision.reason == "loop guard: it passed 4 processing devices, 3 may be"
    assert journey.why().study.state == "done"


def test_more_hops_may_be_allowed(journey: Journey) -> None:
    journey.guard = configured(max_hops=4)
    made = journeys.datasets()
    for ds in made:
        ds.ContributingEquipmentSequence = [device()] * 4
    assert len(journey.arrive(made)) == 1


def test_another_ais_results_are_known_by_criteria(journey: Journey) -> None:
    journey.guard = configured(
        also=[{"Modality": "SEG"}, {"ManufacturerModelName": "*AI*", "ImageType": "DERIVED"}]
    )
    made = journeys.datasets()
    for ds in made:
        ds.ManufacturerModelName, ds.ImageType = "DeNoiser ai 3", ["DERIVED", "SECONDARY"]
    # However many batches, and whichever file is read for the attributes
    read: set[tuple[str, str]] = set()
    journey.receive(journey.store(made[:2]), read)
    journey.receive(journey.store(made[2:]), read)
    assert journey.close() == []
    (series,) = journey.why().series
    assert series.guarded == (
        "it is another AI's result, by guard.also 2: ManufacturerModelName *AI*, ImageType DERIVED"
    )
    assert kinds(journey) == ["guarded"]


def test_criteria_that_do_not_hold_change_nothing(journey: Journey) -> None:
    journey.guard = configured(also=[{"Modality": "CT", "ManufacturerModelName": "*AI*"}])
    assert len(journey.arrive(journeys.datasets())) == 1


def test_switched_off_it_judges_nobody(journey: Journey) -> None:
    journey.run(journeys.datasets())
    journey.guard = configured(enabled=False, also=[{"Modality": "SEG"}])
    journey.arrive(results_of(journey), association="a2")
    # The very loop that the guard is there for
    assert (journey.why().study.revision, journey.why().study.guarded) == (2, 0)


@pytest.mark.parametrize(
    ("settings", "refuses"),
    [({}, False), ({"store": False}, True), ({"store": False, "enabled": False}, False)],
)
def test_what_the_listener_refuses(settings: dict[str, Any], refuses: bool) -> None:
    assert loop_guard.at_the_door(Guard(**settings)) == (LoopGuard(max_hops=3) if refuses else None)


def test_files_that_are_only_tried_are_judged_too(journey: Journey) -> None:
    journey.run(journeys.datasets())
    (seg, _) = journey.sent()
    assert "UID" in configured().reason_of_file(seg.path, {})
    assert own_uids.is_ours(seg.sop_instance_uid)
    other = journey.storage / "note.txt"
    other.write_text("no DICOM")
    assert configured().reason_of_file(other, {}) == ""
