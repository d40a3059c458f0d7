"""nnU-Net results folders with random weights, made and asked by the real nnU-Net: `python -m tests.support.nnunet_models`.

Runs in the import environment. Writes for each case `CASE/model` (the results folder), `CASE/image.npy` (channels,
slices, rows, columns), `CASE/spacing.json` and `CASE/labels.npy`, what nnUNetPredictor says of it; and `CASE/package`,
what `secondread models import-nnunet` makes of it.
Of a cascade that is the second stage; `first`, `first labels.npy` and `first package` are the first one's, and
`channels.npy` what nnU-Net makes of its labels for the second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from scipy import ndimage

from engines.importing.nnunet_folder import import_folder

#: Logits of random weights are small, and nnU-Net adds them up in float16: apart, they stay apart.
SHARPER = 100.0

#: Hounsfield units of what the networks are said to have been trained with.
STATISTICS = {"mean": 20.0, "std": 250.0, "percentile_00_5": -500.0, "percentile_99_5": 450.0}


def configuration(dimensions: int = 3, **changes: Any) -> dict[str, Any]:
    """A small PlainConvUNet's part of plans.json."""
    stages = 3
    content: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_test",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [12, 24, 24][-dimensions:],
        "spacing": [2.0, 1.5, 1.5][-dimensions:],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False,
            "order": 1,
            "order_z": 0,
            "force_separate_z": None,
        },
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [4, 8, 16],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": [[3] * dimensions] * stages,
                "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return content | changes


def residual() -> dict[str, Any]:
    """A small residual encoder."""
    content = configuration()
    arguments = content["architecture"]["arch_kwargs"]
    content["architecture"]["network_class_name"] = content["architecture"]["network_class_name"].replace(
        "PlainConvUNet", "ResidualEncoderUNet"
    )
    arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    return content


def old() -> dict[str, Any]:
    """The same PlainConvUNet as plans before nnU-Net 2.4 had it."""
    content = configuration()
    arguments = content.pop("architecture")["arch_kwargs"]
    return content | {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [2, 2, 2],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }


def by_torch(apart: bool | None) -> dict[str, Any]:
    """The same with the resampling of the planners whose names end in torchres."""
    return configuration(
        **{
            f"resampling_fn_{kind}{end}": value
            for kind in ("data", "seg", "probabilities")
            for end, value in {
                "": "resample_torch_fornnunet",
                "_kwargs": {
                    "is_seg": kind == "seg",
                    "force_separate_z": apart,
                    "memefficient_seg_resampling": False,
                },
            }.items()
        }
    )


_PLAIN = {"background": 0, "one": 1, "two": 2, "three": 3}
_MASKED = {"normalization_schemes": ["ZScoreNormalization"] * 2, "use_mask_for_norm": [True, True]}

#: By name: the plans' configuration, and what else differs from one fold of one CT, mirrored along no axis.
CASES: dict[str, dict[str, Any]] = {
    "plain": {"configuration": configuration()},
    "old plans": {"configuration": old()},
    "residual encoder": {"configuration": residual()},
    "regions": {
        "configuration": configuration(),
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "middle": 3},
        "order": [1, 2, 3],
    },
    "two dimensions": {"configuration": configuration(2), "mirrored": (0, 1)},
    "separate z": {"configuration": configuration(), "spacing": (7.0, 1.3, 1.2)},
    "separate z on the model's grid": {
        "configuration": configuration(spacing=[6.0, 1.5, 1.5]),
        "spacing": (2.5, 1.0, 1.2),
    },
    "transposed": {"configuration": configuration(), "transpose": [2, 0, 1], "spacing": (2.0, 1.1, 1.9)},
    "z-score where it is not zero": {"configuration": configuration(**_MASKED), "channels": 2, "margin": 4},
    "rescaled": {"configuration": configuration(normalization_schemes=["RescaleTo01Normalization"])},
    "two folds, mirrored": {"configuration": configuration(), "folds": 2, "mirrored": (0, 1, 2)},
    "smaller than the patch": {"configuration": configuration(), "shape": (8, 25, 23)},
    "resampled by torch": {"configuration": by_torch(apart=False)},
    "resampled by torch, separate z": {"configuration": by_torch(apart=None), "spacing": (7.0, 1.3, 1.2)},
    "cascade": {
        "configuration": configuration(previous_stage="first"),
        "first": configuration(spacing=[3.0, 2.5, 2.4]),
        "spacing": (6.0, 1.2, 1.3),
        "shape": (9, 40, 36),
    },
    "cascade of regions where it is not zero, transposed": {
        "configuration": configuration(**_MASKED, previous_stage="first"),
        "first": configuration(**_MASKED, spacing=[3.0, 2.5, 2.4]),
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "middle": 3},
        "order": [2, 1, 3],
        "channels": 2,
        "margin": 4,
        "transpose": [1, 2, 0],
        "spacing": (1.0, 4.0, 1.2),
    },
}


def image(shape: tuple[int, int, int], channels: int, margin: int) -> np.ndarray[Any, Any]:
    """Smooth blobs in Hounsfield units; with a margin, zero around an ellipsoid and in a hole in it."""
    rng = np.random.default_rng(3)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 2.5) for _ in range(channels)]
    values = np.stack([part / part.std() * 300 for part in noise]).astype(np.float32)
    if margin:
        grid = np.meshgrid(*(np.linspace(-1, 1, length + 2 * margin) for length in shape), indexing="ij")
        radius = np.sqrt(sum(axis**2 for axis in grid))
        values = np.pad(values, ((0, 0), *((margin, margin),) * 3))
        values[:, (radius > 0.8) | (radius < 0.2)] = 0
    return values


def network(plans: dict[str, Any], channels: int, heads: int, seed: int) -> torch.nn.Module:
    """The real library's network with random weights."""
    torch.manual_seed(seed)
    description = plans.get("architecture") or configuration()["architecture"]
    built = get_network_from_plans(
        description["network_class_name"],
        description["arch_kwargs"],
        description["_kw_requires_import"],
        channels,
        heads,
        deep_supervision=False,
    )
    with torch.no_grad():
        for layer in built.decoder.seg_layers:
            layer.weight.normal_(0, SHARPER / layer.weight.shape[1] ** 0.5)
            # What goes in is positive on average: only weights of mean 0 let every class win somewhere.
            layer.weight -= layer.weight.mean(dim=1, keepdim=True)
    return built


def write(folder: Path, case: dict[str, Any]) -> None:
    """The results folder as training leaves it."""
    folder.mkdir(parents=True)
    content, channels = case["configuration"], case.get("channels", 1)
    transpose = case.get("transpose", [0, 1, 2])
    plans = {
        "dataset_name": "Dataset999_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": transpose,
        "transpose_backward": np.argsort(transpose).tolist(),
        "configurations": {
            "base": content,
            "test": {"inherits_from": "base"},
            "first": case.get("first", content),
        },
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): STATISTICS for n in range(channels)},
    }
    dataset = {
        "channel_names": {str(n): f"channel {n}" for n in range(channels)},
        "labels": case.get("labels", _PLAIN),
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "regions_class_order": case.get("order"),
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    heads = len(dataset["labels"]) - (case.get("order") is not None)
    # Every case has the labels 1, 2 and 3, and a second stage sees a channel of each.
    seen = channels + (3 if content.get("previous_stage") else 0)
    for fold in range(case.get("folds", 1)):
        built = network(content, seen, heads, fold)
        # Of random weights one voxel of a label would turn others far away.
        with torch.no_grad():
            next(built.encoder.parameters())[:, channels:] *= 0.03
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": built.state_dict(),
            "optimizer_state": torch.optim.SGD(built.parameters(), lr=0.01, momentum=0.9).state_dict(),
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float32(0.5)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {
                "plans": plans,
                "configuration": "test",
                "fold": fold,
                "dataset_json": dataset,
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": case.get("mirrored"),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")


def predictor(folder: Path) -> nnUNetPredictor:
    """nnU-Net with the folder's model."""
    opened = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    opened.initialize_from_trained_model_folder(str(folder), None)
    return opened


def predicted(
    folder: Path,
    values: np.ndarray[Any, Any],
    spacing: tuple[float, ...],
    previous: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """nnU-Net's own labels; `previous` are those of a cascade's first stage."""
    return np.asarray(
        predictor(folder).predict_single_npy_array(values, {"spacing": list(spacing)}, previous)
    )


def made_of(
    folder: Path, values: np.ndarray[Any, Any], spacing: tuple[float, ...], previous: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The channels that nnU-Net's preprocessing makes of the first stage's labels."""
    of = predictor(folder)
    adapter = PreprocessAdapterFromNpy(
        [values],
        [previous],
        [{"spacing": list(spacing)}],
        None,
        of.plans_manager,
        of.dataset_json,
        of.configuration_manager,
    )
    return next(adapter)["data"][len(values) :].numpy().astype(np.uint8)


def cascaded(folder: Path, case: dict[str, Any], values: np.ndarray[Any, Any], spacing: Any) -> None:
    """Both stages of a cascade, by nnU-Net and as packages."""
    first = {**case, "configuration": case["first"]}
    write(folder / "first", first)
    labels = predicted(folder / "first", values, spacing)
    # As nnU-Net reads them from the file that its first stage has written.
    previous = labels[None].astype(np.float32)
    np.save(folder / "first labels.npy", labels)
    np.save(folder / "channels.npy", made_of(folder / "model", values, spacing, previous))
    np.save(folder / "labels.npy", predicted(folder / "model", values, spacing, previous))
    import_folder(folder / "first", folder / "first package", name="first")
    import_folder(folder / "model", folder / "package", after=folder / "first package")


def main(out: Path) -> None:
    """Make every case."""
    # These networks are too small to share out.
    torch.set_num_threads(1)
    for name, case in CASES.items():
        folder, spacing = out / name, case.get("spacing", (2.5, 1.1, 1.2))
        write(folder / "model", case)
        values = image(case.get("shape", (17, 40, 36)), case.get("channels", 1), case.get("margin", 0))
        np.save(folder / "image.npy", values)
        (folder / "spacing.json").write_text(json.dumps(spacing))
        if "first" in case:
            cascaded(folder, case, values, spacing)
            continue
        np.save(folder / "labels.npy", predicted(folder / "model", values, spacing))
        import_folder(folder / "model", folder / "package")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
