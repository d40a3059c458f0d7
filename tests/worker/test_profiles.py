"""Each destination gets what its viewer shows, of what the model has; and what a job sends stays what it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from db import jobs, models
from dicom_node import echo, results
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import profiles
from worker.profiles import Terms
from worker.shelf import Shelf


@pytest.fixture(scope="session")
def rich_shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The tiny model with a manifest that lists more."""
    folder = tmp_path_factory.mktemp("rich")
    journeys.write_model(folder / "tiny", results=["seg", "sr", "key-images", "labelmap"])
    opened = Shelf([folder], threads=1)
    yield opened
    opened.close()


@pytest.fixture
def rich(journey: Journey, rich_shelf: Shelf) -> Journey:
    """A journey with that model, to a PACS and a workstation."""
    journey.shelf = rich_shelf
    return journey


def to(**terms: Terms) -> list[journeys.RouteRule]:
    return [journeys.route(send_to=tuple(terms), terms=terms)]


def got(journey: Journey, name: str) -> list[str]:
    """The kinds that a destination got."""
    kinds = {row.sop_instance_uid: row.kind for row in journey.rows(models.ResultObject)}
    return sorted(kinds[file.sop_instance_uid] for file in journey.sent(name))


def made(journey: Journey) -> list[str]:
    return sorted(row.kind for row in journey.rows(models.ResultObject))


# The table ----------------------------------------------------------------------------------------


def test_a_profile_names_only_kinds_that_can_be_made() -> None:
    named = {
        kind
        for rows in profiles.PROFILES.values()
        for row in rows
        for form in row
        for kind in (form.kind, *form.instead_of)
    }
    assert named <= set(results.KINDS)
    # And a peer can be asked for each
    assert all(echo.result_contexts([kind]) for kind in named)


@pytest.mark.parametrize(
    ("profile", "listed", "kinds"),
    [
        ("default", ("seg", "labelmap", "sr"), ("seg", "labelmap", "sr")),
        # One form of the voxels, and the measurements drawn, though the manifest does not list that form
        ("ohif", ("labelmap", "seg", "sr", "key-objects"), ("seg", "sr", "sr-display", "pdf")),
        ("ohif", ("labelmap",), ("labelmap",)),
        ("weasis", ("seg", "sr", "key-images", "key-objects"), ("seg", "sr", "key-images", "key-objects")),
        ("slicer", ("seg", "sr", "key-images"), ("seg", "sr")),
        ("slicer", ("key-images",), ()),
        ("plain-pacs", ("seg", "sr"), ("key-images", "pdf", "sr")),
        ("plain-pacs", ("labelmap",), ("key-images",)),
        ("plain-pacs", ("sr",), ("pdf", "sr")),
    ],
)
def test_what_a_profile_takes(profile: str, listed: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    assert profiles.kinds(profile, listed) == kinds


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_no_profile_takes_what_the_model_does_not_have(profile: str) -> None:
    assert profiles.kinds(profile, ()) == ()
    assert not {"seg", "labelmap", "key-images"} & set(profiles.kinds(profile, ("sr",)))
    assert not {"sr", "sr-display", "pdf"} & set(profiles.kinds(profile, ("seg",)))


# The journey --------------------------------------------------------------------------------------


def test_each_destination_gets_its_own_and_the_job_makes_each_kind_once(rich: Journey) -> None:
    rich.routes = to(pacs=Terms(profile="plain-pacs"), workstation=Terms(profile="slicer"))
    rich.run(journeys.datasets())
    assert got(rich, "pacs") == ["key-images", "pdf", "sr"]
    assert got(rich, "workstation") == ["seg", "sr"]
    assert made(rich) == ["key-images", "pdf", "seg", "sr"]
    job = rich.job()
    assert (job.state, job.notes) == ("done", [])


def test_the_default_profile_sends_what_the_manifest_lists(rich: Journey) -> None:
    rich.run(journeys.datasets())
    assert got(rich, "pacs") == ["key-images", "labelmap", "seg", "sr"]


def test_a_form_that_the_manifest_does_not_list_is_made_for_who_shows_it(journey: Journey) -> None:
    journey.routes = to(pacs=Terms(profile="plain-pacs"))
    journey.run(journeys.datasets())
    assert got(journey, "pacs") == made(journey) == ["key-images", "pdf", "sr"]


def test_two_routes_with_one_job_send_each_destination_its_own(rich: Journey) -> None:
    rich.routes = to(pacs=Terms(profile="plain-pacs"))
    rich.routes.append(journeys.route("other", send_to=("workstation",)))
    rich.run(journeys.datasets())
    assert len(rich.why().jobs) == 1
    assert got(rich, "pacs") == ["key-images", "pdf", "sr"]
    assert got(rich, "workstation") == ["key-images", "labelmap", "seg", "sr"]


def test_what_is_too_large_for_a_destination_is_left_out_there_and_said(rich: Journey) -> None:
    rich.routes = to(pacs=Terms(max_megabytes=0.011), workstation=Terms())
    rich.run(journeys.datasets())
    sizes = {row.kind: row.size for row in rich.rows(models.ResultObject)}
    large = sorted(kind for kind, size in sizes.items() if size > 11_000)
    assert large and len(large) < len(sizes)
    assert got(rich, "pacs") == sorted(set(sizes) - set(large))
    assert got(rich, "workstation") == sorted(sizes)
    notes = rich.job().notes
    assert sorted(notes) == [
        f"no {kind} to pacs: it has {sizes[kind] / 1e6:.3g} MB, and at most 0.011 MB go there (max_megabytes)"
        for kind in large
    ]
    assert rich.job().state == "done"


def test_a_destination_that_takes_nothing_is_said_and_the_others_get_theirs(
    journey: Journey, tmp_path: Path
) -> None:
    journeys.write_model(tmp_path / "models" / "tiny", results=["key-images"])
    journey.shelf = Shelf([tmp_path / "models"], threads=1)
    journey.routes = to(pacs=Terms(profile="slicer"), workstation=Terms())
    journey.run(journeys.datasets())
    journey.shelf.close()
    assert (got(journey, "pacs"), got(journey, "workstation")) == ([], ["key-images"])
    assert journey.job().notes == [
        "nothing goes to pacs: its profile slicer takes nothing that the model lists"
    ]
    assert journey.job().state == "done"


def test_a_job_makes_and_sends_the_same_however_profiles_change_later(
    rich: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that was made for one profile, and failed
    rich.routes = to(pacs=Terms(profile="plain-pacs"))
    (job_id,) = rich.arrive(journeys.datasets())
    shelf, rich.shelf = rich.shelf, Shelf([])
    rich.analyse(job_id)
    rich.shelf = shelf
    assert rich.job().state == "failed"
    # When the peer has another profile, and the profile another meaning, and the job is retried
    rich.routes = to(pacs=Terms(profile="slicer"))
    monkeypatch.setitem(profiles.PROFILES, "plain-pacs", ((profiles.Form(kind="labelmap"),),))
    with rich.database.write() as session:
        assert jobs.retry(session, job_id)
    rich.follow([job_id])
    assert got(rich, "pacs") == made(rich) == ["key-images", "pdf", "sr"]
    # Then a study that is asked about from now on gets the new
    other = journeys.datasets(study_uid="1.2.9", series_uid="1.2.9.1")
    rich.run(other, association="a2")
    new = [row.kind for row in rich.rows(models.ResultObject) if row.job_id != job_id]
    assert sorted(new) == ["seg", "sr"]


def test_another_package_in_the_place_of_the_jobs_keeps_the_profile(rich: Journey, tmp_path: Path) -> None:
    rich.routes = to(pacs=Terms(profile="ohif", max_megabytes=5))
    (job_id,) = rich.arrive(journeys.datasets())
    journeys.write_model(tmp_path / "models" / "tiny", results=["labelmap"], version="2.0.0")
    rich.shelf = Shelf([tmp_path / "models"], threads=1)
    rich.analyse(job_id)
    [_, follower] = rich.rows(models.Job)
    assert follower.sends == {"pacs": {"profile": "ohif", "kinds": ["labelmap"], "max_megabytes": 5}}
    rich.follow([follower.id])
    rich.shelf.close()
    assert got(rich, "pacs") == ["labelmap"]


def test_results_of_an_earlier_attempt_keep_their_deliveries(rich: Journey) -> None:
    rich.routes = to(pacs=Terms(profile="plain-pacs"), workstation=Terms(profile="slicer"))
    rich.run(journeys.datasets())
    before = sorted((row.result_id, row.destination) for row in rich.rows(models.Delivery))
    with rich.database.write() as session:
        row = session.get_one(models.Job, rich.job().id)
        row.state = "failed"
    with rich.database.write() as session:
        assert jobs.retry(session, rich.job().id)
    rich.follow([rich.job().id])
    assert sorted((row.result_id, row.destination) for row in rich.rows(models.Delivery)) == before


def test_terms_are_those_of_the_peer() -> None:
    sends = profiles.sends(("a", "b"), {"a": Terms(profile="slicer", max_megabytes=1)}, ("seg", "key-images"))
    assert sends == {
        "a": {"profile": "slicer", "kinds": ["seg"], "max_megabytes": 1},
        "b": {"profile": "default", "kinds": ["seg", "key-images"], "max_megabytes": None},
    }
    assert profiles.wanted(sends, ("sr",)) == ("seg", "key-images")
    assert profiles.wanted({}, ("sr",)) == ("sr",)
    assert replace(Terms(), profile="ohif").max_megabytes is None
