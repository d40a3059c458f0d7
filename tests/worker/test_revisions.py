"""Images that come late, or again with other bytes: what is analysed anew, and whose place the answer takes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from rich.console import Console

from db import migrate, models
from db.base import Database
from dicom_node import stored_files
from dicom_node.senders.memory import MemorySender
from engines import predict
from tests.support import phantoms
from tests.worker import journey as journeys
from tests.worker.journey import SERIES, STUDY, Journey, crash_after, crash_before
from worker import explain, views
from worker.shelf import Shelf


def reports(journey: Journey) -> list[Dataset]:
    """The reports of the study's jobs that made some, in the order of the jobs."""
    return [
        pydicom.dcmread(journey.storage / "results" / made.path)
        for job in journey.why().jobs
        for made in job.objects
        if made.kind == "sr"
    ]


def predecessors(report: Dataset) -> list[str]:
    """SOP Instance UIDs of the reports that one names as its predecessors."""
    return [
        str(instance.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence") or ()
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


#: The phantom's values (HU), slice by slice.
ARRAY = phantoms.asymmetric((6, 32, 40))


def changed(made: list[Dataset], *, dense: bool) -> list[Dataset]:
    """The same images, as they are, or without bone."""
    for ds in made:
        values = ARRAY[int(str(ds.SOPInstanceUID).rpartition(".")[2]) - 1]
        shown = values if dense else np.minimum(values, 20)
        ds.PixelData = (shown + 1024).astype(np.uint16).tobytes()
    return made


def bone(job: views.JobDetail) -> int:
    """How many voxels of bone a job found."""
    return next((segment.voxels for segment in job.segments if segment.label == "Bone"), 0)


# Late images


def test_a_late_image_s_answer_names_the_one_whose_place_it_takes(journey: Journey) -> None:
    made = journeys.datasets()
    journey.run(made[:4])
    journey.run(made[4:5], association="a2")
    journey.run(made[5:], association="a3")
    first, second, third = reports(journey)
    assert [job.supersedes for job in journey.why().jobs] == [None, 1, 2]
    assert [predecessors(each) for each in (first, second, third)] == [
        [],
        [str(first.SOPInstanceUID)],
        [str(second.SOPInstanceUID)],
    ]
    assert [each.SeriesDescription.partition(":")[0] for each in (first, second, third)] == [
        "AI unverified (research)",
        "AI rev 2 unverified (research, replaces rev 1)",
        "AI rev 3 unverified (research, replaces rev 2)",
    ]
    # Three whole sets left, and each object once
    sent = [file.sop_instance_uid for file in journey.sent()]
    assert len(sent) == len(set(sent)) == 6


def test_late_images_of_another_series_replace_nothing(journey: Journey) -> None:
    journey.run(journeys.datasets())
    journey.run(journeys.datasets(series_uid=f"{STUDY}.2"), association="a2")
    assert [predecessors(report) for report in reports(journey)] == [[], []]
    assert [job.supersedes for job in journey.why().jobs] == [None, None]


def test_an_answer_that_never_left_is_nobody_s_predecessor(journey: Journey) -> None:
    made = journeys.datasets()
    journey.pacs["pacs"] = MemorySender(answer=lambda file: 0xA900)
    journey.run(made[:5])
    assert journey.job().reason == "undelivered"
    journey.pacs["pacs"] = MemorySender()
    journey.run(made[5:], association="a2")
    assert [job.supersedes for job in journey.why().jobs] == [None, None]
    assert predecessors(reports(journey)[1]) == []


def test_what_is_on_its_way_leaves_and_is_replaced(journey: Journey) -> None:
    # Given an answer that is to be sent when late images make another
    made = journeys.datasets()
    (first,) = journey.arrive(made[:5])
    waiting = journey.analyse(first)
    journey.run(made[5:], association="a2")
    assert [job.state for job in journey.why().jobs] == ["delivering", "done"]
    # Then it leaves all the same, whole
    for delivery in waiting:
        journey.deliver(delivery)
    assert [job.state for job in journey.why().jobs] == ["done", "done"]
    assert len({file.sop_instance_uid for file in journey.sent()}) == 4
    assert predecessors(reports(journey)[1]) == [str(reports(journey)[0].SOPInstanceUID)]


def test_an_analysis_that_late_images_overtake_is_dropped(journey: Journey) -> None:
    # Given a job in whose analysis a late image comes, and the study is closed again
    made = journeys.datasets()
    (first,) = journey.arrive(made[:5])
    original, follow = predict.predict, list[int]()

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        journey.receive(journey.store(made[5:], association="a2"))
        follow.extend(journey.close())
        return original(*arguments, **named)

    with mock.patch.object(predict, "predict", meanwhile):
        assert journey.analyse(first) == []
    # Then what it made is nobody's, and the new job answers as the first
    old, _ = journey.why().jobs
    assert (old.state, old.reason, old.objects) == ("cancelled", "superseded", [])
    journey.follow(follow)
    assert journey.why().study.state == "done"
    assert len(journey.sent()) == 2
    assert journey.why().jobs[1].supersedes is None


def test_a_retry_names_the_same_predecessor_byte_for_byte(journey: Journey) -> None:
    made = journeys.datasets()
    journey.run(made[:5])
    journey.pacs["pacs"] = MemorySender(
        answer=lambda file: 0xA900 if file.sop_class_uid.endswith("34") else 0
    )
    journey.run(made[5:], association="a2")
    second = journey.why().jobs[1]
    assert second.reason == "undelivered"
    before = journey.facts()["files"]
    # Though by now the first one's results are gone from the ledger of what left
    with journey.database.write() as session:
        session.execute(models.Delivery.__table__.update().values(state="dead"))
        assert journeys.jobs.retry(session, second.id)
    journey.pacs["pacs"] = MemorySender()
    journey.follow([second.id])
    assert journey.facts()["files"] == before
    assert journey.why().jobs[1].supersedes == 1


# The same image again, with other bytes


def test_the_last_bytes_are_analysed_where_the_policy_says_so(journey: Journey) -> None:
    journey.keep_last = True
    journey.run(changed(journeys.datasets(), dense=False))
    journey.run(changed(journeys.datasets(), dense=True), association="a2")
    answer = journey.why()
    first, second = answer.jobs
    assert (answer.study.revision, answer.study.state) == (2, "done")
    assert (bone(first), bone(second)) == (0, (ARRAY > 500).sum())
    assert second.identity != first.identity
    assert second.supersedes == first.id
    assert predecessors(reports(journey)[1]) == [str(reports(journey)[0].SOPInstanceUID)]
    # The report is about the same SOP Instance UIDs
    references = [
        {
            str(one.ReferencedSOPInstanceUID)
            for series in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
            for one in series.ReferencedSOPSequence
        }
        & {f"{SERIES}.{number}" for number in range(1, 7)}
        for report in reports(journey)
    ]
    assert references[0] == references[1] == {f"{SERIES}.{number}" for number in range(1, 7)}


def test_one_changed_image_is_enough_and_is_analysed_once(journey: Journey) -> None:
    journey.keep_last = True
    journey.run(journeys.datasets())
    again = changed(journeys.datasets()[:1], dense=False)
    journey.run(again, association="a2")
    assert len(journey.why().jobs) == 2
    # The same bytes once more are nothing new
    journey.run(again, association="a3")
    assert (journey.why().study.revision, len(journey.why().jobs), len(journey.sent())) == (2, 2, 4)
    # And all is told: of the jobs those of the present revision, of the files which came again
    answer = journey.why()
    assert answer.study.jobs == {"done": 1}
    (series,) = answer.series
    assert (series.instances, series.repeated, series.set_aside) == (6, 1, 1)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(explain.why_tree(answer))
    said = console.export_text()
    assert "came again as they were: 1; kept aside" in said and "replaces job 1" in said
    assert "of revision 1, replaced by job 2" in said


def test_the_first_bytes_that_come_back_are_analysed_again(journey: Journey) -> None:
    journey.keep_last = True
    for number, dense in enumerate([False, True, False, True]):
        journey.run(changed(journeys.datasets(), dense=dense), association=f"a{number}")
    jobs = journey.why().jobs
    assert [bone(job) > 0 for job in jobs] == [False, True, False, True]
    assert [job.supersedes for job in jobs] == [None, *(job.id for job in jobs[:-1])]
    assert len({made.sop_instance_uid for job in jobs for made in job.objects}) == 8
    assert len(list((journey.storage / "spool").glob("[0-9]*/*/*.dcm"))) == 12


def test_a_job_that_waits_for_bytes_that_were_replaced_is_not_run(journey: Journey) -> None:
    journey.keep_last = True
    (old,) = journey.arrive(journeys.datasets())
    journey.receive(journey.store(changed(journeys.datasets()[:1], dense=False), association="a2"))
    assert journey.analyse(old) == []
    assert (journey.job().state, journey.job().reason) == ("cancelled", "superseded")
    journey.follow(journey.close())
    assert [job.state for job in journey.why().jobs] == ["cancelled", "done"]


def test_routes_see_the_attributes_of_the_bytes_that_count(journey: Journey) -> None:
    journey.keep_last = True
    journey.routes = [journeys.route(when={"BodyPartExamined": "CHEST"})]
    made = journeys.datasets()
    for ds in made:
        ds.BodyPartExamined = "HEAD"
    journey.run(made)
    assert journey.why().jobs == []
    for ds in made:
        ds.BodyPartExamined = "CHEST"
    journey.run(made, association="a2")
    assert [job.state for job in journey.why().jobs] == ["done"]


@pytest.mark.parametrize("keep_last", [False, True])
def test_a_scan_gives_the_rows_that_the_listener_would_have(
    journey: Journey, tmp_path: Path, keep_last: bool
) -> None:
    journey.keep_last = keep_last
    stored = [
        one
        for dense in (False, True)
        for one in journey.store(changed(journeys.datasets(), dense=dense), association="a1")
    ]
    url = f"sqlite:///{tmp_path / 'scanned.db'}"
    with Database(url) as database:
        migrate.upgrade(database)
        scanned = Journey(
            database=database, storage=journey.storage, shelf=journey.shelf, keep_last=keep_last
        )
        scanned.receive(list(stored_files.scan(journey.storage / "spool")))
        journey.receive(stored)
        assert told(scanned) == told(journey)
    assert sum(not row[1] for row in told(journey)) == 6


def told(journey: Journey) -> list[tuple[Any, ...]]:
    """What the rows of the files say, but for who brought them and when that was noticed."""
    return sorted(
        (row.path, row.conflicting, row.changes, row.duplicates, row.sha256, row.size, row.revision)
        for row in journey.rows(models.Instance)
    )


def test_a_damaged_file_that_comes_again_leaves_a_finished_answer_as_it_is(journey: Journey) -> None:
    made = journeys.datasets()
    journey.run(made)
    before = journey.facts()["files"]
    path = next((journey.storage / "spool").glob("[0-9]*/*/*.dcm"))
    path.write_bytes(path.read_bytes()[:-100])
    (damaged,) = [ds for ds in made if path.stem == str(ds.SOPInstanceUID)]
    journey.run([damaged], association="a2")
    answer = journey.why()
    assert (answer.study.revision, answer.study.state, len(answer.jobs)) == (2, "done", 1)
    assert (answer.jobs[0].state, answer.jobs[0].attempts, len(journey.sent())) == ("done", 1, 2)
    assert journey.facts()["files"] == before


def test_other_bytes_in_a_damaged_file_s_place_are_analysed(journey: Journey) -> None:
    journey.run(changed(journeys.datasets(), dense=False))
    index = int((ARRAY > 500).sum(axis=(1, 2)).argmax())
    again = changed(journeys.datasets(), dense=True)[index]
    (path,) = (journey.storage / "spool").rglob(f"{again.SOPInstanceUID}.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    journey.run([again], association="a2")
    assert [bone(job) for job in journey.why().jobs] == [0, (ARRAY[index] > 500).sum()]


# Crashes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[dict[str, Any]]:
    """What late images and changed ones leave behind where nothing crashes."""
    storage = tmp_path_factory.mktemp("undisturbed")
    with Database(f"sqlite:///{storage / 'secondread.db'}") as database:
        migrate.upgrade(database)
        journey = Journey(database=database, storage=storage, shelf=shelf, keep_last=True)
        journey.run(journeys.datasets()[:5])
        journey.run(later(), association="a2")
        yield journey.facts()


def later() -> list[Dataset]:
    """A late image, and one that came already, with other bytes."""
    made = journeys.datasets()
    return [*changed(made[:1], dense=False), made[5]]


@pytest.mark.parametrize(
    "crash",
    [
        crash_before("db.parents.describe_anew"),
        crash_after("db.parents.describe_anew"),
        crash_after("worker.pipeline.receive"),
        crash_after("db.jobs.create"),
        crash_after("db.supersession.supersede"),
        crash_after("worker.pipeline.close"),
        crash_after("db.leases.claim"),
        crash_after("db.supersession.settle_predecessor"),
        crash_before("dicom_node.series.read_series"),
        crash_before("dicom_node.results.sr.build"),
        crash_after("dicom_node.results.make_results"),
        crash_after("db.results.replace_objects"),
        crash_after("worker.outcomes.conclude"),
        crash_after("db.deliveries.sent"),
        crash_after("worker.receipts.settle"),
    ],
)
def test_a_process_that_dies_in_the_second_revision_changes_nothing(
    journey: Journey, undisturbed: dict[str, Any], crash: Any
) -> None:
    journey.keep_last = True
    journey.run(journeys.datasets()[:5])
    stored = journey.store(later(), association="a2")

    def second() -> None:
        journey.receive(stored)
        journey.follow(journey.close())

    with crash:
        journey.die(second)
    # The start-up scan reports all files again
    journey.receive(stored)
    journey.recover()
    assert journey.facts() == undisturbed
    assert len({file.sop_instance_uid for file in journey.sent()}) == 4
