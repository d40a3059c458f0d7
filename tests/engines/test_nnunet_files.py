"""A damaged nnU-Net folder is refused by the key that is wrong, before anything heavy is loaded."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.errors import PackageError
from engines.importing import nnunet_files, nnunet_folder, nnunet_manifest, nnunet_plans

RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}

CONFIGURATION = {
    "patch_size": [12, 24, 24],
    "spacing": [2.0, 1, 1.5],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": RESAMPLING,
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": RESAMPLING,
    "architecture": {"network_class_name": "PlainConvUNet", "arch_kwargs": {}, "_kw_requires_import": []},
}

PLANS = {
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [1, 0, 2],
    "configurations": {"base": CONFIGURATION, "test": {"inherits_from": "base"}, "other": {}},
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 20, "std": 250.0, "percentile_00_5": -500.0, "percentile_99_5": 450.0, "more": None}
    },
}

DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "one": 1, "two": [2]}}


def _plans(folder: Path, spoil: Callable[[Any], object] = lambda content: None) -> nnunet_plans.Plans:
    content = copy.deepcopy(PLANS)
    spoil(content)
    (folder / "plans.json").write_text(json.dumps(content))
    return nnunet_plans.plans(folder, "test")


def _dataset(folder: Path, **changes: Any) -> dict[str, Any]:
    (folder / "dataset.json").write_text(json.dumps(DATASET | changes))
    return nnunet_files.read(folder, "dataset.json")


def _manifest(folder: Path, plans: nnunet_plans.Plans, **changes: Any) -> dict[str, Any]:
    dataset = _dataset(folder, **changes)
    choices = nnunet_manifest.Choices(name="n", orientation="HPL", mirrored=(), codes={})
    return nnunet_manifest.manifest(plans, dataset, nnunet_plans.classes(folder, dataset), choices)


def _of_base(**changes: Any) -> Callable[[Any], object]:
    return lambda content: content["configurations"]["base"].update(changes)


def _of_plans(**changes: Any) -> Callable[[Any], object]:
    return lambda content: content.update(changes)


def test_what_is_right_is_read(tmp_path: Path) -> None:
    [entry] = _manifest(tmp_path, _plans(tmp_path))["inputs"]
    assert (entry["orientation"], entry["spacing_mm"]) == ("PHL", [2.0, 1, 1.5])
    assert entry["intensity"] == {"kind": "ct", "low": -500, "high": 450, "mean": 20, "std": 250}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_of_base(patch_size=["a", 24, 24]), "configurations.test.patch_size[0]: 'a': Input should be a valid integer"),
        (_of_base(patch_size=[0, 24, 24]), "configurations.test.patch_size[0]: 0: Input should be greater than 0"),
        (_of_base(patch_size=[24]), "configurations.test.patch_size: [24]: List should have at least 2 items"),
        (_of_base(patch_size=None), "configurations.test.patch_size: None: Input should be a valid list"),
        (_of_base(spacing=[1, 1]), "configurations.test.spacing: [1, 1]: it must be one length for each of the 3 axes of patch_size"),
        (_of_base(spacing=[None, 1, 1]), "configurations.test.spacing[0]: None: Input should be a valid number"),
        (_of_base(spacing=[-1, 1, 1]), "configurations.test.spacing[0]: -1: Input should be greater than 0"),
        (_of_base(spacing=[float("inf"), 1, 1]), "configurations.test.spacing[0]: inf: Input should be a finite number"),
        (_of_base(use_mask_for_norm=[None]), "configurations.test.use_mask_for_norm[0]: None: Input should be a valid boolean"),
        (_of_base(resampling_fn_data_kwargs=[1]), "configurations.test.resampling_fn_data_kwargs: [1]: Input should be a valid dictionary"),
        (_of_base(resampling_fn_data_kwargs=RESAMPLING | {"order": "3"}), "configurations.test.resampling_fn_data_kwargs.order: '3': Input should be a valid integer"),
        (_of_base(architecture="x"), "configurations.test.architecture: 'x': Input should be a valid dictionary: correct it"),
        (_of_base(architecture={"arch_kwargs": [1]}), "configurations.test.architecture.arch_kwargs: [1]: Input should be a valid dictionary"),
        (_of_base(architecture={"_kw_requires_import": 1}), "configurations.test.architecture._kw_requires_import: 1: Input should be a valid list"),
        (_of_plans(transpose_forward=5), "transpose_forward: 5: Input should be a valid list"),
        (_of_plans(transpose_forward=[0, 0, 2]), "transpose_forward: [0, 0, 2]: it must name each of the axes 0, 1 and 2 once"),
        (_of_plans(foreground_intensity_properties_per_channel=[1]), "foreground_intensity_properties_per_channel: [1]: Input should be a valid dictionary"),
        (_of_plans(configurations=[1]), "configurations: [1]: Input should be a valid dictionary"),
        (_of_plans(configurations={"test": None}), "configurations.test: None: Input should be a valid dictionary"),
        (_of_plans(configurations={"test": {"inherits_from": [1]}}), "configurations.test.inherits_from: [1]: Input should be a valid string"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_the_plans_is_named(
    tmp_path: Path, spoil: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(PackageError) as refused:
        _plans(tmp_path, spoil)
    assert str(refused.value).startswith(f"{tmp_path / 'plans.json'}: {said}")
    assert str(refused.value).endswith(": correct it, or copy the file again")


def test_every_wrong_value_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(PackageError) as refused:
        _plans(tmp_path, _of_base(patch_size=5, spacing="x", normalization_schemes=None))
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": {"background": 0, "a": "x"}}, "labels.a: 'x': it must be a number, or a list of numbers"),
        ({"labels": {"background": 0, "a": None}}, "labels.a: None: it must be a number, or a list of numbers"),
        ({"labels": {"background": 0, "a": [1, "x"]}}, "labels.a: [1, 'x']: it must be a number, or a list"),
        ({"labels": [1]}, "labels: [1]: Input should be a valid dictionary"),
        ({"regions_class_order": ["x", 1]}, "regions_class_order[0]: 'x': Input should be a valid integer"),
        ({"channel_names": 3}, "channel_names: 3: Input should be a valid dictionary"),
        ({"channel_names": {"CT": "0"}}, "channel_names.CT: 'CT': channels are called by their numbers"),
        ({"modality": ["CT"]}, "modality: ['CT']: Input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_the_dataset_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PackageError) as refused:
        _dataset(tmp_path, **changes)
    assert str(refused.value).startswith(f"{tmp_path / 'dataset.json'}: {said}")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_of_base(use_mask_for_norm=[]), "configurations.test.use_mask_for_norm: []: dataset.json has 1 channels"),
        (
            _of_plans(foreground_intensity_properties_per_channel={"0": {"mean": "x", "std": float("nan"), "percentile_00_5": 0, "percentile_99_5": 10**400}}),
            "foreground_intensity_properties_per_channel: ['percentile_99_5', 'mean', 'std']: of channel 0 they are missing, or no finite numbers",
        ),
    ],
)  # fmt: skip
def test_what_the_channels_need_is_named(tmp_path: Path, spoil: Callable[[Any], object], said: str) -> None:
    plans = _plans(tmp_path, spoil)
    with pytest.raises(PackageError) as refused:
        _manifest(tmp_path, plans)
    assert str(refused.value) == f"{tmp_path / 'plans.json'}: {said}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init_args": [1]}, "init_args: [1]: Input should be a valid dictionary"),
        ({"network_weights": [1]}, "network_weights: [1]: Input should be a valid dictionary"),
        ({"trainer_name": 1}, "trainer_name: 1: Input should be a valid string"),
        ({"inference_allowed_mirroring_axes": 5}, "inference_allowed_mirroring_axes: 5: Input should be"),
        ({"inference_allowed_mirroring_axes": ("x",)}, "inference_allowed_mirroring_axes[0]: 'x': Input should be"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_a_checkpoint_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    right = {"network_weights": {"a": object()}, "init_args": {}, "trainer_name": "nnUNetTrainer"}
    for axes in (None, (0, 1, 2), [0, 1], ()):
        whole = right | {"inference_allowed_mirroring_axes": axes}
        nnunet_files.require(nnunet_files.Checkpoint, whole, tmp_path)
    with pytest.raises(PackageError) as refused:
        nnunet_files.require(nnunet_files.Checkpoint, right | changes, tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}: {said}")


@pytest.mark.parametrize("axes", [(7,), (0, 0), (2,)])
def test_mirroring_along_an_axis_that_the_patch_lacks_is_refused(
    tmp_path: Path, axes: tuple[int, ...]
) -> None:
    plans = _plans(tmp_path, _of_base(patch_size=[24, 24], spacing=[1, 1]))
    with pytest.raises(PackageError) as refused:
        nnunet_folder.mirrored({"inference_allowed_mirroring_axes": axes}, tmp_path / "a.pth", plans)
    assert (
        f"a.pth: inference_allowed_mirroring_axes: {list(axes)}: they must be axes of the patch, 0 to 1"
        in str(refused.value)
    )


def test_an_orientation_that_does_not_name_three_axes_is_refused(tmp_path: Path) -> None:
    for name in ("plans.json", "dataset.json", "fold_0"):
        (tmp_path / name).write_text("{}")
    for given in ("HP", "HHL", "HPX", "HPLR"):
        with pytest.raises(PackageError, match=f"--orientation {given}: it must name one of L and R"):
            nnunet_folder.import_folder(tmp_path, tmp_path / "out", orientation=given)


def test_what_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plans.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(PackageError, match=r"plans\.json: it cannot be read as JSON: maximum recursion"):
        nnunet_files.read(tmp_path, "plans.json")
