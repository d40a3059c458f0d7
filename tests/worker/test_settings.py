"""The configuration: defaults, file, environment, and one clear line for every mistake."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from worker import assets, settings
from worker.errors import ConfigurationError


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from outside, and a folder of the test's own to stand in."""
    for name in [name for name in os.environ if name.startswith("SECONDREAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _write(folder: Path, content: Any) -> Path:
    path = folder / "secondread.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def _complaint(path: Path | None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings.load(path)
    return str(caught.value)


PACS = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242}


# What is there without and with a file ------------------------------------------------------------


def test_without_a_file_the_embedded_defaults_hold(tmp_path: Path) -> None:
    loaded = settings.load()
    assert (loaded.node.ae_title, loaded.node.port, loaded.node.quiet_seconds) == ("SECONDREAD", 11112, 5)
    assert loaded.node.require_known_peers
    assert (loaded.web.host, loaded.web.port) == ("127.0.0.1", 8080)
    assert (loaded.database, loaded.broker) == ("sqlite", "embedded")
    assert loaded.storage == tmp_path / "secondread-data"
    assert loaded.database_url == f"sqlite:///{tmp_path / 'secondread-data' / 'secondread.db'}"
    assert loaded.models == (assets.models().resolve(),)
    assert [route.run for route in loaded.routes] == [("chest-ct",)]
    # Only this machine may send to a node that nobody configured.
    assert [(peer.ae_title, peer.host) for peer in loaded.peers] == [("*", "127.0.0.1")]


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert settings.load(_write(tmp_path, "# nothing yet\n")) == settings.load()


def test_a_file_is_read(tmp_path: Path) -> None:
    when = {"Modality": "CT", "SliceThickness": "<=5"}
    content = {
        "node": {"ae_title": "READER", "port": 104, "processes": 4},
        "database": "postgresql+psycopg://reader@db/secondread",
        "broker": "redis://broker:6379/0",
        "peers": [PACS],
        "routes": [{"name": "chest ct", "when": when, "run": ["chest-ct"], "send_to": ["pacs"]}],
    }
    loaded = settings.load(_write(tmp_path, content))
    assert (loaded.node.ae_title, loaded.node.port, loaded.node.processes) == ("READER", 104, 4)
    assert loaded.node.quiet_seconds == 5
    assert loaded.database_url == "postgresql+psycopg://reader@db/secondread"
    assert [peer.name for peer in loaded.peers] == ["pacs"]
    assert loaded.routes[0].when == when and loaded.routes[0].send_to == ("pacs",)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, {"node": {"port": 1}})
    monkeypatch.setenv("SECONDREAD_CONFIG", str(path))
    assert settings.load().node.port == 1
    (tmp_path / "other").mkdir()
    assert settings.load(_write(tmp_path / "other", {"node": {"port": 2}})).node.port == 2


def test_the_environment_goes_before_the_file_key_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, {"node": {"port": 1, "ae_title": "FILE"}, "broker": "redis://file/0"})
    monkeypatch.setenv("SECONDREAD_NODE__PORT", "2")
    monkeypatch.setenv("SECONDREAD_BROKER", "redis://environment/0")
    monkeypatch.setenv("SECONDREAD_WORK__MAX_ATTEMPTS", "7")
    monkeypatch.setenv("SECONDREAD_PEERS", '[{"name": "env", "ae_title": "ENV", "host": "h"}]')
    loaded = settings.load(path)
    assert (loaded.node.port, loaded.node.ae_title) == (2, "FILE")
    assert (loaded.broker, loaded.work.max_attempts) == ("redis://environment/0", 7)
    assert [peer.name for peer in loaded.peers] == ["env"]


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = _write(tmp_path / "etc", {"storage": "../data", "models": ["models", "/opt/models"]})
    loaded = settings.load(Path("etc/secondread.yaml"))
    assert loaded == settings.load(path)
    assert loaded.storage == tmp_path / "data"
    assert loaded.models == (tmp_path / "etc" / "models", Path("/opt/models"))
    assert loaded.spool == tmp_path / "data" / "spool"
    assert settings.load(path, storage=Path("elsewhere")).storage == tmp_path / "elsewhere"


def test_what_was_read_cannot_change(tmp_path: Path) -> None:
    loaded = settings.load()
    with pytest.raises(ValidationError):
        loaded.node.port = 1  # type: ignore[misc]


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "key", "words"),
    [
        ({"nod": {"port": 1}}, "nod", "no such setting"),
        ({"node": {"prot": 1}}, "node.prot", "no such setting"),
        ({"node": {"ae_title": "A" * 17}}, "node.ae_title", "1 to 16"),
        ({"node": {"ae_title": "A\\B"}}, "node.ae_title", "no backslash"),
        ({"node": {"ae_title": "   "}}, "node.ae_title", "blank"),
        ({"node": {"ae_title": "Ä"}}, "node.ae_title", "ASCII"),
        ({"node": {"ae_title": ""}}, "node.ae_title", "1 to 16"),
        ({"node": {"port": 70000}}, "node.port", "65535"),
        ({"node": {"port": "many"}}, "node.port", "integer"),
        ({"node": {"quiet_seconds": -1}}, "node.quiet_seconds", "greater than or equal to 0"),
        ({"node": {"processes": 0}}, "node.processes", "greater than or equal to 1"),
        ({"node": "SECONDREAD"}, "node", "dictionary"),
        ({"database": "mysql://host/name"}, "database", "postgresql"),
        ({"database": "nonsense"}, "database", "sqlite"),
        ({"broker": "amqp://host"}, "broker", "redis://"),
        ({"peers": [PACS, PACS]}, "peers", "two have the name 'pacs'"),
        ({"peers": [{"name": "pacs", "host": "h"}]}, "peers.0", "AE title"),
        ({"peers": [PACS | {"ae_title": "A" * 17}]}, "peers.0", "AE title"),
        ({"peers": [PACS | {"port": -1}]}, "peers.0.port", "greater than or equal to 0"),
        ({"peers": [{"name": "pacs", "ae_title": "A"}]}, "peers.0.host", "required"),
        ({"peers": [PACS | {"name": "/etc"}]}, "peers.0.name", "pattern"),
        ({"peers": PACS}, "peers", "tuple"),
        ({"work": {"engine": "cuda"}}, "work.engine", "openvino"),
        ({"web": {"port": 65536}}, "web.port", "65535"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, content: dict[str, Any], key: str, words: str
) -> None:
    path = _write(tmp_path, {"routes": []} | content)
    complaint = _complaint(path)
    assert complaint.startswith(f"{path}: ") and key in complaint
    assert words in complaint
    assert "\n" not in complaint and "pydantic" not in complaint and "https://" not in complaint


@pytest.mark.parametrize(
    ("route", "key", "words"),
    [
        ({"when": {"Modalty": "CT"}}, "routes.0.when", "did you mean Modality"),
        ({"when": {"any": [{"SliceThickness": "<=thin"}]}}, "routes.0.when", "when.any[0].SliceThickness"),
        ({"when": "CT"}, "routes.0.when", "dictionary"),
        ({"run": []}, "routes.0.run", "at least 1"),
        ({"send_to": ["pasc"]}, "routes.chest ct.send_to", "no peer is called 'pasc'; peers: ['pacs']"),
        ({"sendto": ["pacs"]}, "routes.0.sendto", "no such setting"),
        ({"name": ""}, "routes.0.name", "pattern"),
    ],
)
def test_a_wrong_route_is_one_line_that_names_it(
    tmp_path: Path, route: dict[str, Any], key: str, words: str
) -> None:
    plain = {"name": "chest ct", "when": {"Modality": "CT"}, "run": ["chest-ct"], "send_to": ["pacs"]}
    complaint = _complaint(_write(tmp_path, {"peers": [PACS], "routes": [plain | route]}))
    assert key in complaint and words in complaint
    assert "\n" not in complaint


def test_two_routes_of_one_name_are_refused(tmp_path: Path) -> None:
    route = {"name": "a", "when": {}, "run": ["chest-ct"]}
    assert "routes: two have the name 'a'" in _complaint(_write(tmp_path, {"routes": [route, route]}))


def test_every_mistake_has_its_own_line(tmp_path: Path) -> None:
    complaint = _complaint(_write(tmp_path, {"node": {"port": -1, "prot": 1}, "brokr": "embedded"}))
    assert len(complaint.splitlines()) == 3
    for key in ("node.port", "node.prot", "brokr"):
        assert sum(f": {key}: " in line for line in complaint.splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["node: {port: 1", "a: b: c", "\tnode: 1", "node: !!python/object:os.system {}", "a: 1\n\x00"]
)
def test_what_is_not_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, text)
    complaint = _complaint(path)
    assert complaint.startswith(f"{path}: is not YAML") and "\n" not in complaint


def test_the_place_in_the_yaml_is_named(tmp_path: Path) -> None:
    assert "line 3" in _complaint(_write(tmp_path, "node:\n  port: 1\n bad: x\n"))


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secondread.yaml"
    path.write_bytes(b"node: \xff\xfe")
    assert _complaint(path).startswith(f"{path}: is not YAML")


@pytest.mark.parametrize("text", ["- node", "just words", "5"])
def test_a_file_that_is_no_mapping_says_what_to_write(tmp_path: Path, text: str) -> None:
    assert "write a mapping of settings" in _complaint(_write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone.yaml"
    assert _complaint(gone) == f"{gone}: cannot be read: No such file or directory"
    monkeypatch.setenv("SECONDREAD_CONFIG", str(tmp_path))
    assert _complaint(None) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("SECONDREAD_NODE__PORT", "many", "node.port"),
        ("SECONDREAD_NODE__PROT", "1", "node.prot"),
        ("SECONDREAD_PEERS", "pacs", "SECONDREAD_PEERS"),
        ("SECONDREAD_NODE", "{", "SECONDREAD_NODE"),
    ],
)
def test_a_wrong_environment_variable_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str
) -> None:
    monkeypatch.setenv(name, value)
    complaint = _complaint(None)
    assert key in complaint and "\n" not in complaint


# Secrets ------------------------------------------------------------------------------------------

SECRET = "Bearer-tok3n-of-the-PACS"


def test_a_secret_is_not_shown_by_the_settings(tmp_path: Path) -> None:
    content = {
        "peers": [PACS | {"stow_url": "http://pacs/dicom-web", "authorization": SECRET}],
        "database": f"postgresql+psycopg://reader:{SECRET}@db/name",
        "broker": f"redis://:{SECRET}@broker/0",
    }
    loaded = settings.load(_write(tmp_path, content))
    secret = loaded.peers[0].authorization
    assert secret is not None and secret.get_secret_value() == SECRET
    assert SECRET not in repr(loaded) + str(loaded) + repr(loaded.peers)


def test_a_secret_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    content = {"peers": [PACS | {"stow_url": "http://pacs/dicom-web", "authorization_file": "token"}]}
    secret = settings.load(_write(tmp_path, content)).peers[0].authorization
    assert secret is not None and secret.get_secret_value() == SECRET


def test_a_secret_whose_file_is_missing_names_the_peer_and_the_file(tmp_path: Path) -> None:
    config = _write(tmp_path, {"peers": [PACS | {"authorization_file": "nothing"}]})
    with pytest.raises(
        ConfigurationError, match=r"peers\.pacs\.authorization_file: .*nothing cannot be read"
    ):
        settings.load(config)


@pytest.mark.parametrize(
    "text",
    [
        # YAML that breaks on the secret's own line
        f"peers:\n  - {{name: pacs, authorization: {SECRET}: x, host: h]}}\n",
        f'peers:\n  - name: pacs\n    authorization: "{SECRET}\n',
        # Right YAML, wrong settings
        f"peers:\n  - {{name: pacs, ae_title: A, host: h, authorization: [{SECRET}]}}\n",
        f"peers:\n  - {{name: pacs, ae_title: A, host: h, authorisation: {SECRET}}}\n",
        f"peers:\n  - {{name: pacs, ae_title: A, port: x, authorization: {SECRET}}}\n",
        f"database: mysql://reader:{SECRET}@db/name\n",
        f"database: postgresql+psycopg://reader:{SECRET}@db:port/name\n",
        f"broker: amqp://:{SECRET}@broker\n",
        f"{{authorization: {SECRET}",
    ],
)
def test_a_secret_is_not_shown_by_a_complaint(tmp_path: Path, text: str) -> None:
    assert SECRET not in _complaint(_write(tmp_path, text))


@pytest.mark.parametrize("value", [f"[{{{SECRET}", f'[{{"authorization": ["{SECRET}"]}}]'])
def test_a_secret_in_the_environment_is_not_shown_by_a_complaint(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SECONDREAD_PEERS", value)
    assert SECRET not in _complaint(None)
