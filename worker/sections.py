"""The sections of the configuration, each with its checks; a misspelt key is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from worker import criteria, profiles, turns
from worker.errors import ConfigurationError


def _ae_title(value: str) -> str:
    """1 to 16 printable characters, no backslash, not only blanks (PS3.5 6.2, VR AE)."""
    if not 0 < len(value) <= 16 or not value.isascii() or not value.isprintable() or "\\" in value:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    if not value.strip():
        raise ValueError("an AE title must not be blank")
    return value.strip()


AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$")]


def _check_criteria(value: dict[str, Any]) -> None:
    """Raise ValueError where a mapping is no criteria."""
    try:
        criteria.parse(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


class _Section(BaseModel):
    """A part of the configuration; a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Section):
    """The listener."""

    ae_title: AETitle = "SECONDREAD"
    host: str = "0.0.0.0"
    port: Port = 11112
    #: Listener processes that share the port.
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    #: Quiet time after the last association was released.
    quiet_seconds: Annotated[float, Field(ge=0)] = 5
    #: Quiet time where an association broke off, or the file was found by the start-up scan.
    long_quiet_seconds: Annotated[float, Field(ge=0)] = 60
    #: Whether callers must be configured peers.
    require_known_peers: bool = True
    #: Below this free space the answer is 0xA700.
    min_free_mb: Annotated[int, Field(ge=0)] = 1024
    max_associations: Annotated[int, Field(ge=1)] = 50
    #: Of two images with one SOP Instance UID and other bytes, which is analysed; both are kept.
    conflicts: Literal["keep-first", "keep-last"] = "keep-first"


class Peer(_Section):
    """A DICOM application that we know: it may send to us, results may go to it."""

    name: Name
    ae_title: str = ""
    host: str
    port: Port = 104
    #: STOW-RS service root; results go there instead of by C-STORE.
    stow_url: str | None = None
    #: Value of the Authorization header: in a file of its own, or by the environment.
    authorization_file: Path | None = None
    authorization: SecretStr | None = None
    #: Whether it is asked to commit to the results that it took (storage commitment, PS3.4 J).
    commitment: bool = False
    #: How it is asked for its own number of images, to know that all of a study it sent have arrived.
    count: Literal["none", "cfind", "qido"] = "none"
    #: QIDO-RS: the service root, where it is not that of STOW-RS.
    qido_url: str | None = None
    #: What its people look at results with: which kinds go there (`profiles.py`).
    profile: str = profiles.DEFAULT
    #: Larger results are not sent there; null: however large.
    max_megabytes: Annotated[float, Field(gt=0)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 30

    @field_validator("profile")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in profiles.NAMES:
            raise ValueError(f"there is no profile {value!r}; write one of {', '.join(profiles.NAMES)}")
        return value

    @model_validator(mode="after")
    def _has_a_title(self) -> Peer:
        if self.ae_title != "*" and (self.ae_title or not self.stow_url):
            _ae_title(self.ae_title)
        return self

    @model_validator(mode="after")
    def _can_be_asked(self) -> Peer:
        if self.count == "qido" and not (self.qido_url or self.stow_url):
            raise ValueError("count: qido needs the peer's qido_url, e.g. http://pacs:8042/dicom-web")
        if self.count == "cfind" and (self.ae_title in ("", "*") or "/" in self.host):
            raise ValueError("count: cfind needs the peer's own ae_title and host, not a network of them")
        return self


class Route(_Section):
    """Which series which model gets, and where its results go."""

    name: Name
    when: dict[str, Any]
    run: Annotated[tuple[str, ...], Field(min_length=1)]
    send_to: tuple[str, ...] = ()
    #: By model: values for its manifest's prompts, by name.
    parameters: dict[str, dict[str, Any]] = {}
    #: Whether these destinations are told where there is no answer: "AI not performed", and why.
    announce_failures: bool = False
    #: Whose turn its jobs have; null: as the images say (Requested Procedure Priority), else routine.
    priority: turns.Word | None = None

    @model_validator(mode="after")
    def _parameters_are_of_its_models(self) -> Route:
        for model in self.parameters:
            if model not in self.run:
                raise ValueError(f"parameters.{model}: the route runs {', '.join(self.run)} only")
        return self

    @field_validator("when")
    @classmethod
    def _understood(cls, value: dict[str, Any]) -> dict[str, Any]:
        _check_criteria(value)
        return value


class Web(_Section):
    """The status page and the REST API."""

    host: str = "127.0.0.1"
    port: Port = 8080


#: What runs networks, as `engines.loader` names it; importing that would take longer than all settings do.
Engine = Literal["openvino", "onnxruntime", "tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt"]
_ON_THE_CPU: tuple[Engine, ...] = ("openvino", "onnxruntime")


class Work(_Section):
    """The workers."""

    engine: Engine = "openvino"
    #: What takes the GPU's place where it cannot be used; none: the job fails.
    fallback: Literal["openvino", "onnxruntime", "none"] = "openvino"
    #: Analyses at the same time, each in a process of its own with its own open models.
    jobs_at_once: Annotated[int, Field(ge=1, le=64)] = 1
    #: Threads of the inference runtime in each of these processes; null: its share of the machine's cores.
    threads: Annotated[int, Field(ge=1)] | None = None
    #: What the open models of one of these processes may take; null: their share of half of the memory.
    models_megabytes: Annotated[float, Field(gt=0)] | None = None
    #: The same for the GPU's memory; null: their share of 90 % of what is free when it is first used.
    gpu_megabytes: Annotated[float, Field(gt=0, le=1e9)] | None = None
    #: What one of them may keep of the series that it read last, for other models about the same; 0: nothing.
    volumes_megabytes: Annotated[float, Field(ge=0)] = 512
    #: A job whose worker is silent for so long is taken from it.
    lease_seconds: Annotated[float, Field(ge=1)] = 60
    #: Attempts until a job whose workers die is given up.
    max_attempts: Annotated[int, Field(ge=1)] = 3
    #: A job that takes longer is noted, and one that takes longer than the second is stopped; null: by what
    #: the model took before.
    soft_seconds: Annotated[float, Field(gt=0)] | None = None
    hard_seconds: Annotated[float, Field(gt=0)] | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether networks are to run on a GPU."""
        return self.engine not in _ON_THE_CPU

    @property
    def cpu_engine(self) -> Engine | None:
        """What runs networks on the CPU, alone or in the GPU's place; None: nothing does."""
        if self.on_gpu:
            return None if self.fallback == "none" else self.fallback
        return self.engine

    @property
    def queue(self) -> Literal["cpu", "gpu"]:
        """Where analyses wait: a queue is a device."""
        return "gpu" if self.on_gpu else "cpu"


class Reports(_Section):
    """The report in words: in the structured report, on the printed page, and on the page of the job."""

    language: Literal["en", "zh"] = "en"


class Guard(_Section):
    """The loop guard: results, ours or another AI's, are not analysed as if they were images."""

    enabled: bool = True
    #: Other AIs' results: criteria as in a route's `when`, each a mapping.
    also: tuple[dict[str, Any], ...] = ()
    #: Processing devices that an image may have passed (Contributing Equipment).
    max_hops: Annotated[int, Field(ge=0)] = 3
    #: Whether what is guarded against is stored all the same; otherwise its sender is refused.
    store: bool = True

    @field_validator("also")
    @classmethod
    def _understood(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for each in value:
            _check_criteria(each)
        return value


class Retention(_Section):
    """What is deleted, and when: oldest first, never what has not left."""

    #: Finished studies are deleted so many days after their last image; null: never by age.
    days: Annotated[float, Field(gt=0)] | None = None
    #: Below this free space finished studies are deleted until there is as much; null: never for space.
    free_mb: Annotated[int, Field(ge=1)] | None = None
    #: What broke off on its way in was never acknowledged; it is kept for so many days.
    partial_days: Annotated[float, Field(gt=0)] = 7
