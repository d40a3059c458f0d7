"""An imported nnU-Net beside nnunetv2's own nnUNetPredictor, on one CT.

The network is a PlainConvUNet: five stages of 8 to 128 features, patch 64 x 96 x 96, spacing 2.0 / 1.5 / 1.5 mm, step
0.5, no mirroring. It is trained for a few minutes on the CT (`training.py`), or has random weights (`--steps 0`).
nnU-Net reads the images as one NIfTI file, secondread as DICOM files.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import apart
from tests.support.peers import IMPORT_ENVIRONMENT

#: Of nnU-Net's time, by number of classes with the background; peak of both, bytes.
BARS = {5: 0.4, 25: 0.3}
BAR_PEAK = 2.5e9

#: Dice of a label of at least so many voxels, and of smaller ones; agreement of all voxels.
LARGE, DICE_LARGE, DICE_SMALL, AGREEMENT = 10_000, 0.999, 0.99, 0.9995


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--classes", type=int, nargs="+", default=[5, 25])
    parser.add_argument("--features", type=int, default=8, help="of the first stage")
    parser.add_argument("--steps", type=int, default=400, help="of training; 0: random weights")


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure both for each number of classes, and print a line for each."""
    theirs, mine = str(IMPORT_ENVIRONMENT / "bin" / "python"), sys.executable
    _child(theirs, "image", arguments, arguments.data, folder / "image_0000.nii")
    for classes in arguments.classes:
        case = folder / str(classes)
        image = folder / "image_0000.nii"
        _child(theirs, "make", arguments, case, classes, arguments.features, arguments.steps, image)
        ours = _child(mine, "secondread", arguments, case, arguments.data)
        peer = _child(theirs, "nnunetv2", arguments, case, image)
        _report(classes, ours, peer, np.load(case / "secondread.npy"), np.load(case / "nnunetv2.npy"))


def _child(python: str, part: str, arguments: argparse.Namespace, *more: object) -> dict[str, Any]:
    """Run a part of this module in a process of its own; what its last line says."""
    folders = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), "/nonexistent")
    settings = {"nnUNet_def_n_proc": str(arguments.threads), **folders}
    return apart.child(python, "benchmarks.engines_nnunet", part, arguments.threads, *more, **settings)


def _report(classes: int, ours: dict[str, Any], peer: dict[str, Any], got: Any, expected: Any) -> None:
    """One line of ratios, one of labels."""
    share = ours["seconds"] / peer["seconds"]
    print(
        f"{classes} classes: secondread {ours['seconds']:.1f} s, {ours['peak'] / 1e9:.2f} GB; "
        f"nnunetv2 {peer['seconds']:.1f} s, {peer['peak'] / 1e9:.2f} GB; "
        f"time {share:.2f} x (bar {BARS.get(classes, 0.4):.1f}), peak {ours['peak'] / peer['peak']:.2f} x "
        f"(bar {BAR_PEAK / 1e9:.1f} GB)"
    )
    print("    " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in ours["stages"].items()))
    dice = {}
    for label in range(1, classes):
        own, other = got == label, expected == label
        size = int(other.sum())
        dice[label] = (size, 2 * int((own & other).sum()) / max(1, int(own.sum()) + size))
    large = [value for size, value in dice.values() if size >= LARGE]
    small = [value for size, value in dice.values() if 0 < size < LARGE]
    print(
        f"    agreement {np.mean(got == expected):.6f} (bar {AGREEMENT}); least Dice of {len(large)} large labels "
        f"{min(large, default=1):.5f} (bar {DICE_LARGE}), of {len(small)} small ones {min(small, default=1):.5f} "
        f"(bar {DICE_SMALL}), {classes - 1 - len(large) - len(small)} do not occur"
    )


def _image(_: int, data: str, out: str) -> dict[str, Any]:
    """The CT as NIfTI, its axes as they were acquired."""
    import SimpleITK

    from dicom_node import series

    volume = series.read_series(sorted(path for path in Path(data).rglob("*") if path.is_file())).volume
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.array))
    image.SetSpacing(volume.geometry.spacing[::-1])
    SimpleITK.WriteImage(image, out)
    return {}


def _make(threads: int, case: str, classes: str, features: str, steps: str, image: str) -> dict[str, Any]:
    """The results folder, and the package that is imported from it."""
    import torch

    from engines.importing.nnunet_folder import import_folder
    from tests.support import nnunet_models

    torch.set_num_threads(threads)
    plans = nnunet_models.configuration(patch_size=[64, 96, 96])
    arguments = plans["architecture"]["arch_kwargs"]
    arguments |= {
        "n_stages": 5,
        "features_per_stage": [min(int(features) * 2**stage, 320) for stage in range(5)],
        "kernel_sizes": [[3, 3, 3]] * 5,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * 4],
        "n_conv_per_stage": [2] * 5,
        "n_conv_per_stage_decoder": [2] * 4,
    }
    labels = {"background": 0} | {f"label {number}": number for number in range(1, int(classes))}
    nnunet_models.write(Path(case) / "model", {"configuration": plans, "labels": labels})
    if int(steps):
        _train(
            Path(case) / "model" / "fold_0" / "checkpoint_final.pth", plans, int(classes), int(steps), image
        )
    import_folder(Path(case) / "model", Path(case) / "package")
    return {}


def _train(checkpoint: Path, plans: dict[str, Any], classes: int, steps: int, image: str) -> None:
    """Give the checkpoint weights that know the CT's bands."""
    import SimpleITK
    import torch
    from scipy import ndimage

    from benchmarks import training
    from tests.support import nnunet_models

    network = nnunet_models.network(plans, 1, classes, 0)
    for layer in network.decoder.seg_layers:
        layer.reset_parameters()
    read = SimpleITK.ReadImage(image)
    zoom = np.divide(read.GetSpacing()[::-1], plans["spacing"])
    values = ndimage.zoom(SimpleITK.GetArrayFromImage(read).astype(np.float32), zoom, order=1)
    of = nnunet_models.STATISTICS
    values = (values.clip(of["percentile_00_5"], of["percentile_99_5"]) - of["mean"]) / of["std"]
    training.fit(network, values, classes, steps=steps)
    # A file that this benchmark has just written.
    content = torch.load(checkpoint, weights_only=False)
    torch.save(content | {"network_weights": network.state_dict()}, checkpoint)


def _secondread(threads: int, case: str, data: str) -> dict[str, Any]:
    """Files to labels with the engine."""
    from dicom_node import series
    from engines import loader, package, predict

    began = time.perf_counter()
    opened = package.open_package(Path(case) / "package")
    paths = sorted(path for path in Path(data).rglob("*") if path.is_file())
    volume = series.read_series(paths).volume
    read = time.perf_counter() - began
    with loader.open_runner(opened, threads=threads) as runner:
        ready = time.perf_counter() - began
        found = predict.predict(opened, runner, volume, threads=threads)
    seconds = time.perf_counter() - began
    np.save(Path(case) / "secondread.npy", found.mask)
    return {"seconds": seconds, "stages": {"read": read, "open": ready - read, **found.seconds}}


def _nnunetv2(threads: int, case: str, image: str) -> dict[str, Any]:
    """Files to labels with nnU-Net."""
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(threads)
    began = time.perf_counter()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(Path(case) / "model"), None)
    values, properties = SimpleITKIO().read_images([image])
    labels = predictor.predict_single_npy_array(values, properties)
    seconds = time.perf_counter() - began
    np.save(Path(case) / "nnunetv2.npy", np.asarray(labels, dtype=np.uint8))
    return {"seconds": seconds}


if __name__ == "__main__":
    apart.serve({"image": _image, "make": _make, "secondread": _secondread, "nnunetv2": _nnunetv2})
