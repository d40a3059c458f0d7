"""The network of a MONAI bundle: its definition instantiated by MONAI, its weights loaded without code."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser

from engines.errors import PackageError
from engines.importing import checkpoints, package_writer, steady_norms
from engines.importing.monai_config import BundleConfig

#: Where what a network is built of may come from.
_TRUSTED = ("monai.networks.", "torch.nn.")

#: How definitions of networks are called, the first that is there.
_KEYS = ("network_def", "net", "network")

#: Under which keys checkpoints keep the weights among other things.
_WRAPPED = ("model", "state_dict", "network", "net", "model_state_dict")


#: So many weights are named where some are wrong.
_FEW = 3


def network(config: BundleConfig, folder: Path, *, weights: str | None = None) -> torch.nn.Module:
    """The network with its weights, ready to infer.

    Raises PackageError where it is not built of MONAI's and PyTorch's own layers alone, or the weights are not
    its own.
    """
    key = next((key for key in _KEYS if config.has(key) and isinstance(config.raw(key), dict)), None)
    if key is None:
        raise PackageError(f"{config.name}: network_def: it is missing: add the network's definition")
    definition = config.value(key)
    locator = ComponentLocator()
    for path, target in _targets(definition, key):
        _check_target(config.name, path, target, locator)
    try:
        built = ConfigParser({"network_def": definition}).get_parsed_content("network_def")
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError) as error:
        reason = package_writer.first_line(error.__cause__ or error)
        raise PackageError(f"{config.name}: {key}: MONAI cannot build it: {reason}: correct it") from error
    if not isinstance(built, torch.nn.Module):
        raise PackageError(f"{config.name}: {key}: it is no network: correct its _target_")
    file = _weights_path(folder, weights)
    _load(built, _state(file), file)
    return steady_norms.steady(built).eval()


def _targets(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every special key in a definition and what stands there."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("_target_", "_requires_", "_mode_"):
                yield f"{path}::{key}", item
            yield from _targets(item, f"{path}::{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _targets(item, f"{path}::{index}")


def _check_target(file: str, path: str, target: Any, locator: ComponentLocator) -> None:
    """Raise PackageError unless the target is a layer of MONAI or PyTorch."""
    if not path.endswith("_target_"):
        raise PackageError(f"{file}: {path}: it may run code, and a bundle's code is not run: remove it")
    if not isinstance(target, str):
        raise PackageError(f"{file}: {path}: it must be the name of a class")
    full = str(ConfigComponent({"_target_": target}, locator=locator).resolve_module_name())
    if not _is_layer(full):
        raise PackageError(
            f"{file}: {path}: {target} is not of {' or '.join(name.strip('.') for name in _TRUSTED)}: "
            "only their networks are imported, never a bundle's own code"
        )


def _is_layer(name: str) -> bool:
    """Whether a module of MONAI's networks or of torch.nn has a layer of this name, and of its own.

    The name alone says little: what a module has imported itself, e.g. os, can be reached through it too.
    """
    module, _, last = name.rpartition(".")
    if not f"{module}.".startswith(_TRUSTED):
        return False
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError:
        return False
    layer = isinstance(found, type) and issubclass(found, torch.nn.Module)
    return layer and found.__module__.startswith(_TRUSTED)


def _weights_path(folder: Path, name: str | None) -> Path:
    """The file of the weights."""
    names = (name,) if name else ("model.pt", "model.pth", "model.ts")
    found = next((folder / "models" / name for name in names if (folder / "models" / name).is_file()), None)
    if found is None:
        raise PackageError(
            f"{folder / 'models'}: there is no {' or '.join(names)}: fetch the bundle's weights"
        )
    return found


def _state(path: Path) -> Mapping[str, torch.Tensor]:
    """The weights of a checkpoint, or of a TorchScript file, whose program is not run."""
    try:
        if path.suffix == ".ts":
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PackageError(
            f"{path}: it holds more than tensors, which only running its code would load: "
            "save network.state_dict() alone"
        ) from error
    except checkpoints.DAMAGED as error:
        reason = package_writer.first_line(error)
        raise PackageError(
            f"{path}: these are no weights of PyTorch: {reason}: fetch the file again"
        ) from error
    for key in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(one, torch.Tensor) for one in content.values()):
        raise PackageError(f"{path}: it holds no weights by name: save network.state_dict()")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _load(network: torch.nn.Module, state: Mapping[str, torch.Tensor], file: Path) -> None:
    """Load the weights, all of them. Raises PackageError where some are missing, too many or of another shape."""
    own = network.state_dict()
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    fitting = {key: value for key, value in state.items() if key not in reshaped}
    missing, further = network.load_state_dict(fitting, strict=False)
    said = [
        *_counted("missing", [key for key in missing if key not in reshaped]),
        *_counted("not in the network", further),
        *_counted("of another shape", reshaped),
    ]
    if said:
        raise PackageError(
            f"{file}: the weights are not this network's: {'; '.join(said)}: "
            "name the file of its weights with --weights, or correct network_def"
        )


def _counted(what: str, keys: Sequence[str]) -> Iterator[str]:
    """How many weights are so, and the first of them; nothing where none is."""
    if keys:
        more = ", ..." if len(keys) > _FEW else ""
        yield f"{len(keys)} {what} ({', '.join(keys[:_FEW])}{more})"
