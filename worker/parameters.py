"""A job's parameters: values that a route, or a person, gives a model instead of its manifest's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from engines import manifest_prompts
from engines.errors import EngineError
from engines.manifest import Manifest
from worker.errors import ConfigurationError
from worker.sections import Route


def text(given: Mapping[str, Any]) -> str:
    """One text for the same parameters, however they are ordered; "" where there are none."""
    return json.dumps(dict(given), sort_keys=True, separators=(",", ":"), default=str) if given else ""


def values(written: str) -> dict[str, Any]:
    """The parameters that `text` wrote."""
    return dict(json.loads(written)) if written else {}


def problem(manifest: Manifest, given: Mapping[str, Any]) -> str:
    """Why a model cannot be given these parameters; "" where it can."""
    try:
        manifest_prompts.given(manifest.prompts, given)
    except EngineError as error:
        return str(error)
    return ""


def problems(routes: Sequence[Route], manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """What is wrong with the routes' parameters for the usable models, with the route's and the model's name."""
    for route in routes:
        for model, given in route.parameters.items():
            manifest = manifests.get(model)
            said = problem(manifest, given) if manifest is not None else ""
            if said:
                yield f"routes.{route.name}.parameters.{model}: {said}"


def parse(words: Sequence[str], manifest: Manifest) -> dict[str, Any]:
    """The parameters of a command line, each "name=value", the value as YAML writes it.

    Raises ConfigurationError where one is not of that form, is given twice, or the model cannot take it.
    """
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ConfigurationError(f"--parameter {word}: write name=value")
        if name in given:
            raise ConfigurationError(f"--parameter {name}: it is given twice")
        try:
            given[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
            raise ConfigurationError(f"--parameter {name}: {value[:80]} is no number and no list") from error
    said = problem(manifest, given)
    if said:
        raise ConfigurationError(f"--parameter, for {manifest.name}: {said}")
    return given
