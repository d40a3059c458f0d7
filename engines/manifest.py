"""What `model.yaml` may say: the model package's manifest, validated by pydantic."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from engines.manifest_fields import Fields
from engines.manifest_inputs import ROLE_LENGTH, check_clips
from engines.manifest_outputs import (
    Class,
    ClassificationOutput,
    DetectionOutput,
    ImageOutput,
    RegressionOutput,
    Value,
    task_of,
)
from engines.manifest_results import refusal, with_usual
from engines.manifest_stages import check_others


class Manifest(Fields):
    """The whole of `model.yaml`, its parts fitting each other."""

    @model_validator(mode="before")
    @classmethod
    def _usual_results(cls, given: Any) -> Any:
        return with_usual(given)

    @model_validator(mode="after")
    def _results_are_possible(self) -> Manifest:
        wrong = refusal(self.task, self.results, planar=self.reference.planar)
        if wrong:
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _task_and_output_agree(self) -> Manifest:
        if task_of(self.outputs[0]) != self.task:
            raise ValueError(
                f"outputs[0]: it is one of {task_of(self.outputs[0])}, and the task is {self.task}"
            )
        if self.tiling is None and (self.task in ("segmentation", "image") or self.reference.size is None):
            raise ValueError("tiling: add it; only what sees whole images of one size goes without")
        if self.tiling is None and self.reference.padding is not None:
            raise ValueError("inputs[0].steps: pad goes with tiling; without it the network sees just `size`")
        roles = [entry.called for entry in self.inputs]
        if len(set(roles)) != len(roles):
            raise ValueError("inputs: two have the same role; give each a role of its own")
        given = [*{entry.name for entry in self.inputs}, *(prompt.name for prompt in self.prompts)]
        if len(set(given)) != len(given):
            raise ValueError("prompts: two inputs of the graph have the same name")
        if (
            self.reference.planar
            and len(self.inputs) > 1
            and any(step.kind == "crop" for step in self.reference.steps)
        ):
            raise ValueError(
                "inputs[0].steps: planar images have no place in common to be cropped to: remove crop"
            )
        if any(step.kind in ("crop", "pad") for entry in self.inputs[1:] for step in entry.steps):
            raise ValueError(
                "inputs: crop and pad of the first are those of all; remove them from the others"
            )
        return self

    @model_validator(mode="after")
    def _further_inputs_follow_the_first(self) -> Manifest:
        first, *others = self.inputs
        if not others and first.prefer:
            raise ValueError("inputs[0].prefer: a model of one series takes each that fits; remove it")
        for entry in self.inputs if others else ():
            if len(entry.called) > ROLE_LENGTH:
                raise ValueError(f"inputs: give {entry.name} a `role` of at most {ROLE_LENGTH} characters")
        for position, entry in enumerate(others, start=1):
            if (entry.sampling == "nnunet") != (first.sampling == "nnunet"):
                raise ValueError(f"inputs[{position}].sampling: all inputs have nnunet, or none")
            for key in () if entry.planar else ("spacing_mm", "size", "orientation"):
                if key in entry.model_fields_set and getattr(entry, key) != getattr(first, key):
                    raise ValueError(
                        f"inputs[{position}].{key}: every input is brought to the grid of the first; remove it"
                    )
        return self

    @model_validator(mode="after")
    def _clips_and_other_models_fit(self) -> Manifest:
        check_clips(self.inputs, task=self.task, tiled=self.tiling is not None, alone=not self.after)
        check_others(self.name, self.after, self.ensemble, task=self.task, sampling=self.reference.sampling)
        return self

    @model_validator(mode="after")
    def _skipping_means_something(self) -> Manifest:
        output = self.outputs[0]
        if self.windows.skip_at_most is None:
            return self
        if isinstance(output, ClassificationOutput | RegressionOutput):
            raise ValueError(
                f"tiling.skip_at_most: nobody knows what a {self.task} would be of what it did not see: remove it"
            )
        if isinstance(output, ImageOutput) and output.image.scale is not None:
            raise ValueError(
                "tiling.skip_at_most: what is not seen keeps the source's values, which an image with a scale of "
                "its own cannot: remove it"
            )
        return self

    @model_validator(mode="after")
    def _intensities_can_be_undone(self) -> Manifest:
        output = self.outputs[0]
        filled = getattr(self.reference.intensity, "nonzero", False) == "filled"
        if filled and isinstance(output, ImageOutput) and output.image.scale is None:
            raise ValueError("outputs[0].image.scale: give one; a z-score of the filled body is not undone")
        return self

    @model_validator(mode="after")
    def _numbers_are_used_once(self) -> Manifest:
        output = self.outputs[0]
        listed: tuple[Class | Value, ...] = ()
        if isinstance(output, ClassificationOutput | DetectionOutput):
            listed = output.classes
        elif isinstance(output, RegressionOutput):
            listed = output.values
        for name, given in (
            ("key", [item.key for item in listed]),
            ("index", [item.index for item in listed]),
        ):
            if len(set(given)) != len(given):
                raise ValueError(f"outputs[0]: two entries have the same {name}")
        return self

    @model_validator(mode="after")
    def _planar_models_say_so(self) -> Manifest:
        planar = self.reference.planar
        if len({entry.planar for entry in self.inputs}) > 1:
            raise ValueError("inputs: all are planar, or none is")
        if (
            planar
            and len(self.inputs) > 1
            and {entry.size for entry in self.inputs} != {self.reference.size or 0}
        ):
            raise ValueError("inputs: several single images are seen at one `size`; give all the same")
        flat = self.reference.frames is not None or self.windows.patch[0] == 1
        if planar and (not flat or 0 in self.windows.mirror_axes):
            raise ValueError(
                "tiling: a planar model has a patch of one slice, mirrored along axes 1 and 2 only"
            )
        for label in self.labels:
            if planar and (label.min_component_ml or label.min_volume_ml):
                raise ValueError(
                    f"outputs[0].labels.{label.key}: a planar image has no volume to be too small"
                )
        for entry in self.measurements:
            if not planar and entry.kind == "area":
                raise ValueError(f"measurements.{entry.key}: an area is of one slice; volumes have many")
        return self

    @model_validator(mode="after")
    def _maps_are_there(self) -> Manifest:
        marked = sum(label.probability for label in self.labels)
        for kind in {"parametric-map", "fractional"} & set(self.results):
            if not marked:
                raise ValueError(f"results: {kind} needs a label with probability: true")
        if "parametric-map" in self.results and marked > 1:
            raise ValueError(
                "results: a parametric-map holds one map, which readers expect; "
                f"mark one label with probability: true, not {marked}, or ask for fractional"
            )
        return self

    @model_validator(mode="after")
    def _references_resolve(self) -> Manifest:
        labels = [label.key for label in self.labels]
        if len(set(labels)) != len(labels):
            raise ValueError("outputs[0].labels: two labels have the same key")
        if sorted(label.index for label in self.labels) != list(range(1, len(labels) + 1)):
            raise ValueError("outputs[0].labels: the indices must run 1..N without gaps")
        for entry in self.measurements:
            unknown = set(entry.of) - set(labels)
            if unknown:
                raise ValueError(f"measurements.{entry.key}.of: no label is called {sorted(unknown)}")
        keys = [entry.key for entry in self.measurements]
        if len({*keys, *self.valued}) != len(keys) + len(self.valued):
            raise ValueError("measurements: two measurements have the same key")
        stated = {entry.key for entry in self.classes if entry.threshold is not None}
        for rule in self.findings:
            if rule.key in stated:
                raise ValueError(f"findings.{rule.key}: a class has this key, and makes a finding of its own")
            if rule.measurement not in {*keys, *self.valued}:
                raise ValueError(f'findings.{rule.key}.measurement: no measurement "{rule.measurement}"')
        return self

    @model_validator(mode="after")
    def _words_name_what_is_there(self) -> Manifest:
        there = {
            "labels": {label.key for label in self.labels},
            "measurements": {entry.key for entry in self.measurements} | self.valued,
            "findings": {rule.key for rule in self.findings} | {entry.key for entry in self.classes},
        }
        for language, entry in self.words.items():
            for part, keys in there.items():
                unknown = set(getattr(entry, part)) - keys
                if unknown:
                    raise ValueError(f"words.{language}.{part}: there is no {sorted(unknown)}")
        return self
