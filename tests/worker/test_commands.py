"""The commands: what they print is what the tables hold, and every failure is a sentence and an exit code."""

from __future__ import annotations

import csv
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from click.testing import Result
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, SegmentationStorage
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom.sop_class import Verification
from sqlalchemy import func, select, update
from typer.testing import CliRunner

from db import migrate, models
from db.base import Database
from dicom_node.archive import Archive
from tests.engines import build
from tests.support import committing, pacs, phantoms
from tests.support.committing import Committer
from tests.worker import journey as journeys
from tests.worker import night
from worker import cli
from worker.station import Station

Command = Callable[..., Result]


@pytest.fixture
def run(contained: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Command]:
    """A command in this process, in an empty folder and environment; what it leaves behind is undone."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    yield invoke


@pytest.fixture
def asks(run: Command, told: Station) -> Callable[..., Any]:
    """A question to the storage of `told`; its answer as JSON."""

    def ask(*arguments: object) -> Any:
        result = run(*arguments, "--data", told.settings.storage, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return ask


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Station]:
    """A station of the test's own, after a night."""
    opened = night.open_station(tmp_path)
    night.tell(opened)
    yield opened
    opened.close()


def _count(here: Station, table: type[Any], *where: Any) -> int:
    with here.database.read() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0


def _config(folder: Path, **values: Any) -> Path:
    journeys.write_model(folder / "models" / "tiny")
    content: dict[str, Any] = {
        "storage": "data",
        "models": ["models"],
        "routes": [{"name": "chest ct", "when": {"Modality": "CT"}, "run": ["tiny"]}],
    }
    path = folder / "secondread.yaml"
    path.write_text(yaml.safe_dump(content | values))
    return path


# Questions ----------------------------------------------------------------------------------------


def test_studies(run: Command, asks: Callable[..., Any], told: Station) -> None:
    lines = asks("studies")
    assert len(lines) == _count(told, models.Study) == 7
    by_uid = {line["study_instance_uid"]: line for line in lines}
    assert by_uid[night.CHEST]["state"] == "done" and by_uid[night.CHEST]["instances"] == 40
    assert by_uid[night.CHEST]["jobs"] == {"done": 1}
    assert "2 different Patient IDs" in by_uid[night.MIXED]["problem"]
    arriving = asks("studies", "--state", "receiving")
    assert [line["study_instance_uid"] for line in arriving] == [night.ARRIVING]
    assert len(asks("studies", "--limit", 2)) == 2
    table = run("studies", "--data", told.settings.storage)
    assert table.exit_code == 0
    assert all(uid in table.stdout.replace("\n", "") for uid in (night.CHEST, night.BRAIN))


def test_jobs(run: Command, asks: Callable[..., Any], told: Station) -> None:
    lines = asks("jobs", "list")
    assert len(lines) == _count(told, models.Job)
    failed = asks("jobs", "list", "--state", "failed")
    assert {line["reason"] for line in failed} == {"missing-slice", "undelivered"}
    plain = run("jobs", "--data", told.settings.storage)
    assert plain.exit_code == 0 and "missing-slice" in plain.stdout
    assert run("jobs", "list", "--data", told.settings.storage).stdout.split()[:4] == plain.stdout.split()[:4]

    detail = asks("jobs", "show", night.job_of(told.database, night.CHEST))
    assert (detail["state"], len(detail["objects"]), len(detail["deliveries"])) == ("done", 2, 2)
    assert {one["key"] for one in detail["measurements"]} == {"volume", "density", "laa950"}
    shown = run("jobs", "show", detail["id"], "--data", told.settings.storage)
    assert "Pulmonary emphysema: present" in shown.stdout
    assert "LAA-950 12.3 % is above 10 %" in shown.stdout


def test_deliveries(run: Command, asks: Callable[..., Any], told: Station) -> None:
    assert len(asks("deliveries", "list")) == _count(told, models.Delivery)
    dead = asks("deliveries", "list", "--state", "dead")
    assert {(line["destination"], line["status"]) for line in dead} == {("pacs", "0xA900")}
    assert "0xA900" in run("deliveries", "--data", told.settings.storage).stdout


def test_findings(run: Command, asks: Callable[..., Any], told: Station) -> None:
    found = asks("findings")
    assert len(found) == _count(told, models.Measurement) + _count(told, models.Finding)
    above = asks("findings", "--model", "chest-ct", "--code", "laa950", "--above", 10, "--since", "7d")
    assert [(line["key"], line["value"], line["unit"]) for line in above] == [("laa950", 12.34, "%")] * 2
    assert asks("findings", "--code", "laa950", "--above", 12.34) == []
    assert asks("findings", "--model", "other") == []
    assert {line["key"] for line in asks("findings", "--code", "87433001")} == {"emphysema"}


def test_findings_as_csv(run: Command, asks: Callable[..., Any], told: Station) -> None:
    printed = run("findings", "--csv", "--data", told.settings.storage)
    rows = list(csv.DictReader(io.StringIO(printed.stdout)))
    found = asks("findings")
    assert [(row["job_id"], row["key"], float(row["value"])) for row in rows] == [
        (str(line["job_id"]), line["key"], line["value"]) for line in found
    ]
    assert set(rows[0]) == set(found[0])
    assert {row["study_instance_uid"] for row in rows} == {night.CHEST, night.UNDELIVERED}


@pytest.mark.parametrize(
    ("since", "studies"),
    [
        ("7d", {night.CHEST, night.UNDELIVERED}),
        ("1w", {night.CHEST, night.UNDELIVERED}),
        ("150m", {night.UNDELIVERED}),
        ("1h", set()),
        (
            (datetime.now().astimezone() - timedelta(days=2)).date().isoformat(),
            {night.CHEST, night.UNDELIVERED},
        ),
        ((datetime.now().astimezone() + timedelta(days=1)).date().isoformat(), set()),
    ],
)
def test_since(asks: Callable[..., Any], since: str, studies: set[str]) -> None:
    assert {line["study_instance_uid"] for line in asks("findings", "--since", since)} == studies


@pytest.mark.parametrize("since", ["yesterday", "7", "d", "7y", "2026-13-01", "-3d"])
def test_since_that_is_no_time_is_misuse(run: Command, told: Station, since: str) -> None:
    result = run("findings", f"--since={since}", "--data", told.settings.storage)
    assert result.exit_code == 2
    assert f"--since {since}: write 7d, 12h, 30m or a date" in result.stderr


def test_since_further_back_than_time_itself(run: Command, told: Station) -> None:
    result = run("findings", "--since", "99999999999d", "--data", told.settings.storage)
    assert result.exit_code == 2 and "--since" in result.stderr


def test_why(run: Command, asks: Callable[..., Any], told: Station) -> None:
    answer = asks("why", night.BRAIN)
    assert (answer["study"]["state"], answer["jobs"]) == ("done", [])
    (decision,) = answer["decisions"]
    assert decision["matched"] is False
    leaves = {leaf["subject"]: leaf for leaf in decision["trace"]["children"]}
    assert (leaves["Modality"]["value"], leaves["Modality"]["verdict"]) == ("MR", False)

    printed = run("why", night.BRAIN, "--data", told.settings.storage).stdout
    for said in ("MR", "t1 mprage sag", "24 images", "complete: associations released", "Modality"):
        assert said in printed
    gapped = run("why", night.GAPPED, "--data", told.settings.storage).stdout
    assert "missing-slice: 2 slices are missing" in gapped
    mixed = run("why", night.MIXED, "--data", told.settings.storage).stdout
    assert "2 different Patient IDs" in mixed and "skipped" in mixed
    arriving = run("why", night.ARRIVING, "--data", told.settings.storage).stdout
    assert "not complete yet; it waits for the" in arriving


# What fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["why", "1.2.3"], "no study 1.2.3 has arrived here"),
        (
            ["why", "A7"],
            "A7 is no Study Instance UID (numbers and dots); `secondread studies` and the page list the "
            "studies that arrived, each with its UID and its accession number",
        ),
        (["jobs", "show", "999"], "there is no job 999"),
        (["jobs", "retry", "999"], "there is no job 999"),
        (["jobs", "cancel", "999"], "there is no job 999"),
        (["deliveries", "retry", "999"], "there is no delivery 999"),
    ],
)
def test_what_is_not_there_fails_with_a_sentence(
    run: Command, told: Station, arguments: list[str], words: str
) -> None:
    result = run(*arguments, "--data", told.settings.storage)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.strip() == words


@pytest.mark.parametrize("command", [["studies"], ["jobs", "list"], ["deliveries", "list"]])
def test_a_state_that_there_is_not_is_an_error(run: Command, told: Station, command: list[str]) -> None:
    result = run(*command, "--state", "bogus", "--data", told.settings.storage)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "bogus" in result.stderr and "one of" in result.stderr


@pytest.mark.parametrize(
    "command", [["studies"], ["jobs"], ["deliveries", "list"], ["findings"], ["why", "1.2"]]
)
def test_a_folder_without_database_is_misuse(run: Command, tmp_path: Path, command: list[str]) -> None:
    result = run(*command, "--data", tmp_path / "nothing")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "holds no database; start `secondread up`" in result.stderr
    # Asking makes none
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("command", [["studies"], ["doctor"], ["models", "list"], ["db", "upgrade"], ["up"]])
def test_a_wrong_configuration_is_misuse(run: Command, tmp_path: Path, command: list[str]) -> None:
    result = run(*command, "--config", _config(tmp_path, nod={}))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nod: there is no such setting" in result.stderr


def test_wrong_arguments_are_misuse(run: Command) -> None:
    assert run("why").exit_code == 2
    assert run("jobs", "show", "seven").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("studies", "--limit", "0").exit_code == 2
    assert run("work", "--queue", "gpus").exit_code == 2


def test_a_database_of_another_version_says_what_to_run(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "secondread.db"
    path.touch()
    result = run("studies", "--data", tmp_path)
    assert result.exit_code == 1 and "run `secondread db upgrade`" in result.stderr
    upgraded = run("db", "upgrade", "--data", tmp_path)
    assert upgraded.exit_code == 0 and migrate.newest() in upgraded.stdout
    assert json.loads(run("studies", "--json", "--data", tmp_path).stdout) == []
    assert run("studies", "--data", tmp_path).stdout.strip() == "nothing"


def test_a_file_that_is_no_database_is_a_sentence(run: Command, tmp_path: Path) -> None:
    (tmp_path / "secondread.db").write_bytes(b"this is no database at all" * 100)
    for command in (["studies"], ["db", "upgrade"]):
        result = run(*command, "--data", tmp_path)
        assert result.exit_code == 1
        assert "the database does not answer" in result.stderr and "database" in result.stderr


def test_a_database_server_that_is_away_is_a_sentence(run: Command, tmp_path: Path) -> None:
    away = "postgresql+psycopg://reader:s3cret@127.0.0.1:1/none?connect_timeout=2"
    config = _config(tmp_path, database=away)
    for command in (["studies"], ["db", "upgrade"]):
        result = run(*command, "--config", config)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "the database does not answer" in result.stderr and "s3cret" not in result.stderr
    result = run("doctor", "--config", config)
    assert result.exit_code == 1 and "s3cret" not in result.output


def test_an_unforeseen_end_of_the_program_has_an_exit_code_too(tmp_path: Path) -> None:
    """As a user calls it: in a process of its own."""
    asked = subprocess.run(
        [sys.executable, "-m", "worker.cli", "why", "1.2", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.count("\n") == 1 and "Traceback" not in asked.stderr


# Orders -------------------------------------------------------------------------------------------


def test_a_failed_job_is_retried_and_a_waiting_one_cancelled(run: Command, here: Station) -> None:
    failed = night.job_of(here.database, night.GAPPED)
    data = ["--data", here.settings.storage]
    retried = run("jobs", "retry", failed, *data)
    assert (retried.exit_code, retried.stdout.strip()) == (0, f"job {failed} is queued again"), retried.stderr
    why = json.loads(run("why", night.GAPPED, "--json", *data).stdout)
    assert (why["study"]["state"], why["jobs"][0]["state"], why["jobs"][0]["error"]) == (
        "ready",
        "queued",
        "",
    )
    again = run("jobs", "retry", failed, *data)
    assert again.exit_code == 1
    assert again.stderr.strip() == f"job {failed} is queued; only a failed or cancelled job can be retried"

    assert run("jobs", "cancel", failed, *data).stdout.strip() == f"job {failed} is cancelled"
    why = json.loads(run("why", night.GAPPED, "--json", *data).stdout)
    assert (why["study"]["state"], why["jobs"][0]["state"]) == ("done", "cancelled")
    assert "it has ended already" in run("jobs", "cancel", failed, *data).stderr


def test_a_dead_delivery_is_retried(run: Command, here: Station) -> None:
    data = ["--data", here.settings.storage]
    with here.database.read() as session:
        dead = night.dead_delivery(session)
    assert run("deliveries", "retry", dead, *data).stdout.strip() == f"delivery {dead} is due again"
    refused = run("deliveries", "retry", dead, *data)
    assert refused.exit_code == 1
    assert refused.stderr.strip() == f"delivery {dead} is pending; only a dead one can be retried"
    detail = json.loads(run("why", night.UNDELIVERED, "--json", *data).stdout)
    assert (detail["study"]["state"], detail["jobs"][0]["state"]) == ("ready", "delivering")


def test_dead_deliveries_are_explained_and_retried_together(run: Command, here: Station) -> None:
    # Given two dead deliveries
    data = ["--data", here.settings.storage]
    listed = run("deliveries", "list", "--state", "dead", *data).stdout
    assert "secondread deliveries retry ID..." in listed
    # When a destination is named that there is not, then that is said, and nothing is retried
    for command in (["list"], ["retry", "--all"]):
        refused = run("deliveries", *command, "--destination", "archive", *data)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "no peer is called archive; peers: " in refused.stderr
    # When all are
    assert run("deliveries", "retry", "--all", *data).stdout.strip() == "2 deliveries are due again"
    # Then all are due, and none is left
    said = json.loads(run("deliveries", "list", "--json", *data).stdout)
    assert sorted(line["state"] for line in said) == ["pending", "pending", "sent", "sent"]
    assert run("deliveries", "retry", "--all", *data).stdout.strip() == "0 deliveries are due again"


def test_what_cannot_be_brought_back_says_what_to_do(run: Command, here: Station) -> None:
    data = ["--data", here.settings.storage]
    with here.database.read() as session:
        dead = night.dead_delivery(session)
    job = night.job_of(here.database, night.UNDELIVERED)
    assert run("jobs", "cancel", job, *data).exit_code == 0
    refused = run("deliveries", "retry", dead, *data)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.strip() == (f"delivery {dead} stays dead: its job was cancelled; retry job {job}")
    newer = night.overtake(here.database, job)
    for command in (["jobs", "retry", job], ["deliveries", "retry", dead]):
        refused = run(*command, *data)
        assert refused.exit_code == 1
        assert refused.stderr.strip() == f"job {newer} of revision 2 answers in the place of job {job}"


def test_several_dead_deliveries_are_retried_by_their_ids(run: Command, here: Station) -> None:
    data = ["--data", here.settings.storage]
    dead = [
        str(line["id"])
        for line in json.loads(run("deliveries", "list", "--state", "dead", "--json", *data).stdout)
    ]
    assert len(dead) == 2
    assert run("deliveries", "retry", *dead, *data).stdout.splitlines() == [
        f"delivery {each} is due again" for each in dead
    ]


@pytest.mark.parametrize("wrong", [[], ["--all", "3"], ["3", "--destination", "pacs"]])
def test_what_to_retry_must_be_said_in_one_way(run: Command, here: Station, wrong: list[str]) -> None:
    result = run("deliveries", "retry", *wrong, "--data", here.settings.storage)
    assert result.exit_code == 2
    assert "name deliveries by their ids, or write --all" in result.stderr


def test_an_object_that_did_not_pass_stays_here(run: Command, here: Station) -> None:
    with here.database.write() as session:
        session.execute(update(models.ResultObject).values(verified=False))
        dead = night.dead_delivery(session)
    data = ["--data", here.settings.storage]
    assert "its object did not pass, and never leaves" in run("deliveries", "retry", dead, *data).stderr
    assert run("deliveries", "retry", "--all", *data).stdout.strip() == "0 deliveries are due again"


# One model on a folder ----------------------------------------------------------------------------


def test_run_makes_the_objects_and_says_what_it_found(run: Command, tmp_path: Path) -> None:
    phantoms.write(journeys.datasets(), tmp_path / "in" / "deep")
    (tmp_path / "in" / "README").write_text("not DICOM")
    result = run("run", "tiny", tmp_path / "in", "--out", tmp_path / "out", "--config", _config(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "Calcification: present" in result.stdout
    assert pydicom.dcmread(tmp_path / "out" / "seg.dcm").Modality == "SEG"
    assert pydicom.dcmread(tmp_path / "out" / "sr.dcm").PatientID == journeys.ID
    assert (tmp_path / "out" / "axial-1.png").exists()
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert [segment["label"] for segment in found["segments"]] == ["Body", "Bone"]
    assert "report.txt" in result.stdout
    words = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8").splitlines()
    assert words[0] == "AI report: tiny 1.0.0" and any("Calcification: present" in line for line in words)
    # The package may be named by its folder, and the objects are the same ones
    again = run("run", tmp_path / "models" / "tiny", tmp_path / "in", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.stderr
    first, second = (pydicom.dcmread(tmp_path / name / "seg.dcm") for name in ("out", "again"))
    assert first.SOPInstanceUID == second.SOPInstanceUID


def test_run_gives_each_series_a_folder(run: Command, tmp_path: Path) -> None:
    phantoms.write(journeys.datasets(), tmp_path / "in" / "a")
    phantoms.write(journeys.datasets(series_uid="1.2.3"), tmp_path / "in" / "b")
    result = run("run", "tiny", tmp_path / "in", "--out", tmp_path / "out", "--config", _config(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*/seg.dcm")) == ["seg.dcm"] * 2
    assert journeys.SERIES in result.stdout and "series 1.2.3" in result.stdout


def test_run_says_of_each_series_why_it_does_not_fit(run: Command, tmp_path: Path) -> None:
    phantoms.write(journeys.datasets(modality="MR"), tmp_path / "in" / "a")
    other = journeys.datasets(series_uid="1.2.3")
    for ds in other:
        del ds.Modality
    phantoms.write(other, tmp_path / "in" / "b")
    (tmp_path / "in" / "README").write_text("not DICOM")
    result = run("run", "tiny", tmp_path / "in", "--out", tmp_path / "out", "--config", _config(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "tiny takes none of these series" in result.stderr
    assert f"series {journeys.SERIES}: Modality is MR, wanted CT" in result.stderr
    assert "series 1.2.3: Modality is missing, wanted CT" in result.stderr
    assert "README: is not a DICOM file" in result.stderr
    assert not (tmp_path / "out").exists()


def test_run_of_a_broken_series_says_why(run: Command, tmp_path: Path) -> None:
    made = journeys.datasets()
    phantoms.write([*made[:2], *made[3:]], tmp_path / "in")
    result = run("run", "tiny", tmp_path / "in", "--out", tmp_path / "out", "--config", _config(tmp_path))
    assert result.exit_code == 1
    assert f"series {journeys.SERIES}: " in result.stderr and "missing" in result.stderr


def test_run_answers_about_the_others_where_one_series_is_refused(run: Command, tmp_path: Path) -> None:
    made = journeys.datasets()
    phantoms.write([*made[:2], *made[3:]], tmp_path / "in" / "a")
    phantoms.write(journeys.datasets(series_uid="1.2.3"), tmp_path / "in" / "b")
    result = run("run", "tiny", tmp_path / "in", "--out", tmp_path / "out", "--config", _config(tmp_path))
    assert result.exit_code == 1
    assert "series 1.2.3" in result.stdout and len(list((tmp_path / "out").glob("*/seg.dcm"))) == 1
    assert f"series {journeys.SERIES}: " in result.stderr and "1.2.3" not in result.stderr


def test_run_s_misuse(run: Command, tmp_path: Path) -> None:
    config = _config(tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments, code, words in (
        (["tiny", tmp_path / "gone"], 2, "there is no such file or folder"),
        (["tiny", tmp_path / "empty"], 2, "holds no files"),
        (["gone", tmp_path], 1, "there is no usable model 'gone'; usable models: tiny"),
    ):
        result = run("run", *arguments, "--out", tmp_path / "out", "--config", config)
        assert result.exit_code == code and words in result.stderr, result.stderr


# Models, routes, doctor, send ---------------------------------------------------------------------


def test_models_list(run: Command, tmp_path: Path) -> None:
    config = _config(tmp_path)
    (line,) = json.loads(run("models", "list", "--json", "--config", config).stdout)
    assert (line["name"], line["version"], len(line["digest"])) == ("tiny", "1.0.0", 64)
    broken = journeys.write_model(tmp_path / "models" / "broken")
    (broken / "model.onnx").write_bytes(b"other")
    result = run("models", "list", "--json", "--config", config)
    assert result.exit_code == 1
    assert [line["name"] for line in json.loads(result.stdout)] == ["tiny"]
    assert "broken" in result.stderr and "model.onnx" in result.stderr
    assert "tiny" in run("models", "list", "--config", config).stdout


def test_models_with_a_misspelt_series_criterion(run: Command, tmp_path: Path) -> None:
    config = _config(tmp_path)
    network = build.thresholds((0.5,))
    entry = build.entry(series={"Modalty": "CT"})
    build.write(tmp_path / "models" / "misspelt", network, name="misspelt", labels=1, inputs=[entry])
    result = run("models", "list", "--config", config)
    assert result.exit_code == 1
    assert "did you mean Modality" in result.stderr and "misspelt" in result.stderr


def test_models_check(run: Command, tmp_path: Path) -> None:
    config = _config(tmp_path)
    result = run("models", "check", "--json", "--config", config)
    assert result.exit_code == 0, result.stderr
    verdicts = json.loads(result.stdout)
    assert verdicts and all(verdict["model"] == "tiny" and verdict["agrees"] for verdict in verdicts)
    unknown = run("models", "check", "gone", "--config", config)
    assert unknown.exit_code == 1 and "no usable model 'gone'" in unknown.stderr


def test_routes_test_says_what_would_happen_and_does_nothing(run: Command, tmp_path: Path) -> None:
    route = {"name": "thin", "when": {"Modality": "CT", "SliceThickness": "<=1"}, "run": ["tiny"]}
    any_ct = {"name": "any", "when": {"Modality": "CT"}, "run": ["tiny", "gone"]}
    config = _config(tmp_path, routes=[route, any_ct])
    phantoms.write(journeys.datasets(), tmp_path / "in")
    (tmp_path / "in" / "note").write_text("x")
    lines = json.loads(run("routes", "test", tmp_path / "in", "--json", "--config", config).stdout)
    assert [(line["route"], line["model"], line["matched"]) for line in lines] == [
        ("thin", "", False),
        ("any", "tiny", True),
        ("any", "gone", False),
    ]
    assert lines[0]["reason"] == "the route does not match: SliceThickness is 2.5, wanted <=1"
    printed = run("routes", "test", tmp_path / "in", "--config", config)
    assert printed.exit_code == 0
    assert (
        "1 series" in printed.stdout and "SliceThickness <=1" in printed.stdout and "note" in printed.stdout
    )
    assert not (tmp_path / "data").exists()
    assert run("routes", "test", tmp_path / "gone", "--config", config).exit_code == 2


def _remarks(run: Command, config: Path) -> tuple[int, dict[str, Any]]:
    result = run("doctor", "--json", "--config", config)
    return result.exit_code, {line["subject"]: line for line in json.loads(result.stdout)}


def test_doctor_finds_a_dead_peer_and_a_living_one(run: Command, tmp_path: Path) -> None:
    with Archive(tmp_path / "pacs", ae_title="PACS") as archive:
        peers = [
            {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": archive.port},
            {"name": "dead", "ae_title": "DEAD", "host": "127.0.0.1", "port": 1, "timeout_seconds": 2},
            {"name": "modality", "ae_title": "CT1", "host": "127.0.0.1"},
        ]
        route = {"name": "a", "when": {}, "run": ["tiny"], "send_to": ["pacs", "dead"]}
        plain = {"peers": peers, "routes": [route], "node": {"min_free_mb": 1}}
        code, remarks = _remarks(run, _config(tmp_path, **plain))
    assert code == 1
    assert [name for name, line in remarks.items() if not line["healthy"]] == ["peer dead"]
    assert "DEAD@127.0.0.1:1" in remarks["peer dead"]["remark"]
    assert "answers in" in remarks["peer pacs"]["remark"]
    assert "no route sends to it" in remarks["peer modality"]["remark"]
    assert "model tiny" in remarks and "SQLite" in remarks["database"]["remark"]


def test_doctor_says_which_results_a_peer_takes_by_its_profile(run: Command, tmp_path: Path) -> None:
    taken = [Verification, SegmentationStorage, Comprehensive3DSRStorage, BasicTextSRStorage]
    with pacs.running(contexts=[(uid, ALL_TRANSFER_SYNTAXES) for uid in taken]) as peer:
        here = {"ae_title": "PACS", "host": "127.0.0.1", "port": peer.port}
        peers = [
            here | {"name": "viewer", "profile": "slicer"},
            here | {"name": "all"},
            here | {"name": "plain", "profile": "plain-pacs", "max_megabytes": 200},
        ]
        viewer = {"name": "a", "when": {}, "run": ["tiny"], "send_to": ["viewer"], "announce_failures": True}
        others = {"name": "b", "when": {}, "run": ["tiny"], "send_to": ["all", "plain"]}
        config = _config(tmp_path, peers=peers, routes=[viewer, others], node={"min_free_mb": 1})
        journeys.write_model(tmp_path / "models" / "tiny", results=["seg", "sr", "labelmap", "key-images"])
        _, remarks = _remarks(run, config)
    said = {name: remarks[f"peer {name}"] for name in ("viewer", "all", "plain")}
    assert [line["healthy"] for line in said.values()] == [True, False, False]
    assert said["viewer"]["remark"].endswith("profile slicer: takes seg, sr, not-performed")
    assert "profile default: takes seg, sr, does not take labelmap, key-images" in said["all"]["remark"]
    assert "profile plain-pacs: takes sr, does not take key-images, pdf" in said["plain"]["remark"]
    assert "not told (announce_failures) where there is no answer" in remarks["route b"]["remark"]


def test_doctor_says_where_a_profile_takes_nothing(run: Command, tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        peers=[{"name": "web", "host": "h", "stow_url": "http://127.0.0.1:1/dicom-web", "profile": "slicer"}],
        routes=[{"name": "a", "when": {}, "run": ["tiny"], "send_to": ["web"]}],
    )
    journeys.write_model(tmp_path / "models" / "tiny", results=["key-images"])
    _, remarks = _remarks(run, config)
    assert "it takes nothing that the models of its routes list" in remarks["peer web"]["remark"]


def test_the_conformance_statement_is_of_this_configuration(run: Command, tmp_path: Path) -> None:
    said = run("conformance", "--config", _config(tmp_path))
    assert said.exit_code == 0, said.stderr
    assert said.stdout.startswith("# DICOM conformance statement") and str(tmp_path) in said.stdout


def test_a_profile_that_does_not_exist_is_named(run: Command, tmp_path: Path) -> None:
    peers = [{"name": "pacs", "ae_title": "PACS", "host": "h", "profile": "osirix"}]
    result = run("doctor", "--config", _config(tmp_path, peers=peers))
    assert result.exit_code == 2
    assert "there is no profile 'osirix'; write one of default, ohif," in result.stderr
    result = run("run", "tiny", tmp_path, "--out", tmp_path / "out", "--profile", "osirix")
    assert result.exit_code == 2


def test_run_makes_what_a_peer_of_a_profile_would_get(run: Command, tmp_path: Path) -> None:
    phantoms.write(journeys.datasets(), tmp_path / "in")
    out = tmp_path / "out"
    config = _config(tmp_path)
    result = run("run", "tiny", tmp_path / "in", "--out", out, "--profile", "plain-pacs", "--config", config)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in out.glob("*.dcm")) == ["key-images.dcm", "pdf.dcm", "sr.dcm"]


def test_doctor_asks_who_is_to_commit(run: Command, tmp_path: Path) -> None:
    with committing.running(Committer()) as able, pacs.running() as unable:
        here = {"ae_title": "PACS", "host": "127.0.0.1", "commitment": True}
        peers = [
            here | {"name": "able", "port": able.port},
            here | {"name": "unable", "port": unable.port},
            here | {"name": "web", "stow_url": "http://127.0.0.1:1/dicom-web"},
        ]
        names = [str(peer["name"]) for peer in peers]
        route = {"name": "a", "when": {}, "run": ["tiny"], "send_to": names}
        _, remarks = _remarks(run, _config(tmp_path, peers=peers, routes=[route], node={"min_free_mb": 1}))
    said = {name: remarks[f"commitment by {name}"] for name in names}
    assert [said[name]["healthy"] for name in names] == [True, False, False]
    assert "takes storage commitment requests; it must know us as SECONDREAD" in said["able"]["remark"]
    assert "or take `commitment: true` from this peer" in said["unable"]["remark"]
    assert "DICOM only" in said["web"]["remark"]


def test_doctor_is_content_with_what_is_well(run: Command, tmp_path: Path) -> None:
    config = _config(tmp_path, node={"min_free_mb": 1})
    code, remarks = _remarks(run, config)
    assert code == 0 and all(line["healthy"] for line in remarks.values())
    assert "sends its results nowhere" in remarks["route chest ct"]["remark"]
    printed = run("doctor", "--config", config)
    assert printed.exit_code == 0 and printed.stdout.count("ok") >= len(remarks)


def test_doctor_names_what_is_not(run: Command, tmp_path: Path) -> None:
    route = {"name": "a", "when": {}, "run": ["gone"]}
    broker = "redis://127.0.0.1:1/0"
    config = _config(tmp_path, routes=[route], broker=broker, node={"min_free_mb": 10**9})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secondread.db").touch()
    broken = journeys.write_model(tmp_path / "models" / "broken")
    (broken / "model.onnx").write_bytes(b"other")
    code, remarks = _remarks(run, config)
    assert code == 1
    unwell = {name: line["remark"] for name, line in remarks.items() if not line["healthy"]}
    assert set(unwell) == {"storage", "database", "broker", "models", "route a"}
    assert "every image is refused now" in unwell["storage"]
    assert "secondread db upgrade" in unwell["database"]
    assert "check `broker`" in unwell["broker"]
    printed = run("doctor", "--config", config)
    assert printed.exit_code == 1 and printed.stdout.count("BAD") == 5


def test_send_stores_files_at_a_peer(run: Command, tmp_path: Path) -> None:
    phantoms.write(journeys.datasets(), tmp_path / "in")
    with Archive(tmp_path / "pacs", ae_title="PACS") as archive:
        peers = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": archive.port}]
        config = _config(tmp_path, peers=peers)
        sent = run("send", tmp_path / "in", "pacs", "--config", config)
        assert (sent.exit_code, sent.stdout.strip()) == (0, "6 of 6 objects stored by pacs"), sent.stderr
        assert len(archive.received) == 6
        (tmp_path / "in" / "note").write_text("not DICOM")
        partly = run("send", tmp_path / "in", "pacs", "--config", config)
    assert partly.exit_code == 1
    assert "6 of 7 objects stored" in partly.stdout and "1 were not stored" in partly.stderr
    gone = run("send", tmp_path / "in" / "0000.dcm", "pacs", "--config", config)
    assert (gone.exit_code, gone.stdout) == (1, "")
    unknown = run("send", tmp_path / "in", "pasc", "--config", config)
    assert unknown.exit_code == 2 and "no peer is called 'pasc'; peers: pacs" in unknown.stderr


def test_a_question_leaves_the_log_alone(run: Command, told: Station) -> None:
    """`--json` must be all of standard output, also where something is logged."""
    logging.getLogger("worker").warning("something")
    result = run("studies", "--json", "--data", told.settings.storage)
    assert json.loads(result.stdout)


def test_a_newer_database_is_not_touched(run: Command, tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path / 'secondread.db'}") as database:
        migrate.upgrade(database)
        with database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    result = run("studies", "--data", tmp_path)
    assert result.exit_code == 1 and "9999" in result.stderr
    result = run("db", "upgrade", "--data", tmp_path)
    assert result.exit_code == 1 and "9999: install the version that made it" in result.stderr
