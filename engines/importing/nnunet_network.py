"""The network of an nnU-Net folder: built of dynamic_network_architectures, its weights loaded without code."""

from __future__ import annotations

import _codecs
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures import unet

from engines.errors import PackageError
from engines.importing import checkpoints, nnunet_files, package_writer, steady_norms
from engines.importing.nnunet_files import Refusals
from engines.importing.nnunet_plans import Plans

_ARCHITECTURES = {
    "PlainConvUNet": unet.PlainConvUNet,
    "ResidualEncoderUNet": unet.ResidualEncoderUNet,
    "ResidualUNet": unet.ResidualUNet,
}

#: What numpy's scalars are unpickled with.
_SCALAR: Any = np.float64(0).__reduce__()[0]

#: numpy's numbers, which nnU-Net's checkpoints keep beside the weights; and the names that numpy 1 knew them by.
_PLAIN: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.bool_)),
    *((_SCALAR, f"numpy.{package}.multiarray.scalar") for package in ("core", "_core")),
    _codecs.encode,
]


class _Mean(torch.nn.Module):  # type: ignore[misc]
    """Several folds as one network: the mean of their logits."""

    def __init__(self, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)

    def forward(self, image: torch.Tensor) -> Any:
        total = self.networks[0](image)
        for network in self.networks[1:]:
            total = total + network(image)
        return total / len(self.networks)


def checkpoint(path: Path) -> dict[str, Any]:
    """What is in a checkpoint. Raises PackageError where it is damaged, or would run code: then none of it is run."""
    if not path.is_file():
        raise PackageError(f"{path}: there is no such file: name another with --folds or --checkpoint")
    try:
        with torch.serialization.safe_globals(_PLAIN):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()
        telling = next(
            (line.strip() for line in reason if "GLOBAL" in line or "nsupported" in line), reason[0]
        )
        raise PackageError(
            f"{path}: it holds more than numbers, and code in it is not run: {telling[:300]}: "
            "save the checkpoint anew with nnU-Net"
        ) from error
    except checkpoints.DAMAGED as error:
        raise PackageError(
            f"{path}: it is damaged: copy it again ({package_writer.first_line(error)})"
        ) from error
    lacking = {"network_weights", "init_args", "trainer_name"} - set(
        content if isinstance(content, dict) else ()
    )
    if lacking:
        raise PackageError(f"{path}: it lacks {', '.join(sorted(lacking))}: give a checkpoint of nnU-Net v2")
    nnunet_files.require(nnunet_files.Checkpoint, content, path)
    return dict(content)


def network(
    plans: Plans, states: Mapping[Path, Mapping[str, Any]], *, channels: int, classes: int
) -> torch.nn.Module:
    """The network with the weights in `states`, by the file they are of; of several it is the mean.

    Raises PackageError where the architecture is unknown, or the weights are not its own.
    """
    networks = []
    for path, state in states.items():
        built = _built(plans, channels, classes)
        try:
            built.load_state_dict({_plain(name): value for name, value in state.items()})
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise PackageError(
                f"{path}: the weights are not those of the plans' network: {reason[:300]}"
            ) from error
        networks.append(steady_norms.steady(built).eval())
    return networks[0] if len(networks) == 1 else _Mean(networks)


def _plain(name: str) -> str:
    """A weight's name without what compiling and training on several devices put before it."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def _built(plans: Plans, channels: int, classes: int) -> torch.nn.Module:
    """The network that the plans describe."""
    refusals = Refusals(file=plans.folder / "plans.json")
    description = plans.content["architecture"]
    name = str(description.get("network_class_name"))
    if name.rsplit(".", 1)[-1] not in _ARCHITECTURES:
        refusals.add(
            plans.key("architecture.network_class_name"), name, f"supported are {', '.join(_ARCHITECTURES)}"
        )
    arguments = dict(description.get("arch_kwargs", {}))
    for key in description.get("_kw_requires_import", ()):
        if arguments.get(key) is not None:
            arguments[key] = _layer(str(arguments[key]))
            if arguments[key] is None:
                given = description["arch_kwargs"][key]
                refusals.add(
                    plans.key(f"architecture.arch_kwargs.{key}"), given, "only layers of torch.nn are built"
                )
    refusals.settle()
    try:
        return _ARCHITECTURES[name.rsplit(".", 1)[-1]](
            input_channels=channels, num_classes=classes, deep_supervision=False, **arguments
        )
    except (TypeError, ValueError, AssertionError, LookupError, AttributeError, RuntimeError) as error:
        raise PackageError(
            f"{refusals.file}: {plans.key('architecture')}: no network can be built: {error}"
        ) from error


def _layer(name: str) -> Any:
    """A layer of PyTorch by its full name; None where it is not one."""
    last = name.rsplit(".", 1)[-1]
    found = getattr(torch.nn, last, None) if name.startswith("torch.nn.") else None
    return found if isinstance(found, type) and issubclass(found, torch.nn.Module) else None
