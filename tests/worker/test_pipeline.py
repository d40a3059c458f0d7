"""The journey of a study that goes well, and what every step leaves behind."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from rich.console import Console
from sqlalchemy import delete

from db import associations, models, refusals, studies
from dicom_node.archive import Archive
from dicom_node.senders import Destination, open_sender
from tests.support import enhanced, phantoms
from tests.worker import journey as journeys
from tests.worker.journey import NOW, SERIES, STUDY, Journey
from worker import explain

SHAPE = (6, 32, 40)
ARRAY = phantoms.asymmetric(SHAPE)
#: mL of one voxel.
VOXEL = 2.5 * 0.8 * 0.7 / 1000


def test_each_step_writes_its_rows(journey: Journey) -> None:
    # When the files are received
    journey.receive(journey.store(journeys.datasets()))
    (study,) = journey.rows(models.Study)
    (series,) = journey.rows(models.Series)
    assert (study.state, study.study_instance_uid, study.patient_id) == ("receiving", STUDY, journeys.ID)
    assert (study.accession_number, study.study_date) == (journeys.ACCESSION, "20261101")
    assert (series.series_instance_uid, series.modality) == (SERIES, "CT")
    assert series.attributes["SliceThickness"] == 2.5
    assert len(journey.rows(models.Instance)) == 6

    # When the study is complete
    (job_id,) = journey.close()
    answer = journey.why()
    assert (answer.study.state, answer.study.instances, answer.study.problem) == ("ready", 6, "")
    assert answer.evidence is not None
    assert (answer.evidence["signal"], answer.evidence["instances"]) == ("associations released", 6)
    assert answer.evidence["associations"] == [{"id": "a1", "peer": "modality", "outcome": "released"}]
    (decision,) = answer.decisions
    assert (decision.route, decision.model, decision.matched) == ("chest ct", "tiny", True)
    assert (journey.job().state, journey.job().destinations) == ("queued", ["pacs"])

    # When the model has answered
    ids = journey.analyse(job_id)
    job = journey.job()
    assert (job.state, job.attempts, journey.why().study.state) == ("delivering", 1, "ready")
    assert job.engine.startswith("openvino")
    assert {"read", "infer", "encode"} <= set(job.seconds)
    bone, body = (ARRAY > 500).sum(), ((ARRAY > 0) & (ARRAY <= 500)).sum()
    assert [(segment.label, segment.voxels) for segment in job.segments] == [("Body", body), ("Bone", bone)]
    measured = {(one.key, one.segment): one.value for one in job.measurements}
    assert measured == pytest.approx(
        {
            ("volume", "Body"): body * VOXEL,
            ("volume", "Bone"): bone * VOXEL,
            ("dense", "Bone"): 100 * (ARRAY > 900).sum() / bone,
        }
    )
    (finding,) = job.findings
    assert (finding.key, finding.present) == ("calcified", True)
    assert [(made.kind, made.verified, made.problem) for made in job.objects] == [
        ("seg", True, ""),
        ("sr", True, ""),
    ]
    assert [(one.id, one.destination, one.state) for one in job.deliveries] == [
        (ids[0], "pacs", "pending"),
        (ids[1], "pacs", "pending"),
    ]

    # When one of its deliveries is asked for
    journey.deliver(ids[0])
    job = journey.job()
    assert [one.state for one in job.deliveries] == ["sent", "sent"]
    assert (job.state, journey.why().study.state) == ("done", "done")
    assert [file.sop_instance_uid for file in journey.sent()] == [
        made.sop_instance_uid for made in job.objects
    ]


def test_the_mask_lies_where_the_series_shows_it(journey: Journey) -> None:
    journey.run(journeys.datasets(slice_sign=-1))
    made = pydicom.dcmread(next((journey.storage / "results").rglob("seg.dcm")))
    sources = {str(ds.SOPInstanceUID): index for index, ds in enumerate(journeys.datasets(slice_sign=-1))}
    bone = np.zeros(SHAPE, bool)
    for frame, functional in zip(
        np.atleast_3d(made.pixel_array), made.PerFrameFunctionalGroupsSequence, strict=True
    ):
        if functional.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            image = functional.DerivationImageSequence[0].SourceImageSequence[0]
            bone[sources[str(image.ReferencedSOPInstanceUID)]] = frame
    assert np.array_equal(bone, ARRAY > 500)
    assert (made.PatientID, made.AccessionNumber) == (journeys.ID, journeys.ACCESSION)


def test_an_enhanced_image_makes_the_same_journey(journey: Journey) -> None:
    # Given the same slices as one multi-frame image, whose thickness stands in its functional groups
    slices = journeys.datasets()
    journey.routes = [
        journeys.route(when={"Modality": "CT", "SliceThickness": "<=3", "NumberOfFrames": ">=6"})
    ]
    journey.run([enhanced.image(slices[::-1])])
    # Then the study is one instance, complete and answered
    (series,) = journey.rows(models.Series)
    assert (series.attributes["SliceThickness"], series.attributes["PixelSpacing"]) == (2.5, [0.8, 0.7])
    assert (journey.why().study.state, journey.why().study.instances) == ("done", 1)
    job = journey.job()
    bone, body = (ARRAY > 500).sum(), ((ARRAY > 0) & (ARRAY <= 500)).sum()
    assert [(segment.label, segment.voxels) for segment in job.segments] == [("Body", body), ("Bone", bone)]
    # And the mask lies on the frames that show it
    made = pydicom.dcmread(next((journey.storage / "results").rglob("seg.dcm")))
    found = np.zeros(SHAPE, bool)
    for frame, functional in zip(made.pixel_array, made.PerFrameFunctionalGroupsSequence, strict=True):
        if functional.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            image = functional.DerivationImageSequence[0].SourceImageSequence[0]
            found[6 - image.ReferencedFrameNumber] = frame
    assert np.array_equal(found, ARRAY > 500)


def test_a_real_peer_gets_the_very_bytes(journey: Journey, tmp_path: Path) -> None:
    with Archive(tmp_path / "pacs", ae_title="PACS") as archive:
        journey.destinations = {
            "pacs": Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=archive.port)
        }
        journey.open_sender = open_sender
        journey.run(journeys.datasets())
        arrived = {received.sop_instance_uid: received.path for received in archive.received}
    job = journey.job()
    assert (job.state, [one.status for one in job.deliveries]) == ("done", ["0x0000", "0x0000"])
    assert set(arrived) == {made.sop_instance_uid for made in job.objects}
    for made in journey.rows(models.ResultObject):
        here = pydicom.dcmread(journey.storage / "results" / made.path)
        there = pydicom.dcmread(arrived[made.sop_instance_uid])
        assert here == there


def test_a_step_whose_work_is_done_does_nothing(journey: Journey) -> None:
    stored = journey.store(journeys.datasets())
    journey.receive(stored)
    journey.receive(stored)
    (job_id,) = journey.close()
    assert journey.close() == []
    ids = journey.analyse(job_id)
    assert journey.analyse(job_id) == []
    for delivery_id in [*ids, *ids]:
        journey.deliver(delivery_id)
    journey.receive(stored)
    assert journey.close() == []
    assert len(journey.sent()) == 2
    assert (journey.why().study.state, journey.why().study.revision) == ("done", 1)


def test_nothing_leaves_where_no_route_says_so(journey: Journey) -> None:
    journey.routes = [journeys.route(send_to=())]
    (job_id,) = journey.arrive(journeys.datasets())
    assert journey.analyse(job_id) == []
    assert (journey.job().state, len(journey.job().objects), journey.job().deliveries) == ("done", 2, [])
    assert journey.why().study.state == "done"


def test_a_study_that_no_route_wants_is_done_at_once(journey: Journey) -> None:
    journey.routes = [journeys.route(when={"Modality": "MR"})]
    assert journey.arrive(journeys.datasets()) == []
    answer = journey.why()
    assert (answer.study.state, answer.jobs) == ("done", [])
    assert [one.reason for one in answer.decisions] == ["the route does not match: Modality is CT, wanted MR"]


def test_two_routes_that_ask_the_same_share_one_job(journey: Journey) -> None:
    journey.routes = [
        journeys.route("one"),
        journeys.route("two", when={}, send_to=("workstation",)),
    ]
    journey.run(journeys.datasets())
    answer = journey.why()
    assert [one.route for one in answer.decisions if one.matched] == ["one", "two"]
    (job,) = answer.jobs
    assert job.destinations == ["pacs", "workstation"]
    assert job.state == "done"
    assert (len(journey.sent("pacs")), len(journey.sent("workstation"))) == (2, 2)
    assert len(job.objects) == 2


def test_two_series_are_two_jobs(journey: Journey) -> None:
    other = f"{STUDY}.2"
    journey.run([*journeys.datasets(), *journeys.datasets(series_uid=other, spacing=(1.5, 0.8, 0.7))])
    jobs = journey.why().jobs
    assert {job.series_instance_uid for job in jobs} == {SERIES, other}
    assert [job.state for job in jobs] == ["done", "done"]
    assert len({made.sop_instance_uid for job in jobs for made in job.objects}) == 4


# When a study counts as complete ------------------------------------------------------------------


def _first_close(journey: Journey, *seconds: float) -> list[bool]:
    """Whether the study is closed so many seconds after its last image."""
    last = journey.rows(models.Study)[0].last_instance_at
    return [bool(journey.close(last + timedelta(seconds=after))) for after in seconds]


def test_a_released_association_needs_a_short_quiet_time(journey: Journey) -> None:
    journey.receive(journey.store(journeys.datasets()))
    assert _first_close(journey, 4, 5.5) == [False, True]


@pytest.mark.parametrize("outcome", ["aborted", "lost"])
def test_a_broken_association_needs_a_long_one(journey: Journey, outcome: str) -> None:
    made = journeys.datasets()
    journey.receive(journey.store(made[:3], association="a1"))
    journey.receive(journey.store(made[3:], association="a2", outcome=outcome))
    assert _first_close(journey, 6, 58, 61) == [False, False, True]
    evidence = journey.why().evidence
    assert evidence is not None
    assert (evidence["signal"], evidence["needed_seconds"]) == ("long quiet time", 60)
    assert [row["outcome"] for row in evidence["associations"]] == ["released", outcome]


def test_files_that_nobody_is_known_to_have_carried_need_a_long_one(journey: Journey) -> None:
    journey.receive(journey.store(journeys.datasets(), association=None))
    assert _first_close(journey, 6, 61) == [False, True]


def test_an_open_association_is_waited_for(journey: Journey) -> None:
    made = journeys.datasets()
    journey.receive(journey.store(made[:3]))
    journey.receive(journey.store(made[3:], association="a2", outcome="open"))
    assert journey.close(NOW) == []
    assert journey.why().study.state == "receiving"


def test_the_wait_is_named(journey: Journey) -> None:
    made = journeys.datasets()
    journey.receive(journey.store(made[:3], outcome="open"))
    (awaited,) = journey.why().waiting_for
    assert awaited.startswith("the association of modality, open since ")
    journey.receive(journey.store(made[3:], association="a2", outcome="aborted"))
    with journey.database.write() as session:
        associations.close(session, "a1", outcome="released", at=datetime.now(UTC))
    (awaited,) = journey.why().waiting_for
    assert awaited.startswith("the long quiet time (node.long_quiet_seconds), for an association was aborted")
    journey.close()
    assert journey.why().waiting_for == []


# Refused images -----------------------------------------------------------------------------------


def _refuse(journey: Journey, *uids: str) -> None:
    with journey.database.write() as session:
        for uid in uids:
            refusals.note(session, "a1", status=0xA700, sop_instance_uid=uid, reason="the disk is full")


def test_refused_images_are_waited_for_and_then_said(journey: Journey) -> None:
    # Given a sender that carries on after refusals, was told twice of one image, and of one without UID
    made = journeys.datasets()
    journey.receive(journey.store(made[:4]))
    _refuse(journey, made[4].SOPInstanceUID, made[5].SOPInstanceUID, made[5].SOPInstanceUID, "")
    assert "3 images were refused" in journey.why().waiting_for[0]
    # Then the study has the long time, its result is made of what arrived, and a person is told
    assert _first_close(journey, 6, 61) == [False, True]
    answer = journey.why()
    assert answer.evidence is not None
    assert (answer.evidence["refused"], answer.evidence["refused_with"]) == (3, "0xA700")
    assert answer.study.problem.startswith("3 images refused on its associations (0xA700) never came")
    assert "of the 4 that arrived" in answer.study.problem
    assert journey.job().state == "queued"
    with journey.database.read() as session:
        assert studies.count(session, attention=True) == 1


def test_refused_images_that_came_after_all_are_not_missed(journey: Journey) -> None:
    made = journeys.datasets()
    journey.receive(journey.store(made[:4]))
    _refuse(journey, made[4].SOPInstanceUID, made[5].SOPInstanceUID)
    journey.close()
    journey.receive(journey.store(made[4:], association="a2"))
    assert _first_close(journey, 5.5) == [True]
    answer = journey.why()
    assert answer.evidence is not None and "refused" not in answer.evidence
    assert (answer.study.revision, answer.study.problem) == (2, "")
    with journey.database.read() as session:
        assert studies.count(session, attention=True) == 0


# Late images --------------------------------------------------------------------------------------


def test_late_images_make_a_revision_with_an_answer_of_its_own(journey: Journey) -> None:
    made = journeys.datasets()
    journey.run(made[:5])
    first = journey.job()
    journey.run(made[5:], association="a2")
    answer = journey.why()
    assert (answer.study.revision, answer.study.state, answer.study.instances) == (2, "done", 6)
    second = answer.jobs[-1]
    assert (len(answer.jobs), second.state) == (2, "done")
    assert second.identity != first.identity
    assert not {made.sop_instance_uid for made in first.objects} & {
        made.sop_instance_uid for made in second.objects
    }
    assert "late-images" in [event.kind for event in answer.events]
    assert len(journey.sent()) == 4


def test_late_images_cancel_what_still_waits(journey: Journey) -> None:
    made = journeys.datasets()
    (old,) = journey.arrive(made[:5])
    (new,) = journey.arrive(made[5:], association="a2")
    superseded, waiting = journey.why().jobs
    assert (superseded.id, superseded.state, superseded.reason) == (old, "cancelled", "superseded")
    assert (waiting.id, waiting.state) == (new, "queued")
    assert journey.analyse(old) == []
    journey.follow([new])
    assert journey.why().study.state == "done"


def test_late_images_that_came_before_the_claim_are_not_in_the_old_answer(journey: Journey) -> None:
    # Given a job that waits, and a late image that is not closed yet
    made = journeys.datasets()
    (old,) = journey.arrive(made[:5])
    journey.receive(journey.store(made[5:], association="a2"))
    # When the job is claimed
    journey.analyse(old)
    # Then its answer is of the five images that are its identity
    assert journey.job().state == "delivering"
    sources = set()
    for path in (journey.storage / "results").rglob("seg.dcm"):
        series = pydicom.dcmread(path).ReferencedSeriesSequence[0]
        sources |= {str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence}
    assert sources <= {str(ds.SOPInstanceUID) for ds in made[:5]}
    assert sum(segment.voxels for segment in journey.job().segments) == (ARRAY[:5] > 0).sum()
    journey.follow(journey.close())
    assert [(job.revision, job.state) for job in journey.why().jobs][1] == (2, "done")


def test_a_job_whose_images_are_not_its_own_any_more_is_superseded(journey: Journey) -> None:
    (old,) = journey.arrive(journeys.datasets())
    with journey.database.write() as session:
        session.execute(delete(models.Instance).where(models.Instance.id == 1))
    assert journey.analyse(old) == []
    job = journey.job()
    assert (job.state, job.reason) == ("cancelled", "superseded")
    assert "no longer holds just the images" in job.error
    assert journey.why().study.state == "done"


def test_an_older_revision_s_failure_is_not_the_study_s_problem(journey: Journey) -> None:
    # Given a gap that late images fill
    made = journeys.datasets()
    journey.run([*made[:2], *made[3:]])
    assert "missing-slice" in {job.reason for job in journey.why().jobs}
    assert journey.why().study.problem
    journey.run(made[2:3], association="a2")
    # Then the failure is told with its revision, and needs nobody any more
    answer = journey.why()
    assert [(job.revision, job.state) for job in answer.jobs] == [(1, "failed"), (2, "done")]
    assert answer.study.problem == ""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(explain.why_tree(answer))
    assert [
        line.count("of revision") for line in console.export_text().splitlines() if "attempt" in line
    ] == [
        1,
        0,
    ]


def test_late_images_of_another_series_leave_the_answer_as_it_is(journey: Journey) -> None:
    journey.run(journeys.datasets())
    first = journey.job()
    journey.run(journeys.datasets(series_uid=f"{STUDY}.2"), association="a2")
    jobs = journey.why().jobs
    assert [job.id for job in jobs if job.series_instance_uid == SERIES] == [first.id]
    assert [job.state for job in jobs] == ["done", "done"]
    assert len(journey.sent()) == 4


def test_the_same_images_again_change_nothing(journey: Journey) -> None:
    journey.run(journeys.datasets())
    journey.run(journeys.datasets(), association="a2")
    assert (journey.why().study.revision, len(journey.why().jobs), len(journey.sent())) == (1, 1, 2)
    assert {row.duplicates for row in journey.rows(models.Instance)} == {1}
