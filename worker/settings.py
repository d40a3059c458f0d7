"""The configuration: one YAML file and the environment, read once at the edge, then frozen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from db import base
from worker import assets
from worker.errors import ConfigurationError
from worker.sections import Guard, Node, Peer, Reports, Retention, Route, Web, Work

#: The environment variable that names the configuration file.
CONFIG_VARIABLE = "SECONDREAD_CONFIG"

#: With no peers configured a newcomer can try it from the same machine, and nobody else can send.
_THIS_MACHINE = Peer(name="this-machine", ae_title="*", host="127.0.0.1")
_SHIPPED_ROUTE = Route(name="shipped chest-ct", when={"Modality": "CT"}, run=("chest-ct",))


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="SECONDREAD_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    node: Node = Node()
    #: "sqlite" (a file in `storage`) or a SQLAlchemy URL, e.g. postgresql+psycopg://user@host/name.
    database: str = Field(default="sqlite", repr=False)
    #: "embedded" or redis://...
    broker: str = Field(default="embedded", repr=False)
    storage: Path = Path("secondread-data")
    peers: tuple[Peer, ...] = (_THIS_MACHINE,)
    models: tuple[Path, ...] = Field(default_factory=lambda: (assets.models(),))
    routes: tuple[Route, ...] = (_SHIPPED_ROUTE,)
    web: Web = Web()
    work: Work = Work()
    guard: Guard = Guard()
    reports: Reports = Reports()
    retention: Retention = Retention()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, which `load` hands over as init values."""
        return env_settings, init_settings

    @field_validator("database")
    @classmethod
    def _is_a_database(cls, value: str) -> str:
        if value != "sqlite" and not base.is_supported(value):
            raise ValueError('write "sqlite" or postgresql+psycopg://user:password@host/name')
        return value

    @field_validator("broker")
    @classmethod
    def _is_a_broker(cls, value: str) -> str:
        if value != "embedded" and not value.startswith(("redis://", "rediss://", "redis+socket://")):
            raise ValueError('write "embedded" or redis://host:port/0')
        return value

    @model_validator(mode="after")
    def _names_resolve(self) -> Settings:
        for kind, names in (
            ("peers", [peer.name for peer in self.peers]),
            ("routes", [route.name for route in self.routes]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{kind}: two have the name {sorted(twice)[0]!r}")
        wanted = self.retention.free_mb
        if wanted is not None and wanted <= self.node.min_free_mb:
            raise ValueError(
                f"retention.free_mb: {wanted} is not more than node.min_free_mb ({self.node.min_free_mb}): "
                "images would be refused before anything is deleted"
            )
        known = {peer.name for peer in self.peers}
        for route in self.routes:
            for name in route.send_to:
                if name not in known:
                    raise ValueError(
                        f"routes.{route.name}.send_to: no peer is called {name!r}; peers: {sorted(known)}"
                    )
        return self

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL."""
        if self.database == "sqlite":
            return f"sqlite:///{self.storage.resolve() / 'secondread.db'}"
        return self.database

    @property
    def spool(self) -> Path:
        """Where received files are."""
        return self.storage / "spool"

    @property
    def results(self) -> Path:
        """Where result objects and pictures are."""
        return self.storage / "results"

    @property
    def plans(self) -> Path:
        """Where models compiled for GPUs are."""
        return self.storage / "plans"


def load(config: Path | None = None, *, storage: Path | None = None) -> Settings:
    """Read the configuration: `config`, else the file that SECONDREAD_CONFIG names, else defaults.

    Raises ConfigurationError with one line per problem: the key, what is wrong, what was found.
    """
    path = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    values = _read_yaml(path) if path else {}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, path)) from error
    except SettingsError as error:
        # It names the field, and its cause quotes the value.
        key = str(error).split('"')[1].upper()
        raise ConfigurationError(f"environment: SECONDREAD_{key}: is not JSON") from error
    base = path.resolve().parent if path else Path.cwd()
    own_storage = storage.resolve() if storage else (base / settings.storage).resolve()
    models = tuple((base / folder).resolve() for folder in settings.models)
    peers = tuple(_with_secret(peer, base) for peer in settings.peers)
    return settings.model_copy(update={"storage": own_storage, "models": models, "peers": peers})


def _with_secret(peer: Peer, base: Path) -> Peer:
    """The peer with its secret read from the file that it names."""
    if peer.authorization_file is None:
        return peer
    path = base / peer.authorization_file
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        key = f"peers.{peer.name}.authorization_file"
        raise ConfigurationError(f"{key}: {path} cannot be read: {type(error).__name__}") from error
    return peer.model_copy(update={"authorization": SecretStr(secret)})


def _read_yaml(path: Path) -> dict[str, Any]:
    """The file's mapping. Raises ConfigurationError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not YAML{_place(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: write a mapping of settings, e.g. node: {{port: 11112}}")
    return values


def _place(error: Exception) -> str:
    """Where a file stops to be YAML. The parser's own words quote the text, which may be a secret."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return "; it must be UTF-8 text without control characters"
    return f" at line {mark.line + 1}, column {mark.column + 1}; check indentation, quotes and brackets there"


def _explain(error: ValidationError, path: Path | None) -> str:
    """Pydantic's complaints as lines that name the key; a secret's value is never shown."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in problem["loc"]) or "configuration"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting; check the spelling"
        lines.append(f"{path or 'environment'}: {key}: {message}")
    return "\n".join(lines)
