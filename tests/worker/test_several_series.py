"""One job about several series of a study: from the routes to results that name them all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from rich.console import Console
from sqlalchemy import delete

from db import found, jobs, models
from dicom_node.results import references
from tests.support import phantoms
from tests.worker import journey as journeys
from tests.worker import night, pair
from tests.worker.journey import Journey
from tests.worker.pair import FIRST, SECOND, THIRD
from tests.worker.served import served
from worker import explain
from worker.shelf import Shelf


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The model of two series, and one that would rather have thin slices as its T1, warm."""
    folder = tmp_path_factory.mktemp("pairs")
    pair.write_model(folder / "pair")
    thin = pair.entry("t1", prefer=[{"SliceThickness": "<=2"}])
    pair.write_model(folder / "choosy", "choosy", inputs=[thin, pair.entry("t2")])
    opened = Shelf([folder], threads=1)
    assert not opened.problems
    yield opened
    opened.close()


@pytest.fixture
def brain(journey: Journey, pairs: Shelf) -> Journey:
    """An installation that gives MR to the model of two series."""
    journey.shelf = pairs
    journey.routes = [journeys.route("brain", when={"Modality": "MR"}, run=("pair",))]
    return journey


def result(journey: Journey, kind: str) -> Dataset:
    """The last object of a kind that was sent."""
    rows = [row for row in journey.rows(models.ResultObject) if row.kind == kind]
    return pydicom.dcmread(journey.storage / "results" / rows[-1].path)


def evidence(report: Dataset) -> dict[str, int]:
    """How many images of each series a report rests on."""
    found: dict[str, int] = {}
    for _, series, _, _ in references.read(report, "CurrentRequestedProcedureEvidenceSequence"):
        found[series] = found.get(series, 0) + 1
    return found


def reason(journey: Journey) -> str:
    """What was said about the study for the model."""
    (said,) = [line for line in journey.why().decisions if line.model and not line.series_instance_uid]
    return said.reason


def test_both_series_make_one_answer_that_lies_on_the_first(brain: Journey) -> None:
    brain.run(pair.study())
    job = brain.job()
    assert (job.state, brain.why().study.state) == ("done", "done")
    assert (job.series_instance_uid, job.roles) == (FIRST, {"t1": FIRST, "t2": SECOND})
    assert reason(brain) == f"each role has its series: t1 is series {FIRST}, t2 is series {SECOND}"
    # Both show the same body; a coarser one parts from the other at its rim
    body = (phantoms.asymmetric((6, 32, 40)) > 0).sum()
    (segment,) = job.segments
    assert segment.voxels == pytest.approx(body, rel=0.1)
    report, segmentation = result(brain, "sr"), result(brain, "seg")
    own = str(segmentation.SeriesInstanceUID)
    assert evidence(report) == {FIRST: 6, SECOND: 5, own: 1}
    listed = [
        (str(each.SeriesInstanceUID), len(each.ReferencedInstanceSequence))
        for each in segmentation.ReferencedSeriesSequence
    ]
    assert listed == [(FIRST, 6), (SECOND, 5)]
    assert {
        str(each.ReferencedSOPInstanceUID).rpartition(".")[0] for each in segmentation.SourceImageSequence
    } == {FIRST}
    assert job.report is not None and '; with t2, MR, series "t2 flair" (images: 5)' in job.report.about


def test_why_shows_who_took_which_role_and_who_none(brain: Journey) -> None:
    brain.arrive([*pair.study(), *pair.series(THIRD, "survey")])
    said = {line.series_instance_uid: line for line in brain.why().decisions}
    assert (said[FIRST].reason, said[SECOND].reason) == ("it takes the role t1", "it takes the role t2")
    assert not said[THIRD].matched and "as t1 SeriesDescription is survey, wanted t1*" in said[THIRD].reason
    out = io.StringIO()
    Console(file=out, width=200).print(explain.why_tree(brain.why()))
    text = out.getvalue()
    assert f"looks at t1 {FIRST}, t2 {SECOND}" in text and "role t2" in text


def test_a_late_image_of_the_second_series_makes_a_new_answer(brain: Journey) -> None:
    made = pair.study()
    brain.run([*made[:6], *made[6:10]])
    first = result(brain, "sr")
    brain.run(made[10:], association="a2")
    before, after = brain.why().jobs
    assert (before.state, after.state, after.revision, after.supersedes) == ("done", "done", 2, before.id)
    assert after.identity != before.identity and after.roles == before.roles
    assert before.replaced_by == after.id
    report = result(brain, "sr")
    assert evidence(report)[SECOND] == 5 and evidence(first)[SECOND] == 4
    (named,) = references.read(report, "PredecessorDocumentsSequence")
    assert named[-1] == str(first.SOPInstanceUID)


def test_a_late_series_that_takes_a_role_from_another_makes_an_answer_in_the_place_of_the_first(
    brain: Journey,
) -> None:
    brain.routes = [journeys.route("brain", when={"Modality": "MR"}, run=("choosy",))]
    brain.run(pair.study())
    thin = phantoms.Phantom(shape=(10, 32, 40), spacing=(1.5, 0.8, 0.7))
    brain.run(pair.series(THIRD, "t1 space", like=thin), association="a2")
    before, after = brain.why().jobs
    assert (before.roles["t1"], after.roles["t1"]) == (FIRST, THIRD)
    assert (after.state, after.supersedes, before.replaced_by) == ("done", before.id, after.id)
    assert len(references.read(result(brain, "sr"), "PredecessorDocumentsSequence")) == 1
    with brain.database.read() as session:
        values = [each.current for each in found.search(session, code="volume")]
    assert values == [True]


def test_a_late_image_that_has_nothing_to_do_with_it_changes_nothing(brain: Journey) -> None:
    brain.run(pair.study())
    assert brain.arrive(pair.series(THIRD, "survey"), association="a2") == []
    (job,) = brain.why().jobs
    assert (job.state, job.revision, len(brain.sent())) == ("done", 2, 2)


def test_an_image_of_the_second_series_that_comes_while_it_waits_ends_the_job(brain: Journey) -> None:
    made = pair.study()
    (job_id,) = brain.arrive(made[:10])
    brain.receive(brain.store(made[10:], association="a2"))
    follow = brain.analyse(job_id)
    # The images that were there make the answer; the next closing makes the other
    brain.follow(brain.close())
    before, after = brain.why().jobs
    assert follow and (before.roles, after.roles) == ({"t1": FIRST, "t2": SECOND},) * 2
    assert (after.state, after.revision) == ("done", 2)


def test_it_starts_when_its_series_are_complete_and_not_before(brain: Journey) -> None:
    made = pair.study()
    brain.associate("open", "open")
    # Given a localizer that still comes on an association of its own
    brain.receive(brain.store(pair.series(THIRD, "survey")[:2], association="open", outcome="open"))
    brain.receive(brain.store(made[:6], association="a1"))
    assert brain.close() == [] and "no series fits the role t2" in reason(brain)
    # When the second series is there
    brain.receive(brain.store(made[6:], association="a2"))
    (job_id,) = brain.close()
    assert brain.why().study.state == "receiving"
    brain.follow([job_id])
    assert brain.job().state == "done"
    # Then the closing of the study changes nothing
    brain.associate("open", "released")
    assert brain.close() == []
    assert brain.why().study.state == "done" and brain.job().state == "done"
    assert reason(brain).startswith("each role has its series")


def test_two_series_for_a_role_begin_no_job_before_the_study_is_complete(brain: Journey) -> None:
    brain.receive(brain.store(pair.series(THIRD, "t2 sag")[:2], association="open", outcome="open"))
    brain.receive(brain.store(pair.study(), association="a1"))
    # While both fit nothing is begun
    assert brain.close() == [] and f"2 series fit the role t2: {SECOND} and {THIRD}" in reason(brain)
    assert not brain.why().jobs


def test_a_series_that_comes_after_a_job_was_made_for_its_role_ends_it(brain: Journey) -> None:
    brain.receive(
        brain.store(pair.series(f"{journeys.STUDY}.4", "survey")[:2], association="open", outcome="open")
    )
    brain.receive(brain.store(pair.study(), association="a1"))
    (job_id,) = brain.close()
    brain.receive(brain.store(pair.series(THIRD, "t2 sag"), association="a2"))
    brain.associate("open", "released")
    assert brain.close() == []
    assert (brain.job().id, brain.job().state, brain.job().reason) == (job_id, "cancelled", "superseded")
    assert f"2 series fit the role t2: {SECOND} and {THIRD}" in reason(brain)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            [],
            f"no job: no series fits the role t2: of series {FIRST} SeriesDescription is t1 tse, wanted t2*",
        ),
        (["t2 a", "t2 b"], f"no job: 2 series fit the role t2: {SECOND} and {THIRD}; let the"),
    ],
)
def test_a_role_without_one_series_is_no_job(brain: Journey, more: list[str], said: str) -> None:
    made = pair.series(FIRST, "t1 tse")
    for uid, description in zip((SECOND, THIRD), more, strict=False):
        made += pair.series(uid, description)
    assert brain.arrive(made) == []
    assert reason(brain).startswith(said)
    assert brain.why().study.state == "done" and not brain.why().jobs


def test_series_that_do_not_lie_together_fail_and_are_named(brain: Journey) -> None:
    other = pair.series(SECOND, "t2 flair")
    for ds in other:
        ds.FrameOfReferenceUID = "1.2.3"
    brain.run([*pair.series(FIRST, "t1 tse"), *other])
    job = brain.job()
    assert (job.state, job.reason) == ("failed", "engine")
    assert f"t1 and t2 are not in one Frame of Reference ({pair.FRAME} and 1.2.3)" in job.error
    assert f"(t1 is series {FIRST}, t2 is series {SECOND})" in job.error


@pytest.mark.parametrize(
    ("drop", "kind", "said"),
    [
        (slice(2, 5), "engine", "t2: it covers "),
        (slice(2, 3), "missing-slice", "t2: "),
    ],
)
def test_what_is_wrong_with_the_second_series_names_it(
    brain: Journey, drop: slice, kind: str, said: str
) -> None:
    other = pair.series(SECOND, "t2 flair")
    del other[drop]
    brain.run([*pair.series(FIRST, "t1 tse"), *(other if kind != "engine" else other[:2])])
    job = brain.job()
    assert (job.state, job.reason) == ("failed", kind)
    assert job.error.startswith(said) and job.error.endswith(f"(t2 is series {SECOND})")


def test_a_failed_job_runs_again_when_files_of_its_second_series_were_replaced(brain: Journey) -> None:
    (job_id,) = brain.arrive(pair.study())
    with brain.database.write() as session:
        session.execute(delete(models.Job).where(models.Job.id != job_id))
        job = jobs.get(session, job_id)
        assert not jobs._has_replaced_files(session, job)
        series = session.query(models.Series).filter_by(series_instance_uid=SECOND).one()
        session.query(models.Instance).filter_by(series_id=series.id).first().revision = 2  # type: ignore[union-attr]
        session.flush()
        assert jobs._has_replaced_files(session, job)


def test_another_package_in_its_place_takes_the_same_series(brain: Journey, tmp_path: Path) -> None:
    (job_id,) = brain.arrive(pair.study())
    pair.write_model(tmp_path / "models" / "pair", version="1.1.0")
    brain.shelf = Shelf([tmp_path / "models"], threads=1)
    try:
        assert brain.analyse(job_id) == []
        old, new = brain.why().jobs
        assert (old.reason, new.state, new.roles) == ("model-changed", "queued", {"t1": FIRST, "t2": SECOND})
        brain.recover()
        assert brain.why().jobs[1].state == "done"
    finally:
        brain.shelf.close()


def test_the_same_journey_twice_makes_the_same_bytes(brain: Journey) -> None:
    (job_id,) = brain.arrive(pair.study())
    with pytest.raises(journeys.Crash), journeys.Crashing("worker.outcomes.conclude"):
        brain.analyse(job_id)
    made = {path.name: path.read_bytes() for path in (brain.storage / "results").rglob("*.dcm")}
    brain.owner += 1
    brain.recover()
    assert made == {path.name: path.read_bytes() for path in (brain.storage / "results").rglob("*.dcm")}
    assert brain.job().state == "done" and np.size(brain.sent()) == 2


def test_the_pages_and_the_api_show_who_took_which_role(tmp_path: Path, pairs: Shelf) -> None:
    here = night.open_station(tmp_path)
    routes = [journeys.route("brain", when={"Modality": "MR"}, run=("pair",))]
    journey = Journey(database=here.database, storage=tmp_path, shelf=pairs, routes=routes)
    (job_id,) = journey.arrive([*pair.study(), *pair.series(THIRD, "survey")])
    with (
        served(here) as address,
        httpx.Client(base_url=address, timeout=60, headers={"Accept": "text/html"}) as web,
    ):
        study, job = web.get(f"/studies/{journeys.STUDY}").text, web.get(f"/jobs/{job_id}").text
        told = web.get(f"/api/jobs/{job_id}", headers={"Accept": "application/json"}).json()
    here.close()
    assert "each role has its series" in study and "it takes the role t2" in study
    assert "one of its roles" in study and "role t1" in study
    assert (
        "Looks at" in job
        and job.index("<b>t1</b>") < job.index("<b>t2</b>")
        and SECOND in job.replace("<wbr>", "")
    )
    assert told["roles"] == {"t1": FIRST, "t2": SECOND} and told["series_instance_uid"] == FIRST
