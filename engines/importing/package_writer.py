"""Writes a package folder: network, manifest with what is left to fill in, and a card."""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from engines import manifest_file, package
from engines.errors import PackageError
from engines.manifest import Manifest
from engines.manifest_outputs import RegressionOutput
from engines.package import ModelPackage

#: How a line of a manifest begins that its author must still fill in.
TODO = "# TODO:"

_MARK = "__todo__"

#: Whose codes stand for others (PS3.3 8.2: schemes of one's own begin with 99).
_OWN_SCHEME = "99SECONDREAD"

_MAP, _SEQ = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"

#: Organs that come up most, in SNOMED CT as DICOM uses it (PS3.16 CID 7140 and others).
_KNOWN = {
    "spleen": ("78961009", "Spleen"),
    "liver": ("10200004", "Liver"),
    "pancreas": ("15776009", "Pancreas"),
    "kidney": ("64033007", "Kidney"),
    "stomach": ("69695003", "Stomach"),
    "gallbladder": ("28231009", "Gallbladder"),
    "lung": ("39607008", "Lung"),
    "heart": ("80891009", "Heart"),
    "aorta": ("15825003", "Aorta"),
    "brain": ("12738006", "Brain"),
    "prostate": ("41216001", "Prostate"),
    "urinary_bladder": ("89837001", "Bladder"),
    "bladder": ("89837001", "Bladder"),
    "esophagus": ("32849002", "Esophagus"),
}

#: Colours that the colour-blind can tell apart (Okabe and Ito), then others.
_PALETTE = (
    [0, 114, 178],
    [230, 159, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [213, 94, 0],
    [240, 228, 66],
)


class Flow(dict[str, Any]):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    """Keys in their order, small things on one line, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    Flow, lambda dumper, data: dumper.represent_mapping(_MAP, data.items(), flow_style=True)
)
_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence(_SEQ, data, flow_style=_plain(data))
)


def _plain(items: list[Any]) -> bool:
    """Whether a list holds numbers and words only."""
    return not any(isinstance(item, dict | list) and not isinstance(item, Flow) for item in items)


def todo(what: str, number: int = 0) -> dict[str, str]:
    """A line in a mapping that says what must be filled in below it."""
    return {f"{_MARK}{number}{what[:12]}": what}


def text(content: Mapping[str, Any]) -> str:
    """The manifest as YAML."""
    dumped = yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)
    lines = []
    for line in dumped.splitlines():
        if _MARK in line:
            indent = line[: len(line) - len(line.lstrip())]
            line = f"{indent}{TODO} {yaml.safe_load(line.strip()).popitem()[1]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def key_of(name: str) -> str:
    """A manifest's key for a name."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return plain if plain[:1].isalpha() else f"label_{plain or 'x'}"


def slug(name: str, otherwise: str) -> str:
    """A package's name."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")
    return plain or otherwise


def long_text(text: str, otherwise: str) -> str:
    """A name as DICOM's long string can hold it (PS3.5 6.2, LO)."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).replace("\\", "/").split())
    return plain[:64].strip() or otherwise


def code(value: str, meaning: str, scheme: str = "SCT") -> Flow:
    """A coded concept."""
    return Flow(value=value, scheme=scheme, meaning=meaning)


def labels(names: Iterable[tuple[int, str]], **more: Any) -> list[dict[str, Any]]:
    """The labels of a segmentation, by number and name; those whose code is unknown ask for it."""
    entries: list[dict[str, Any]] = []
    taken: set[str] = set()
    for number, name in names:
        key = key_of(name)
        key = f"{key}_{number}" if key in taken else key
        taken.add(key)
        entry: dict[str, Any] = {"index": number, "key": key, "label": long_text(name, key)}
        entry["category"] = code("123037004", "Anatomical Structure")
        if key in _KNOWN:
            entry["type"] = code(*_KNOWN[key])
        else:
            entry |= todo(
                f"the code of {entry['label']}, e.g. of SNOMED CT; and its category, where it is no organ"
            )
            entry["type"] = own_code(number, entry["label"])
        entries.append({**entry, "colour": colour(number - 1), **more})
    return entries


def own_code(number: int, meaning: str) -> Flow:
    """A private code that stands for one that is still to be found."""
    return code(f"IMPORTED-{number}", meaning, _OWN_SCHEME)


def placeholders(manifest: Manifest) -> Iterator[str]:
    """Keys of the manifest whose code only stands for another, with its value."""
    output = manifest.outputs[0]
    values = output.values if isinstance(output, RegressionOutput) else ()
    for key, given in (
        *((f"labels.{label.key}.type", label.type) for label in manifest.labels),
        *((f"classes.{entry.key}.code", entry.code) for entry in manifest.classes),
        *((f"values.{value.key}.name", value.name) for value in values),
    ):
        if given.scheme == _OWN_SCHEME:
            yield f"outputs[0].{key}: {given.value}"


def colour(index: int) -> list[int]:
    """The colour of the label at `index` of a list."""
    if index < len(_PALETTE):
        return list(_PALETTE[index])
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618 % 1, 0.65, 0.9)
    return [round(255 * red), round(255 * green), round(255 * blue)]


def weights(content: bytes) -> dict[str, str]:
    """The manifest's section about the network's file."""
    return {"file": "model.onnx", "sha256": hashlib.sha256(content).hexdigest()}


def parsed(out: Path, manifest: Mapping[str, Any]) -> Manifest:
    """The manifest as the package in `out` will have it. Raises PackageError where it says what it must not."""
    return manifest_file.parse(text(manifest).encode(), out / package.MANIFEST)


def write(
    out: Path, network: bytes, manifest: Mapping[str, Any], card: str, *, source: Path | None = None
) -> ModelPackage:
    """The package in the new folder `out`, opened as every package is.

    Raises PackageError, and writes nothing, where the folder holds something already, or the manifest says what it
    must not: then `source` is named, what the manifest was made of.
    """
    if source is None:
        parsed(out, manifest)
    else:
        manifest_file.parse(text(manifest).encode(), Path(f"{source}: what its {package.MANIFEST} would say"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PackageError(f"{out}: there is something already: name a new folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "model.onnx").write_bytes(network)
        (out / package.MANIFEST).write_text(text(manifest), encoding="utf-8")
        (out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise PackageError(f"{out}: {error.strerror}: name a folder that can be written") from error
    return package.open_package(out)


def unfinished(folder: Path) -> list[str]:
    """What the manifest's author must still fill in: "model.yaml: line 12: fill in ..." for each."""
    path = folder / package.MANIFEST
    return [
        f"{path}: line {number}: fill in {line.strip().removeprefix(TODO).strip()}, and remove this line"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if line.strip().startswith(TODO)
    ]


def first_line(error: BaseException) -> str:
    """What an error of another library says first, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
