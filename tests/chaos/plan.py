"""What a storm will do, from its seed alone: who sends which images when, and what breaks when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple


class Image(NamedTuple):
    """An image by its place in the plan."""

    study: int
    #: Its place in the series.
    slice: int
    #: 1: other bytes under the same SOP Instance UID.
    variant: int = 0


StepKind = Literal["send", "abort", "break", "pause"]
FaultKind = Literal["kill", "freeze", "receiver", "disk-low", "disk-full", "flush", "database"]

#: Whom a kill may hit, and how often relative to each other.
KILLED = {
    "listen-1": 4,
    "listen-2": 4,
    "cpu": 3,
    "cpu-child": 4,
    "deliver": 3,
    "deliver-child": 3,
    "sweep": 3,
    "web": 1,
    "broker": 3,
    "up": 1,
    "everything": 1,
}
#: Who may be stopped for longer than a lease, and then goes on.
FROZEN = ("listen-1", "cpu-child", "deliver-child", "sweep", "broker")
#: How a study comes, and how often relative to each other.
MANNERS = {"plain": 6, "parallel": 3, "aborted": 3, "broken": 2, "paused": 3, "late": 3, "interleaved": 3}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that a sender does."""

    #: send: one association, released. abort: aborted after the last image. break: the connection ends
    #: in the middle of the last image. pause: nothing.
    kind: StepKind
    images: tuple[Image, ...] = ()
    #: A pause's length; of a send, a pause in the middle of its association.
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What one sender does, from `start` seconds on; then it sends again what was not acknowledged."""

    start: float
    steps: tuple[Step, ...]

    @property
    def images(self) -> tuple[Image, ...]:
        """All its images, each once."""
        return tuple(dict.fromkeys(image for step in self.steps for image in step.images))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that breaks, at a time, for so long."""

    start: float
    kind: FaultKind
    target: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.start:7.1f} s  {self.kind} {self.target}{lasts}"


@dataclass(frozen=True, kw_only=True)
class Storm:
    """What to do, and how long it may take."""

    seed: int
    images: int
    kills: int
    seconds: float
    slices: int = 20
    #: Quiet time of the node, which pauses are measured by.
    quiet: float = 1.0
    #: A frozen process is frozen for longer than this.
    lease: float = 3.0
    #: Whether PostgreSQL may be stopped.
    database: bool = False

    @property
    def studies(self) -> int:
        """How many studies carry the images."""
        return max(1, self.images // self.slices)


def errands(storm: Storm) -> list[Errand]:
    """The traffic, in the order it starts; the same for the same storm."""
    rng = random.Random(f"traffic-{storm.seed}")
    # The last errands start a little before the last faults.
    gap = 0.9 * storm.seconds / storm.studies
    made: list[Errand] = []
    study = 0
    while study < storm.studies:
        manner = rng.choices(list(MANNERS), weights=list(MANNERS.values()))[0]
        start = study * gap + rng.uniform(0, gap)
        if manner == "interleaved" and study + 1 < storm.studies:
            made.append(Errand(start=start, steps=tuple(_interleaved(rng, storm, study, study + 1))))
            study += 2
            continue
        made += _errands_of(rng, storm, study, manner, start)
        study += 1
    return sorted(made, key=lambda errand: errand.start)


def _shuffled(rng: random.Random, storm: Storm, study: int) -> list[Image]:
    """A study's images, mostly out of order."""
    images = [Image(study, number) for number in range(storm.slices)]
    if rng.random() < 0.7:
        rng.shuffle(images)
    return images


def _interleaved(rng: random.Random, storm: Storm, *studies: int) -> Iterator[Step]:
    """Several studies on one association, image by image."""
    orders = [_shuffled(rng, storm, study) for study in studies]
    yield Step(kind="send", images=tuple(image for pair in zip(*orders, strict=True) for image in pair))


def _errands_of(rng: random.Random, storm: Storm, study: int, manner: str, start: float) -> list[Errand]:
    """One study's errands."""
    images = _shuffled(rng, storm, study)
    cut = rng.randrange(2, storm.slices - 2)
    if manner == "parallel":
        parts = [images[0::3], images[1::3], images[2::3]]
        return [Errand(start=start, steps=(Step(kind="send", images=tuple(part)),)) for part in parts]
    steps = {
        "aborted": [Step(kind="abort", images=tuple(images[:cut]))],
        "broken": [Step(kind="break", images=tuple(images[:cut]))],
        "late": [
            Step(kind="send", images=tuple(images[:cut])),
            Step(kind="pause", seconds=rng.uniform(4, 10) * storm.quiet),
        ],
    }.get(manner, [])
    # Some senders begin anew after what broke off, others go on.
    rest = images[cut:] if steps and (manner == "late" or rng.random() < 0.5) else images
    pause = rng.uniform(0.5, 3) * storm.quiet if manner == "paused" else 0.0
    steps.append(Step(kind="send", images=tuple(rest), seconds=pause))
    if rng.random() < 0.2:
        steps.append(Step(kind="send", images=tuple(rng.sample(images, 3))))
    if rng.random() < 0.05:
        steps.append(Step(kind="send", images=(Image(study, rng.randrange(storm.slices), 1),)))
    return [Errand(start=start, steps=tuple(steps))]


def faults(storm: Storm) -> list[Fault]:
    """What breaks, in order: `kills` kills, and for every four of them one other thing."""
    rng = random.Random(f"faults-{storm.seed}")
    kinds = _others(rng, storm)
    kinds += ["kill"] * storm.kills
    rng.shuffle(kinds)
    gap = storm.seconds / max(1, len(kinds))
    return [
        _fault(rng, storm, kind, number * gap + rng.uniform(0.1, 0.9) * gap)
        for number, kind in enumerate(kinds)
    ]


def _others(rng: random.Random, storm: Storm) -> list[FaultKind]:
    """What breaks besides."""
    choice: list[FaultKind] = ["freeze", "receiver", "disk-low", "disk-full", "flush"]
    if storm.database:
        choice.append("database")
    count = max(1, storm.kills // 4) if storm.kills else 0
    return [choice[number % len(choice)] for number in range(count)]


def _fault(rng: random.Random, storm: Storm, kind: FaultKind, start: float) -> Fault:
    """One fault of a kind."""
    if kind == "kill":
        target = rng.choices(list(KILLED), weights=list(KILLED.values()))[0]
        return Fault(start=start, kind=kind, target=target)
    if kind == "flush":
        return Fault(start=start, kind=kind)
    target = rng.choice(FROZEN) if kind == "freeze" else ""
    shortest = storm.lease if kind == "freeze" else 2.0
    return Fault(start=start, kind=kind, target=target, seconds=shortest + rng.uniform(1, 5))
