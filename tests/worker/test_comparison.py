"""A patient who comes again: the second report compares, whatever is done again or changes afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from db import jobs, models
from dicom_node.results import sr_words
from tests.support import phantoms
from tests.worker import journey as journeys
from tests.worker.journey import Journey, crash_before
from worker import status, views


def images(study: str, date: str, *, dense: bool = False, **changes: Any) -> list[Dataset]:
    """A study of the unusual patient; a dense one has more bone."""
    made = journeys.datasets(study_uid=study, series_uid=f"{study}.1", **changes)
    array = phantoms.asymmetric((6, 32, 40))
    for index, ds in enumerate(made):
        ds.StudyDate = date
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        values = np.where(array[index] > 500, 1000, array[index]) if dense else array[index]
        ds.PixelData = (values.astype(np.int32) + 1024).astype(np.uint16).tobytes()
    return made


FIRST, SECOND = "1.2.826.0.1.3680043.8.498.81", "1.2.826.0.1.3680043.8.498.82"


def detail(journey: Journey, study: str) -> views.JobDetail:
    """The only job of a study."""
    with journey.database.read() as session:
        [job] = status.why(session, study).jobs
        return job


def spoken(journey: Journey, job: views.JobDetail) -> list[str]:
    """The lines of its structured report."""
    [path] = [made.path for made in job.objects if made.kind == "sr"]
    return [text for _, text in sr_words.read(dcmread(journey.storage / "results" / path))]


def rows(job: views.JobDetail) -> Sequence[Sequence[str]]:
    assert job.report is not None
    return job.report.comparison.rows


def test_the_second_report_compares_with_the_first(journey: Journey) -> None:
    journey.run(images(FIRST, "20250301"))
    journey.run(images(SECOND, "20260301", dense=True))
    first, second = detail(journey, FIRST), detail(journey, SECOND)
    assert rows(first) == []
    assert second.report is not None
    assert "study of 2025-03-01" in second.report.comparison.said
    assert [row[:2] for row in rows(second)] == [
        ["Volume", "Body"], ["Volume", "Bone"], ["Volume", "Bone"],
    ]  # fmt: skip
    assert rows(second)[2][4].startswith("+")
    # The structured report and the page say the same
    said = [line for line in spoken(journey, second) if "Earlier: " in line]
    assert [line.split(": ", 1)[0] for line in said] == [", ".join(row[:2]) for row in rows(second)]
    assert second.report.comparison.said in spoken(journey, second)


def test_another_patient_is_not_compared(journey: Journey) -> None:
    journey.run(images(FIRST, "20250301", patient_id="SOMEBODY"))
    journey.run(images(SECOND, "20260301"))
    assert rows(detail(journey, SECOND)) == []


def test_what_came_in_between_does_not_change_a_job_that_is_done_again(journey: Journey) -> None:
    # Given a report that compares with the first study, and whose delivery is dead
    journey.run(images(FIRST, "20250301"))
    [job_id] = journey.arrive(images(SECOND, "20260301", dense=True))
    journey.analyse(job_id)
    before = detail(journey, SECOND)
    # When a study of a day between them is analysed, and the first one's numbers change
    journey.run(images("1.2.826.0.1.3680043.8.498.83", "20251231"))
    with journey.database.write() as session:
        for measured in session.query(models.Measurement).where(models.Measurement.job_id != job_id):
            measured.value += 1
        jobs.cancel(session, job_id, journeys.NOW)
        assert jobs.retry(session, job_id)
    journey.analyse(job_id)
    # Then the same bytes are made
    after = detail(journey, SECOND)
    assert [made.sha256 for made in after.objects] == [made.sha256 for made in before.objects]
    assert after.report == before.report


def test_a_worker_that_dies_before_it_has_results_may_find_a_later_study(journey: Journey) -> None:
    [job_id] = journey.arrive(images(SECOND, "20260301"))
    with crash_before("worker.outcomes.conclude"):
        journey.die(lambda: journey.analyse(job_id))
    journey.run(images(FIRST, "20250301"))
    journey.recover()
    report = detail(journey, SECOND).report
    assert report is not None and "2025-03-01" in report.comparison.said


def test_the_configured_language_is_the_reports(journey: Journey) -> None:
    journey.language = "zh"
    journey.run(images(FIRST, "20250301"))
    report = detail(journey, FIRST).report
    assert report is not None and report.language == "zh" and report.conclusion == "结论"
    assert "人工智能结果，未经医师核实。仅供研究，不得用于诊断。" in spoken(journey, detail(journey, FIRST))
