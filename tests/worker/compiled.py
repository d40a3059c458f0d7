"""Plans in a station's storage, as a GPU's machine would have left them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from engines import plans
from engines.errors import PlanError
from engines.plans import Plans, Record, Target, Verdict
from worker.station import Station

H200 = Target(gpu="NVIDIA H200", compute_capability="9.0", compiler="tensorrt 11.4.0.106")
ENGINE = "tensorrt 11.4.0.106 NVIDIA H200 float16"
WHY = "the plan of chest-ct: differs from the reference: label Lung: Dice 0.91, at least 0.995 is expected"
FALLBACK = f"openvino 2026.4 CPU float32, in place of tensorrt: {WHY}"


def verdict(**changes: Any) -> Verdict:
    """One that agrees."""
    values: dict[str, Any] = {
        "agrees": True,
        "case": "example",
        "engine": ENGINE,
        "reference": "onnxruntime 1.31.1 CPU float32",
        "largest_difference": 0.00312,
        "tolerance": 0.02,
        "dice": 0.9987,
        "min_dice": 0.995,
        "speed_up": 41.7,
        "judged_at": datetime.now(UTC) - timedelta(hours=6),
    }
    return Verdict(**values | changes)


def keep(here: Station, *, target: Target = H200, **changes: Any) -> Record:
    """A plan of the station's model, judged."""
    package, kept = here.shelf.packages["chest-ct"], Plans(folder=here.settings.plans)
    record = kept.build_once(package, plans.key_for(package, target), lambda: b"a plan" * 200_000)
    return kept.judge(record, verdict(**changes), megabytes=812.0)


def keep_refusals(here: Station) -> None:
    """One that differs without bound, for another GPU, and one that the compiler refused."""
    said = ('output "logits" holds values that are not finite numbers', "label Lung: Dice 0.0000")
    other = Target(gpu="NVIDIA L4", compute_capability="8.9", compiler="tensorrt 11.4.0.106")
    keep(here, target=other, agrees=False, largest_difference=float("inf"), dice=0.0, differences=said)
    package, kept = here.shelf.packages["chest-ct"], Plans(folder=here.settings.plans)

    def refuse() -> bytes:
        raise PlanError("TensorRT cannot read the network: node 3 (NonZero): is not supported")

    try:
        kept.build_once(package, plans.key_for(package, H200, "bfloat16"), refuse)
    except PlanError:
        return
