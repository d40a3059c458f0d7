"""`studies purge`: what it says it would do is what it does; a study that stays says why."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import httpx
import pytest
import yaml

from db import models
from tests.worker import night
from tests.worker.served import served
from tests.worker.test_commands import Command, _count, here, run  # noqa: F401 - fixtures
from worker.station import Station


@pytest.fixture(autouse=True)
def _spool(here: Station) -> None:  # noqa: F811 - the fixture
    """Images that have rows and no files."""
    here.settings.spool.mkdir()


def test_a_dry_run_says_what_would_go_and_changes_nothing(run: Command, here: Station) -> None:  # noqa: F811
    data = ["--data", here.settings.storage]
    before = _count(here, models.Instance)
    tomorrow = f"{datetime.now() + timedelta(days=1):%Y-%m-%d}"  # noqa: DTZ005 - as a person would write it
    said = run("studies", "purge", "--older-than", tomorrow, "--dry-run", "--json", *data)
    assert said.exit_code == 0, said.stderr
    lines = {line["study_instance_uid"]: line for line in json.loads(said.stdout)}
    assert (lines[night.CHEST]["verdict"], lines[night.CHEST]["files"], lines[night.CHEST]["reason"]) == (
        "would be purged",
        40,
        "",
    )
    assert lines[night.CHEST]["bytes"] > 0
    assert lines[night.UNDELIVERED]["verdict"] == "stays"
    assert "is dead: retry it, or cancel job" in lines[night.UNDELIVERED]["reason"]
    assert "has not ended" in lines[night.RUNNING]["reason"]
    assert _count(here, models.Instance) == before
    assert _count(here, models.Study, models.Study.state == "purged") == 0
    # The oldest first, and none that is younger
    table = run("studies", "purge", "--older-than", "4h", "--dry-run", *data)
    assert night.BRAIN in table.stdout.replace("\n", "") and night.CHEST not in table.stdout
    assert "1 study with 24 files" in table.stdout


def test_what_may_go_goes(run: Command, here: Station) -> None:  # noqa: F811
    data = ["--data", here.settings.storage]
    said = run("studies", "purge", "--study", night.CHEST, "--json", *data)
    assert said.exit_code == 0, said.stderr
    (line,) = json.loads(said.stdout)
    assert (line["verdict"], line["files"], line["reason"]) == ("purged", 40, "")
    assert _count(here, models.DoomedFile) == 0
    # What was found stays known
    (study,) = json.loads(run("studies", "--state", "purged", "--json", *data).stdout)
    assert (study["study_instance_uid"], study["instances"]) == (night.CHEST, 40)
    assert study["purged_at"]
    shown = run("why", night.CHEST, *data).stdout
    assert "its images and results were deleted" in shown and "Pulmonary emphysema: present" in shown
    assert night.CHEST in run("findings", "--json", *data).stdout
    # A second time there is nothing to go
    again = run("studies", "purge", "--study", night.CHEST, *data)
    assert again.exit_code == 1
    assert "its files were deleted on" in again.stdout
    # And its job cannot run again
    with here.database.write() as session:
        job_id = night.job_of(here.database, night.CHEST)
        session.get_one(models.Job, job_id).state = "failed"
    retried = run("jobs", "retry", job_id, *data)
    assert retried.exit_code == 1
    assert f"the images and results of study {night.CHEST} were deleted on" in retried.stderr


@pytest.mark.parametrize(
    ("uid", "reason"),
    [
        (night.UNDELIVERED, "is dead: retry it, or cancel job"),
        (night.ARRIVING, "it is still receiving"),
        (night.RUNNING, "has not ended"),
    ],
)
def test_a_study_that_stays_says_why(run: Command, here: Station, uid: str, reason: str) -> None:  # noqa: F811
    for how in ([], ["--dry-run"]):
        said = run("studies", "purge", "--study", uid, "--json", *how, "--data", here.settings.storage)
        assert said.exit_code == 1
        (line,) = json.loads(said.stdout)
        assert line["verdict"] == "stays" and reason in line["reason"]
    assert _count(here, models.Study, models.Study.state == "purged") == 0


def test_a_result_that_a_person_gives_up_holds_nothing_back(run: Command, here: Station) -> None:  # noqa: F811
    data = ["--data", here.settings.storage]
    job_id = night.job_of(here.database, night.UNDELIVERED)
    assert run("jobs", "cancel", job_id, *data).exit_code == 0
    assert run("studies", "purge", "--study", night.UNDELIVERED, *data).exit_code == 0
    with here.database.read() as session:
        dead = night.dead_delivery(session)
    refused = run("deliveries", "retry", dead, *data)
    assert refused.exit_code == 1
    assert "were deleted on" in refused.stderr


def test_which_ones_must_be_said(run: Command, here: Station) -> None:  # noqa: F811
    data = ["--data", here.settings.storage]
    missing = run("studies", "purge", *data)
    assert missing.exit_code == 2
    assert missing.stderr.strip() == "say which: --older-than 30d, or --study UID, or set retention.days"
    wrong = run("studies", "purge", "--older-than", "soon", *data)
    assert (wrong.exit_code, wrong.stderr.strip()) == (
        2,
        "--older-than soon: write 30d, 12h, 30m or a date YYYY-MM-DD",
    )
    unknown = run("studies", "purge", "--study", "1.2.3", *data)
    assert (unknown.exit_code, unknown.stderr.strip()) == (1, "no study 1.2.3 has arrived here")
    # Or the configuration says it
    config = here.settings.storage / "secondread.yaml"
    config.write_text(yaml.safe_dump({"storage": str(here.settings.storage), "retention": {"days": 0.001}}))
    configured = run("studies", "purge", "--dry-run", "--json", "--config", config)
    assert configured.exit_code == 0, configured.stderr
    assert len(json.loads(configured.stdout)) >= 5


def test_the_page_and_the_api_say_that_the_files_are_gone(run: Command, here: Station) -> None:  # noqa: F811
    assert run("studies", "purge", "--study", night.CHEST, "--data", here.settings.storage).exit_code == 0
    job_id = night.job_of(here.database, night.CHEST)
    with (
        served(here) as address,
        httpx.Client(base_url=address, timeout=60, headers={"Accept": "text/html"}) as client,
    ):
        study = client.get(f"/studies/{night.CHEST}")
        assert study.status_code == 200 and "its images and results were deleted" in study.text
        assert "Pulmonary emphysema" in study.text
        job = client.get(f"/jobs/{job_id}")
        assert job.status_code == 200 and "its images and results were deleted" in job.text
        assert "/pictures/" not in job.text
        gone = client.get(f"/jobs/{job_id}/pictures/axial-1.png")
        assert gone.status_code == 410 and "were deleted with its study" in gone.text
        listed = client.get("/?show=purged")
        assert listed.status_code == 200 and night.CHEST in listed.text and night.BRAIN not in listed.text
        with here.database.write() as session:
            session.get_one(models.Job, job_id).state = "failed"
        retried = client.post(f"/api/jobs/{job_id}/retry", headers={"X-Secondread": "1"})
        assert retried.status_code == 409
        assert "were deleted on" in retried.json()["detail"]
