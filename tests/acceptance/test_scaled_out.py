"""The same main job with every role started by hand, on PostgreSQL and a Redis by URL."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import Installation, free_ports, until
from tests.support import peers, phantoms
from tests.support.orthanc import Orthanc
from tests.support.phantoms import Phantom
from tests.support.postgres import postgres_cluster

pytestmark = [pytest.mark.peer(name) for name in ("dcmtk", "orthanc", "redis", "postgresql")]

ROLES = {
    "listen": ("listen",),
    "cpu": ("work", "--queue", "cpu"),
    "deliver": ("work", "--queue", "deliver"),
    "sweep": ("sweep",),
    "web": ("web",),
}


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A real Redis; its URL."""
    (port,) = free_ports(1)
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with (folder / "redis.txt").open("wb") as log:
        server = subprocess.Popen([peers.path("redis-server"), *options], stdout=log, stderr=log)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(20)


def ready(made: Installation) -> bool:
    """Whether the page says that every role lives."""
    try:
        return bool(made.get("/readyz")["ready"])
    except OSError:
        return False


def test_every_role_by_hand_on_postgresql_and_redis(tmp_path: Path, pacs: Orthanc) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(postgres_cluster(tmp_path))
        broker = stack.enter_context(redis_server(tmp_path))
        made = installation.configure(
            tmp_path / "site", pacs, database=cluster.create("secondread"), broker=broker
        )
        assert made.run("db", "upgrade").returncode == 0
        processes = {name: stack.enter_context(made.role_process(*words)) for name, words in ROLES.items()}
        until(lambda: ready(made), "every role to live")

        # A good study and one that no model may have
        good = phantoms.datasets(Phantom(patient_id="SCALED-OUT-1"))
        gapped = phantoms.datasets(Phantom(patient_id="SCALED-OUT-2"))
        del gapped[4]
        for name, datasets in (("good", good), ("gapped", gapped)):
            assert made.dcmsend(*phantoms.write(datasets, tmp_path / name)).returncode == 0
        why = made.done(str(good[0].StudyInstanceUID))
        (job,) = why["jobs"]
        assert (job["state"], len(job["objects"])) == ("done", 2)
        assert {one["sop_instance_uid"] for one in job["objects"]} <= set(pacs.instances())
        (failed,) = made.done(str(gapped[0].StudyInstanceUID))["jobs"]
        assert (failed["state"], failed["reason"]) == ("failed", "missing-slice")

        # The commands ask PostgreSQL
        assert made.ask("jobs", "show", job["id"]) == job
        found = made.ask("findings", "--code", "lung_volume")
        assert {line["study_instance_uid"] for line in found} == {str(good[0].StudyInstanceUID)}
        assert made.run("doctor").returncode == 0
        assert not list((tmp_path / "site" / "data").glob("*.db"))

        # Every role ends when it is asked to
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        assert {name: process.wait(40) for name, process in processes.items()} == dict.fromkeys(ROLES, 0)
    assert made.patients_in_log() == []
    assert "Traceback" not in made.log, made.log
