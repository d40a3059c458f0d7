"""What plans.json and dataset.json of an nnU-Net v2 results folder say of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import PackageError
from engines.importing import nnunet_files
from engines.importing.nnunet_files import Refusals

#: The way the axes of training images ran (slice, row, column), where the reader fixes it: Nibabel's "RAS".
_READERS = {"SimpleITKIO": None, "NibabelIO": None, "NibabelIOWithReorient": "HAR"}

#: The resampling functions whose answers this project gives, with what they do where plans do not say it (plans of
#: nnU-Net give the first one's `force_separate_z` as null). The second is linear and has no orders to choose.
_RESAMPLINGS: Mapping[str, Mapping[str, Any]] = {
    "resample_data_or_seg_to_shape": {"order": 3, "order_z": 0, "force_separate_z": False},
    "resample_torch_fornnunet": {"order": 1, "order_z": 0, "force_separate_z": None},
}

#: What both take; the first takes its orders too, and the second how it saves memory on label maps.
_ARGUMENTS = frozenset({"is_seg", "force_separate_z", "separate_z_anisotropy_threshold"})
_FURTHER = {
    "resample_data_or_seg_to_shape": {"order", "order_z"},
    "resample_torch_fornnunet": {"memefficient_seg_resampling"},
}

#: nnU-Net's own threshold of anisotropy (nnunetv2.configuration.ANISO_THRESHOLD).
_ANISOTROPY = 3


@dataclass(frozen=True, kw_only=True)
class Plans:
    """One configuration of a folder's plans."""

    folder: Path
    dataset: str
    configuration: str
    content: Mapping[str, Any]
    transpose: tuple[int, ...]
    #: Intensity statistics of each channel's foreground, by the channel's number.
    intensities: Mapping[str, Mapping[str, float]]
    #: Directions of the training images' axes; None where nobody says them.
    orientation: str | None

    @property
    def patch(self) -> tuple[int, ...]:
        """Two or three lengths, in voxels."""
        return tuple(self.content["patch_size"])

    @property
    def previous_stage(self) -> str | None:
        """The configuration whose labels this one sees, of a cascade's second stage; None elsewhere."""
        return self.content.get("previous_stage") or None

    def key(self, name: str) -> str:
        """Where a key of this configuration stands in plans.json."""
        return f"configurations.{self.configuration}.{name}"


def plans(folder: Path, configuration: str) -> Plans:
    """The plans of `configuration`. Raises PackageError: every key of it that no package can say, by name."""
    path = folder / "plans.json"
    content = nnunet_files.read(folder, path.name)
    found = _inherited(content.get("configurations", {}), configuration, path)
    nnunet_files.require(nnunet_files.Configuration, found, path, f"configurations.{configuration}")
    refusals = Refusals(file=path)
    reader = str(content.get("image_reader_writer"))
    if reader not in _READERS:
        refusals.add("image_reader_writer", reader, f"supported are {', '.join(_READERS)}")
    manager = content.get("label_manager", "LabelManager")
    if manager != "LabelManager":
        refusals.add("label_manager", manager, "supported is LabelManager")
    _check(found, configuration, refusals)
    refusals.settle()
    if "architecture" not in found:
        found["architecture"] = _architecture(found, refusals, configuration)
        refusals.settle()
    intensities = content.get("foreground_intensity_properties_per_channel")
    return Plans(
        folder=folder,
        dataset=str(content.get("dataset_name", folder.parent.name)),
        configuration=configuration,
        content=found,
        transpose=tuple(content.get("transpose_forward", (0, 1, 2))),
        intensities=intensities or content.get("foreground_intensity_properties_by_modality") or {},
        orientation=_READERS[reader],
    )


def _inherited(configurations: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A configuration with what it inherits."""
    content: dict[str, Any] = {}
    seen: list[str] = []
    while name:
        if name in seen or name not in configurations:
            raise PackageError(f"{path}: configurations.{name}: it is not there, or inherits from itself")
        seen.append(name)
        content = {**configurations[name], **content}
        name = configurations[name].get("inherits_from") or ""
    return content


def _check(content: Mapping[str, Any], name: str, refusals: Refusals) -> None:
    """Note each key whose value no package can say."""
    where = f"configurations.{name}"
    preprocessor = content.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        refusals.add(f"{where}.preprocessor_name", preprocessor, "supported is DefaultPreprocessor")
    for kind in ("data", "probabilities", *(["seg"] if content.get("previous_stage") else ())):
        _check_resampling(content, kind, where, refusals)


def _check_resampling(content: Mapping[str, Any], kind: str, where: str, refusals: Refusals) -> None:
    """Note a way of resampling that is another one."""
    key = f"resampling_fn_{kind}"
    function, arguments = content.get(key), content.get(f"{key}_kwargs", {})
    supported = [*_RESAMPLINGS][: 1 if kind == "seg" else None]
    if function not in supported:
        refusals.add(f"{where}.{key}", function, f"supported is {' or '.join(supported)}")
        return
    known = _ARGUMENTS | _FURTHER[function]
    wrong = {name: value for name, value in arguments.items() if name not in known}
    if arguments.get("is_seg", False) != (kind == "seg"):
        wrong["is_seg"] = arguments.get("is_seg", False)
    if arguments.get("separate_z_anisotropy_threshold", _ANISOTROPY) != _ANISOTROPY:
        wrong["separate_z_anisotropy_threshold"] = arguments["separate_z_anisotropy_threshold"]
    given = {**_RESAMPLINGS[function], **arguments}
    most = {"data": (5, 5), "probabilities": (1, 1), "seg": (1, 0)}[kind]
    for name, limit in zip(("order", "order_z"), most, strict=True):
        if given[name] > limit:
            wrong[name] = given[name]
    for name, value in wrong.items():
        refusals.add(f"{where}.{key}_kwargs.{name}", value, "this is not supported")


def splines(plans: Plans, kind: str) -> dict[str, Any]:
    """How "data", "probabilities" or "seg" are resampled, in the manifest's words."""
    usual = _RESAMPLINGS[plans.content[f"resampling_fn_{kind}"]]
    given = {**usual, **plans.content.get(f"resampling_fn_{kind}_kwargs", {})}
    return {"order": given["order"], "order_apart": given["order_z"], "apart": given["force_separate_z"]}


def keeps_halves(plans: Plans) -> bool:
    """Whether the logits are float16 once they are resampled, as nnU-Net added them up: PyTorch makes float32."""
    return bool(plans.content["resampling_fn_probabilities"] == "resample_data_or_seg_to_shape")


def _architecture(content: Mapping[str, Any], refusals: Refusals, name: str) -> dict[str, Any]:
    """The architecture of plans that were written before nnU-Net 2.4, in the words of newer ones."""
    wanted = ("UNet_class_name", "n_conv_per_stage_encoder", "n_conv_per_stage_decoder", "conv_kernel_sizes",
              "pool_op_kernel_sizes", "UNet_base_num_features", "unet_max_num_features")  # fmt: skip
    for key in wanted:
        if key not in content:
            refusals.add(f"configurations.{name}.{key}", None, "it is missing, and so is architecture")
    refusals.settle()
    stages = len(content["n_conv_per_stage_encoder"])
    base, most = content["UNet_base_num_features"], content["unet_max_num_features"]
    plain = content["UNet_class_name"] == "PlainConvUNet"
    dimensions = len(content["patch_size"])
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": content["conv_kernel_sizes"],
        "strides": content["pool_op_kernel_sizes"],
        "n_conv_per_stage" if plain else "n_blocks_per_stage": content["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": content["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    required = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    return {
        "network_class_name": content["UNet_class_name"],
        "arch_kwargs": arguments,
        "_kw_requires_import": required,
    }


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The channels of the network's output, background aside."""

    #: Mask number and name of each, in the channels' order.
    labels: Sequence[tuple[int, str]]
    #: Whether each is a region by itself, which may overlap others.
    regions: bool
    #: The numbers in training's label maps, background aside: a cascade's second stage sees a channel for each.
    foreground: Sequence[int]

    @property
    def channels(self) -> int:
        """How many channels the output has."""
        return len(self.labels) + (not self.regions)


def classes(folder: Path, dataset: Mapping[str, Any]) -> Classes:
    """The labels of dataset.json. Raises PackageError where they are not what nnU-Net trains."""
    path, entries = folder / "dataset.json", dataset.get("labels")
    if not isinstance(entries, dict) or "background" not in entries:
        raise PackageError(f"{path}: labels: there must be a mapping with background: copy the file again")
    given = {
        str(name): value[0] if isinstance(value, list) and len(value) == 1 else value
        for name, value in entries.items()
        if name not in ("background", "ignore")
    }
    if any(isinstance(value, list) for value in given.values()):
        return _regions(path, given, dataset.get("regions_class_order"))
    numbers = sorted((int(value), name) for name, value in given.items())
    if [number for number, _ in numbers] != list(range(1, len(numbers) + 1)):
        raise PackageError(f"{path}: labels: {given}: their numbers must run 1..N without gaps")
    return Classes(labels=numbers, regions=False, foreground=[number for number, _ in numbers])


def _regions(path: Path, given: Mapping[str, Any], order: Any) -> Classes:
    """Channels in the order of the labels; what each writes into the mask is in regions_class_order."""
    if not isinstance(order, list) or sorted(order) != list(range(1, len(given) + 1)):
        raise PackageError(
            f"{path}: regions_class_order: {order}: it must hold 1 to {len(given)}, one number for each region"
        )
    # What a region leaves to those that are written over it is not the region: its name must not say so.
    names = [f"{name}, remainder" if isinstance(value, list) else name for name, value in given.items()]
    numbers = {int(n) for value in given.values() for n in (value if isinstance(value, list) else [value])}
    labels = list(zip(order, names, strict=True))
    return Classes(labels=labels, regions=True, foreground=sorted(numbers - {0}))
