"""The services of docker/compose.yaml, each with its own command and health check, without their containers.

What a container would give them is mapped: host names, ports and paths. PostgreSQL asks for the password as the
image does, which the roles have from their file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import free_ports, until
from tests.docker import recipes
from tests.support import peers
from tests.support.postgres import Cluster, postgres_cluster

pytestmark = [pytest.mark.peer("redis"), pytest.mark.peer("postgresql")]

PASSWORD = "correct horse"


class Host:
    """This machine in place of the containers: whom a service's names and paths stand for here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dicom, self.web, self.postgres, self.redis = free_ports(4)
        (folder / "data").mkdir()
        self.passfile = folder / "pgpass"
        # As docs/docker.md has an admin write it.
        self.passfile.write_text(f"*:*:secondread:secondread:{PASSWORD}\n")
        self.passfile.chmod(0o600)

    def environment(self, name: str) -> dict[str, str]:
        """A service's own variables, mapped, and what the image has beside them."""
        given = {
            key: self._mapped(str(value)) for key, value in recipes.services()[name]["environment"].items()
        }
        image = {
            "SECONDREAD_CONFIG": str(recipes.FOLDER / "secondread.yaml"),
            "SECONDREAD_STORAGE": str(self.folder / "data"),
            "SECONDREAD_NODE__PORT": str(self.dicom),
            "SECONDREAD_WEB__PORT": str(self.web),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        return installation.environment(**image, **given)

    def _mapped(self, value: str) -> str:
        value = value.replace("/run/secrets/pgpass", str(self.passfile))
        value = value.replace("@postgres:5432", f"@127.0.0.1:{self.postgres}")
        return value.replace("//redis:6379", f"//127.0.0.1:{self.redis}")

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A service's command; killed with all below it at the end."""
        command = ["secondread", *recipes.services()[name]["command"]]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(name), cwd="/"
            )
        try:
            yield process
        finally:
            installation.end(process)

    def healthy(self, name: str) -> int:
        """The exit status of a service's health check."""
        command = recipes.services()[name]["healthcheck"]["test"][1:]
        environment = self.environment(name)
        return subprocess.run(
            command, env=environment, cwd="/", capture_output=True, check=False, timeout=60
        ).returncode

    def log(self) -> str:
        """What all said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


@contextmanager
def postgres(host: Host) -> Iterator[None]:
    """PostgreSQL that believes nobody over the network without the password."""
    with tempfile.TemporaryDirectory(prefix="hba-") as folder:
        Path(folder).chmod(0o755)
        rules = Path(folder) / "pg_hba.conf"
        method = re.search(r"--auth-host=([a-z0-9-]+)", str(recipes.services()["postgres"]["environment"]))
        assert method is not None
        rules.write_text(f"local all all trust\nhost all all 127.0.0.1/32 {method.group(1)}\n")
        settings = ("listen_addresses=127.0.0.1", f"port={host.postgres}", f"hba_file={rules}")
        with postgres_cluster(host.folder, *settings) as cluster:
            _make_database(cluster, recipes.services()["postgres"]["environment"])
            yield


def _make_database(cluster: Cluster, environment: Mapping[str, Any]) -> None:
    """What the image's entry point does on its first start."""
    user, name = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    with cluster.connect() as connection:
        connection.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        connection.execute(f"CREATE DATABASE {name} OWNER {user}")


@contextmanager
def redis(host: Host) -> Iterator[None]:
    """The service's own command on another port."""
    program, *options = recipes.services()["redis"]["command"]
    options += ["--port", str(host.redis), "--bind", "127.0.0.1", "--dir", str(host.folder)]
    with (host.folder / "redis.log").open("wb") as log:
        server = subprocess.Popen([peers.path(program), *options], stdout=log, stderr=log)
    try:
        yield
    finally:
        server.terminate()
        server.wait(20)


def servers_healthy(host: Host) -> dict[str, int]:
    """The exit statuses of the health checks of PostgreSQL and Redis, at their ports here."""
    where = {"postgres": ["--port", str(host.postgres)], "redis": ["-p", str(host.redis)]}
    found = {}
    for name, port in where.items():
        program, *words = recipes.services()[name]["healthcheck"]["test"][1:]
        command = [peers.path(program), *port, *words]
        found[name] = subprocess.run(command, capture_output=True, check=False, timeout=30).returncode
    return found


@pytest.mark.timeout(600)
def test_each_services_command_gets_ready_and_its_check_knows_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path)
    monkeypatch.setenv("PGPORT", str(host.postgres))
    names = [name for name in recipes.roles() if name != "migrate"]
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        stack.enter_context(postgres(host))
        stack.enter_context(redis(host))
        assert servers_healthy(host) == {"postgres": 0, "redis": 0}

        # The schema, once, before the roles
        with host.running("migrate") as migrate:
            assert migrate.wait(60) == 0, host.log()
        running = {name: stack.enter_context(host.running(name)) for name in names}
        until(lambda: ready(host), "every role to live", seconds=240)
        # The page asks for any worker, and for no compiler
        for late in ("gpu", "plans"):
            until(partial(lambda name: host.healthy(name) == 0, late), f"{late} to live", seconds=240)
        assert dict(zip(names, pool.map(host.healthy, names), strict=True)) == dict.fromkeys(names, 0), (
            host.log()
        )

        for process in running.values():
            installation.end(process)
        assert dict(zip(names, pool.map(host.healthy, names), strict=True)) == dict.fromkeys(names, 1)
    assert servers_healthy(host) == {"postgres": 2, "redis": 1}


def ready(host: Host) -> bool:
    """Whether the page says that the installation works."""
    made = installation.Installation(
        folder=host.folder, config=host.folder, dicom_port=host.dicom, web_port=host.web
    )
    try:
        return bool(made.get("/readyz")["ready"])
    except OSError:
        return False
