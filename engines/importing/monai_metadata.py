"""What a bundle's metadata.json says of itself, its image and its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.errors import PackageError
from engines.importing.monai_config import BundleConfig

#: Modality as bundles write it, in DICOM's words (PS3.3 C.7.3.1.1.1).
_MODALITIES = {
    "ct": "CT",
    "mr": "MR",
    "mri": "MR",
    "pet": "PT",
    "pt": "PT",
    "xray": "DX",
    "x-ray": "DX",
    "us": "US",
}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """metadata.json, as far as a package needs it."""

    title: str
    version: str
    description: str
    licence: str | None
    authors: str
    intended_use: str
    modality: str | None
    #: Names of the image's channels, in order.
    channels: tuple[str, ...]
    #: Names of the output's channels by number, as far as they have one.
    classes: Mapping[int, str]


def read(config: BundleConfig) -> Metadata:
    """The metadata in `config`; what is missing is left empty. Raises PackageError where it is damaged."""
    inputs, outputs = _format(config, "inputs"), _format(config, "outputs")
    count = inputs.get("num_channels")
    names, classes = _mapping(inputs, "channel_def"), _mapping(outputs, "channel_def")
    number = count if isinstance(count, int) and count > 0 else max(1, len(names))
    several = (f"image {index + 1}" if number > 1 else "image" for index in range(number))
    channels = tuple(str(names.get(str(index), name)) for index, name in enumerate(several))
    return Metadata(
        title=_text(config, "name") or _text(config, "task"),
        version=_version(_text(config, "version")),
        description=_text(config, "description"),
        licence=_text(config, "license") or _text(config, "licence") or None,
        authors=_text(config, "authors"),
        intended_use=_text(config, "intended_use"),
        modality=_MODALITIES.get(str(inputs.get("modality", "")).lower()),
        channels=channels,
        classes={int(key): str(name) for key, name in classes.items() if str(key).isdecimal()},
    )


def _format(config: BundleConfig, side: str) -> Mapping[str, Any]:
    """The first tensor's description of one side of the network."""
    described = config.value("network_data_format") if config.has("network_data_format") else {}
    if not isinstance(described, dict):
        raise PackageError(f"{config.name}: network_data_format: it must be a mapping of inputs and outputs")
    tensors = described.get(side)
    first = next(iter(tensors.values()), None) if isinstance(tensors, dict) else None
    return first if isinstance(first, dict) else {}


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`; empty where there is none."""
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _text(config: BundleConfig, key: str) -> str:
    """A text of the metadata in one line."""
    value = config.value(key) if config.has(key) else ""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return " ".join(str(value or "").split())


def _version(text: str) -> str:
    """Three numbers."""
    found = re.findall(r"\d+", text)[:3]
    return ".".join([*found, "0", "0", "0"][:3])
