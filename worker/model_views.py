"""What is shown of model packages, and of the plans that were compiled of them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class ModelLine(BaseModel):
    """A model package that can be used."""

    name: str
    version: str
    manufacturer: str
    licence: str
    intended_use: str
    research_only: bool
    digest: str
    folder: str


class ShelfView(BaseModel):
    """The model packages of this installation."""

    models: list[ModelLine]
    #: Why other packages cannot be used.
    problems: list[str]


class PlanLine(BaseModel):
    """A model compiled for a GPU, and what the parity gate said of it."""

    model: str
    version: str
    model_digest: str
    precision: str
    gpu: str
    compute_capability: str
    compiler: str
    built_at: datetime
    #: How long the compiler took.
    build_seconds: float
    #: Bytes on disk; 0 where the compiler refused the network.
    size: int
    #: Whether jobs may run on it.
    serves: bool
    #: "verified", or what keeps it from serving, in words.
    state: str
    #: Whether it is of the package as it is now; None where there is no package of this name.
    current: bool | None
    #: Whether it is for this machine's GPU and compiler; None where nobody looked.
    here: bool | None
    #: Where it was compared: "example" or "patch", with which reference, and when.
    case: str | None = None
    reference: str | None = None
    judged_at: datetime | None = None
    #: Of a network output, as a fraction of the reference's range; None where not compared, or without bound.
    largest_difference: float | None = None
    tolerance: float | None = None
    #: Of the label that overlaps least; None where there are none.
    dice: float | None = None
    min_dice: float | None = None
    #: Reference's time for a patch, divided by the plan's.
    speed_up: float | None = None
    #: Device memory that it took.
    megabytes: float | None = None


class GpuLine(BaseModel):
    """The GPU of this machine, as a process sees it."""

    #: "" where there is none that can be used.
    gpu: str = ""
    compute_capability: str = ""
    compiler: str = ""
    free_megabytes: float | None = None
    megabytes: float | None = None
    #: What is missing, and what to do; "" where nothing is.
    missing: str = ""
    #: The version of ONNX Runtime, and what it can run on here.
    onnxruntime: list[str] = []


class EnginesView(BaseModel):
    """What models run on, and the compiled plans."""

    #: `work.engine`.
    engine: str
    #: None where nobody looked: a page's process opens no GPU.
    machine: GpuLine | None
    plans: list[PlanLine]
