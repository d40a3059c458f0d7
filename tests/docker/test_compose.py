"""compose.yaml: taken by Debian's docker-compose, and it says what an admin is told that it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url
from typer.testing import CliRunner

from tests.docker import recipes
from worker import alive, cli, listen, settings, supervise
from worker.queueing import QUEUES

PROFILES = ((), ("gpu",), ("pacs",))
#: Without any profile.
ALWAYS = {"postgres", "redis", "migrate", "listen", "cpu", "deliver", "sweep", "web"}
#: What starts with a profile.
WITH_PROFILE = {"gpu": {"gpu", "plans"}, "pacs": {"orthanc"}}
#: Ports of the host.
PORTS: dict[str, list[Any]] = {
    "listen": [{"published": 11112, "target": 11112}],
    "web": ["127.0.0.1:8080:8080/tcp"],
    "orthanc": ["127.0.0.1:8042:8042/tcp", "127.0.0.1:4242:4242/tcp"],
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docker/ as an admin has it, with the secrets that docs/docker.md has him make."""
    folder = tmp_path_factory.mktemp("checkout") / "docker"
    shutil.copytree(recipes.FOLDER, folder)
    (folder / "secrets").mkdir(exist_ok=True)
    for name in ("postgres-password", "pgpass"):
        (folder / "secrets" / name).write_text("secret")
    return folder


@pytest.fixture(scope="module")
def configured(installed: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """What docker-compose makes of it, by profiles."""
    return {profiles: configuration(installed, profiles) for profiles in PROFILES}


def configuration(folder: Path, profiles: tuple[str, ...]) -> dict[str, Any]:
    """The output of `docker-compose config`; the newer plugin says the same in another order."""
    command = ["docker-compose", "--file", folder / "compose.yaml"]
    for profile in profiles:
        command += ["--profile", profile]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE")}
    done = subprocess.run([*command, "config"], capture_output=True, text=True, check=False, env=plain)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


@pytest.mark.peer("docker-compose")
@pytest.mark.parametrize("profiles", PROFILES)
def test_docker_compose_takes_it_with_these_services(
    configured: dict[tuple[str, ...], dict[str, Any]], profiles: tuple[str, ...]
) -> None:
    wanted = ALWAYS.union(*(WITH_PROFILE[profile] for profile in profiles))
    # docker-compose lists the others too, with the profiles that they wait for.
    listed = configured[profiles]["services"]
    started = {
        name
        for name, each in listed.items()
        if not each.get("profiles") or set(each["profiles"]) & set(profiles)
    }
    assert started == wanted


@pytest.fixture(scope="module")
def services(configured: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every service, as docker-compose understands it."""
    return {name: each for made in configured.values() for name, each in made["services"].items()}


@pytest.mark.peer("docker-compose")
def test_images_have_a_full_tag_and_ours_this_version(services: dict[str, dict[str, Any]]) -> None:
    for name, each in services.items():
        image = each["image"]
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?", image), name
        if image.startswith(recipes.OURS):
            assert image.removeprefix(recipes.OURS).removesuffix("-gpu") == cli.VERSION
            assert each["build"]["target"] == ("gpu" if image.endswith("-gpu") else "node")
            # Built from what the Dockerfile's lines take
            assert (Path(each["build"]["context"]) / "docker" / "Dockerfile").is_file()


@pytest.mark.peer("docker-compose")
def test_only_these_ports_are_open_and_the_page_on_this_host_alone(
    services: dict[str, dict[str, Any]],
) -> None:
    assert {name: each["ports"] for name, each in services.items() if each.get("ports")} == PORTS


@pytest.mark.peer("docker-compose")
def test_database_and_broker_are_on_a_network_that_leads_nowhere(
    configured: dict[tuple[str, ...], dict[str, Any]], services: dict[str, dict[str, Any]]
) -> None:
    assert configured[()]["networks"] == {"inner": {"internal": True}, "outer": {}}
    inner_only = {name for name, each in services.items() if set(each["networks"]) == {"inner"}}
    assert inner_only == {"postgres", "redis", "migrate", "cpu", "gpu", "plans"}


@pytest.mark.peer("docker-compose")
def test_every_service_but_the_one_that_ends_has_a_health_check_and_starts_again(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, each in services.items():
        assert each["init"] is True, name
        if name == "migrate":
            assert (each["healthcheck"], each["restart"]) == ({"test": ["NONE"]}, "no")
            continue
        assert each["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert each.get("restart") == ("unless-stopped" if name != "orthanc" else None), name


@pytest.mark.peer("docker-compose")
def test_ours_write_to_the_storage_only_and_have_no_rights(services: dict[str, dict[str, Any]]) -> None:
    ours = {name: each for name, each in services.items() if each["image"].startswith(recipes.OURS)}
    assert set(ours) == ALWAYS - {"postgres", "redis"} | {"gpu", "plans"}
    for name, each in ours.items():
        assert each["read_only"] is True, name
        assert (each["cap_drop"], each["security_opt"]) == (["ALL"], ["no-new-privileges:true"]), name
        writable = [volume for volume in each["volumes"] if not volume.endswith(":ro")]
        assert (writable, each["tmpfs"]) == (["storage:/data:rw"], ["/tmp:mode=1777"]), name
        assert "user" not in each and "privileged" not in each, f"{name}: the image's user is the one"


@pytest.mark.peer("docker-compose")
def test_the_gpu_s_worker_and_its_compiler_alone_have_a_gpu(services: dict[str, dict[str, Any]]) -> None:
    wanted = {
        name: each["deploy"]["resources"]["reservations"]["devices"]
        for name, each in services.items()
        if "deploy" in each
    }
    device = [{"capabilities": ["gpu"], "count": 1, "driver": "nvidia"}]
    assert wanted == {"gpu": device, "plans": device}


@pytest.mark.peer("docker-compose")
def test_roles_wait_for_the_schema_and_the_broker(services: dict[str, dict[str, Any]]) -> None:
    for name in ("listen", "cpu", "gpu", "plans", "deliver", "sweep", "web"):
        assert services[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
        }
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_what_is_in_hand_has_the_time_that_our_own_supervisor_gives() -> None:
    for each in recipes.roles().values():
        seconds = int(each["stop_grace_period"].removesuffix("s"))
        assert seconds > max(listen.STOP_SECONDS, supervise.GRACE_SECONDS)


def test_no_secret_stands_in_the_configuration() -> None:
    text = recipes.COMPOSE.read_text(encoding="utf-8")
    for each in recipes.roles().values():
        url = make_url(each["environment"]["SECONDREAD_DATABASE"])
        assert url.password is None
        assert url.query["passfile"] == "/run/secrets/pgpass"
    assert (
        recipes.services()["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"]
        == "/run/secrets/postgres-password"
    )
    assert not re.search(r"PASSWORD:", text)
    ignored = subprocess.run(
        ["git", "check-ignore", "--quiet", "docker/secrets/pgpass"], cwd=recipes.ROOT, check=False
    )
    assert ignored.returncode == 0


# Our commands and settings


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours, by where it stands."""
    for name, each in recipes.roles().items():
        yield name, each["command"]
        if "test" in each["healthcheck"]:
            program, *words = each["healthcheck"]["test"][1:]
            assert program == "secondread"
            yield f"{name}'s health check", words
    (entry,), (default,), (check,) = (
        recipes.of(word, "node") for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK")
    )
    assert json.loads(entry) == ["secondread"]
    yield "the image", json.loads(default)
    yield "the image's health check", json.loads(check.partition(" CMD ")[2])[1:]


@pytest.mark.parametrize(
    ("where", "words"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_command_line_is_one_of_ours(where: str, words: list[str]) -> None:
    """Read to its last option, and not run: what it does not know is refused before its help is shown."""
    assert CliRunner().invoke(cli.app, [*words, "--help"]).exit_code == 0, where
    assert CliRunner().invoke(cli.app, [*words, "--nonsense", "--help"]).exit_code == 2, where
    if "--queue" in words:
        assert words[words.index("--queue") + 1] in QUEUES


def test_each_role_is_asked_by_its_own_name() -> None:
    for name, each in recipes.roles().items():
        if name != "migrate":
            assert each["healthcheck"]["test"] == ["CMD", "secondread", "alive", name]
            assert name in set(alive.Role)


@pytest.mark.parametrize("name", sorted(recipes.roles()))
def test_each_variable_is_a_setting_and_the_file_is_a_configuration(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in [key for key in os.environ if key.startswith("SECONDREAD_")]:
        monkeypatch.delenv(known)
    environment = recipes.roles()[name]["environment"]
    for key, value in environment.items():
        section, _, field = key.removeprefix("SECONDREAD_").lower().partition("__")
        assert section in settings.Settings.model_fields, key
        if field:
            assert field in type(getattr(settings.Settings(), section)).model_fields, key
        monkeypatch.setenv(key, value)
    loaded = settings.load(recipes.FOLDER / "secondread.yaml")
    assert (loaded.node.port, loaded.web.port, str(loaded.storage)) == (11112, 8080, "/data")
    assert loaded.web.host == "0.0.0.0"
    assert loaded.broker == "redis://redis:6379/0"
    assert loaded.database_url.startswith("postgresql+psycopg://secondread@postgres:5432/secondread?")


def test_the_test_pacs_and_the_example_configuration_know_each_other() -> None:
    pacs = json.loads((recipes.FOLDER / "orthanc.json").read_text(encoding="utf-8"))
    (peer,) = settings.load(recipes.FOLDER / "secondread.yaml").peers
    assert (peer.ae_title, peer.host, peer.port) == (pacs["DicomAet"], "orthanc", pacs["DicomPort"])
    assert pacs["DicomModalities"]["secondread"] == ["SECONDREAD", "listen", 11112]
    assert set(recipes.services()) >= {"orthanc", "listen"}
    shared = set(recipes.services()["orthanc"]["networks"])
    for role in ("listen", "deliver", "sweep"):
        assert shared & set(recipes.services()[role]["networks"])


def test_the_guide_lists_every_service_with_its_ports_and_the_versions_of_the_lock() -> None:
    guide = (recipes.ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): line for line in guide.splitlines() if len(cells := line.split("|")) > 5}
    for name, each in recipes.services().items():
        row = next(line for first, line in rows.items() if first.split("`")[0] == name)
        for port in each.get("ports", ()):
            assert port.rpartition(":")[0] in row, f"{name}: {port}"
        if "command" in each and each["image"].startswith(recipes.OURS):
            assert f"`secondread {' '.join(each['command'][:3])}`" in row, name
    lock = (recipes.ROOT / "requirements-gpu.lock").read_text(encoding="utf-8")
    for package in ("tensorrt", "tensorrt-cu13-libs", "pycuda", "cuda-bindings"):
        version = re.search(rf"^{package}==(\S+)", lock, re.MULTILINE)
        assert version is not None
        assert re.search(rf"\| .*{package}\b.* \| {re.escape(version.group(1))} \|", guide), package
