"""How people read what is kept for programs."""

from __future__ import annotations

from datetime import datetime

from worker.model_views import PlanLine

#: Where a measurement of no single segment was made.
TOGETHER = "all together"


def purged(at: datetime, again: bool = False) -> str:
    """What became of the files of a study, or of a job."""
    sentence = f"Purged on {at.astimezone():%Y-%m-%d}: its images and results were deleted"
    return f"{sentence}; images came again since." if again else f"{sentence}; what was found stays known."


def count(number: int, thing: str, things: str = "") -> str:
    """How many there are of a thing: "1 image", "2 images"; `things` where an "s" does not do."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def besides(set_aside: int, guarded: int) -> str:
    """What a study has besides its images: files kept aside, and series of results; "" where nothing."""
    parts = [f"and {set_aside} kept aside"] if set_aside else []
    parts += [f"and {guarded} series of results (guarded)"] if guarded else []
    return ", ".join(parts)


def came_again(repeated: int, set_aside: int) -> str:
    """What came more than once of a series; "" where nothing did."""
    parts = [f"came again as they were: {repeated}"] if repeated else []
    parts += [f"kept aside, as other bytes of their images are analysed: {set_aside}"] if set_aside else []
    return "; ".join(parts)


def compared(plan: PlanLine) -> str:
    """What the parity gate measured of a compiled plan."""
    if plan.judged_at is None:
        return "not compared with the reference yet"
    parts = [
        f"compared on {'its example' if plan.case == 'example' else 'a patch of noise'} with {plan.reference}, "
        f"{plan.judged_at.astimezone():%Y-%m-%d %H:%M:%S}",
        "differs without bound"
        if plan.largest_difference is None
        else f"largest difference {plan.largest_difference:.2%} of the range (at most {plan.tolerance:.2%})",
    ]
    if plan.dice is not None:
        parts.append(f"Dice {plan.dice:.4f} (at least {plan.min_dice:.4f})")
    if plan.speed_up is not None:
        parts.append(f"{plan.speed_up:.1f} times as fast")
    if plan.megabytes is not None:
        parts.append(f"{plan.megabytes:.0f} MB of the GPU")
    return "; ".join(parts)
