"""Models that need others' answers: each answers in its turn about one image, and the last one's answer stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from engines import given, labels, predict
from engines.answer import Clock
from engines.errors import EngineError
from engines.findings import Findings
from engines.manifest_stages import After, Crop
from engines.package import ModelPackage
from engines.predict import Progress
from engines.runner import Runner
from engines.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A model with its open network, and all that it needs to answer."""

    package: ModelPackage
    runner: Runner
    #: The models that its manifest's `after` names, by name.
    earlier: Mapping[str, Stage] = field(default_factory=dict)
    #: The networks of those that its `ensemble` names, in that order.
    members: tuple[Runner, ...] = ()

    @property
    def whole(self) -> tuple[Stage, ...]:
        """The stages in the order in which they answer, each once; this one is the last."""
        before = [stage for entry in self.package.manifest.after for stage in self.earlier[entry.model].whole]
        return tuple({stage.package.manifest.name: stage for stage in [*before, self]}.values())


def predict_all(
    stage: Stage,
    volume: Volume,
    others: Mapping[str, Volume] = MappingProxyType({}),
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    clock: Clock | None = None,
) -> Findings:
    """The answer of `stage` about `volume`, after those that go before it, each once.

    `clock` adds the seconds of its stages, and no earlier model's, to what it has.

    Where an earlier model finds nothing to look at, the answer is that: no voxel, no number, no statement, and
    the reason among what is `impossible`. The seconds of earlier models stand under their names.
    Raises as `predict.predict` does; of an earlier model with its name.
    """
    report = progress or predict.ignore
    stages = stage.whole
    found: dict[str, Findings] = {}
    for number, each in enumerate(stages):

        def part(done: float, number: int = number) -> None:
            report((number + done) / len(stages))

        try:
            own = clock if each is stage else None
            answer = _answer(each, found, volume, others, progress=part, threads=threads, clock=own)
        except EngineError as error:
            if each is stage:
                raise
            raise type(error)(f"{each.package.manifest.name}, which answers first: {error}") from error
        found[each.package.manifest.name] = answer
    seconds = {name: sum(earlier.seconds.values()) for name, earlier in list(found.items())[:-1]}
    last = found[stage.package.manifest.name]
    return replace(last, seconds={**seconds, **last.seconds})


def _answer(
    stage: Stage,
    found: Mapping[str, Findings],
    volume: Volume,
    others: Mapping[str, Volume],
    *,
    progress: Progress,
    threads: int | None,
    clock: Clock | None,
) -> Findings:
    """One stage's answer, those before it having answered."""
    manifest = stage.package.manifest
    crop = next((entry for entry in manifest.after if isinstance(entry.use, Crop)), None)
    part = _part(stage, crop, found[crop.model]) if crop is not None else None
    if crop is not None and part is None:
        progress(1.0)
        return _nothing(stage, crop, volume)
    return predict.predict(
        stage.package,
        stage.runner,
        volume,
        others,
        given=given.Given(part=part, channels=_channels(stage, found)),
        members=stage.members,
        progress=progress,
        threads=threads,
        clock=clock,
    )


def _part(stage: Stage, entry: After, found: Findings) -> given.Part | None:
    """Where the stage is to look."""
    assert isinstance(entry.use, Crop)
    return given.wanted_part(
        found.mask,
        _numbers(stage, entry),
        found.geometry,
        margin_mm=entry.use.margin_mm,
        min_slices=stage.package.manifest.reference.min_slices,
    )


def _channels(stage: Stage, found: Mapping[str, Findings]) -> tuple[given.LabelMap, ...]:
    """The earlier answers that the stage's network sees."""
    return tuple(
        given.LabelMap(use=entry.use, mask=found[entry.model].mask, numbers=_numbers(stage, entry))
        for entry in stage.package.manifest.after
        if not isinstance(entry.use, Crop)
    )


def _numbers(stage: Stage, entry: After) -> tuple[int, ...]:
    """The numbers, in the earlier model's mask, of the labels that are used."""
    known = {label.key: label.index for label in stage.earlier[entry.model].package.manifest.labels}
    return tuple(known[key] for key in entry.use.labels)


def _nothing(stage: Stage, entry: After, volume: Volume) -> Findings:
    """What is to be said where the earlier model found nothing to look at."""
    earlier = stage.earlier[entry.model].package.manifest
    names = {label.key: label.label for label in earlier.labels}
    wanted = " or ".join(names[key] for key in entry.use.labels)
    return Findings(
        model=stage.package.identity,
        geometry=volume.geometry,
        mask=labels.blank(volume.geometry.shape),
        segments=stage.package.segments,
        impossible=(
            f"{stage.package.manifest.name} had nothing to look at: {earlier.name} {earlier.version} "
            f"found no {wanted}",
        ),
        engine=stage.runner.description,
    )
