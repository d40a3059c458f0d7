"""An imported MONAI bundle beside MONAI's own pipeline, on one CT.

The network is a SegResNet, trained for a few minutes on the CT (`training.py`), or with random weights (`--steps 0`);
orientation, spacing 1.5 / 1.5 / 2.0 mm and intensities, windows of
96 x 96 x 96 that share a quarter, softmax, Invertd and argmax are those of the model zoo's CT bundles. MONAI reads the
images as one NIfTI file, secondread as DICOM files.
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

#: Of MONAI's time, and of its peak memory.
BAR_TIME, BAR_PEAK = 0.6, 0.5

#: Dice of a label of at least so many voxels.
LARGE, DICE = 10_000, 0.999


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--filters", type=int, default=8, help="of the first stage")
    parser.add_argument("--steps", type=int, default=400, help="of training; 0: random weights")


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure both and print the ratios."""
    theirs, mine = str(IMPORT_ENVIRONMENT / "bin" / "python"), sys.executable
    _child(theirs, "image", arguments, arguments.data, folder / "image.nii")
    _child(theirs, "make", arguments, folder, arguments.classes, arguments.filters, arguments.steps)
    ours = _child(mine, "secondread", arguments, folder, arguments.data)
    peer = _child(theirs, "monai", arguments, folder)
    _report(arguments.classes, ours, peer, folder)


def _child(python: str, part: str, arguments: argparse.Namespace, *more: object) -> dict[str, Any]:
    """Run a part of this module in a process of its own; what its last line says."""
    return apart.child(python, "benchmarks.engines_monai", part, arguments.threads, *more)


def _report(classes: int, ours: dict[str, Any], peer: dict[str, Any], folder: Path) -> None:
    """One line of ratios, one of stages, one of labels."""
    got, expected = np.load(folder / "secondread.npy"), np.load(folder / "monai.npy")
    print(
        f"{classes} classes: secondread {ours['seconds']:.1f} s, {ours['peak'] / 1e9:.2f} GB; "
        f"MONAI {peer['seconds']:.1f} s, {peer['peak'] / 1e9:.2f} GB; "
        f"time {ours['seconds'] / peer['seconds']:.2f} x (bar {BAR_TIME}), "
        f"peak {ours['peak'] / peer['peak']:.2f} x (bar {BAR_PEAK})"
    )
    for who, said in (("secondread", ours), ("MONAI", peer)):
        print(f"    {who}: " + ", ".join(f"{stage} {value:.1f} s" for stage, value in said["stages"].items()))
    least = 1.0
    for label in range(1, classes):
        own, other = got == label, expected == label
        if int(other.sum()) >= LARGE:
            least = min(least, 2 * int((own & other).sum()) / (int(own.sum()) + int(other.sum())))
    print(
        f"    agreement {np.mean(got == expected):.6f}; least Dice of a large label {least:.5f} (bar {DICE})"
    )


def _image(_: int, data: str, out: str) -> dict[str, Any]:
    """The CT as NIfTI, its axes as they were acquired."""
    import SimpleITK

    volume = _volume(data)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.array))
    affine = volume.geometry.affine
    directions = affine[:3, [2, 1, 0]] / np.linalg.norm(affine[:3, [2, 1, 0]], axis=0)
    image.SetSpacing(volume.geometry.spacing[::-1])
    image.SetDirection(directions.ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    SimpleITK.WriteImage(image, out)
    return {}


def _volume(data: str) -> Any:
    """The series in a folder."""
    from dicom_node import series

    return series.read_series(sorted(path for path in Path(data).rglob("*") if path.is_file())).volume


def _case(classes: int, filters: int) -> dict[str, Any]:
    """The bundle, as those of the model zoo are."""
    image, pred = {"keys": "image"}, {"keys": "pred"}
    before = [
        {"_target_": "LoadImaged", **image},
        {"_target_": "EnsureChannelFirstd", **image},
        {"_target_": "Orientationd", **image, "axcodes": "RAS"},
        {"_target_": "Spacingd", **image, "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
        {
            "_target_": "ScaleIntensityRanged",
            **image,
            "a_min": -57,
            "a_max": 164,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
        {"_target_": "EnsureTyped", **image},
    ]
    after = [
        {"_target_": "Activationsd", **pred, "softmax": True},
        {
            "_target_": "Invertd",
            **pred,
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
        },
        {"_target_": "AsDiscreted", **pred, "argmax": True},
    ]
    network = {"_target_": "SegResNet", "init_filters": filters, "out_channels": classes, "norm": "INSTANCE"}
    window = {
        "_target_": "SlidingWindowInferer",
        "roi_size": [96, 96, 96],
        "sw_batch_size": 1,
        "overlap": 0.25,
    }
    return {
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": window | {"mode": "gaussian"},
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "classes": ["background", *(f"label {number}" for number in range(1, classes))],
    }


def _make(threads: int, folder: str, classes: str, filters: str, steps: str) -> dict[str, Any]:
    """The bundle, and the package that is imported from it."""
    import torch

    from engines.importing import monai_bundle
    from tests.support import monai_bundles

    torch.set_num_threads(threads)
    monai_bundles.make(Path(folder) / "bundle", _case(int(classes), int(filters)))
    if int(steps):
        _train(Path(folder), int(classes), int(steps))
    monai_bundle.import_bundle(Path(folder) / "bundle", Path(folder) / "package")
    return {}


def _train(folder: Path, classes: int, steps: int) -> None:
    """Give the bundle weights that know the CT's bands."""
    import torch

    from benchmarks import training
    from tests.support import monai_bundles

    parser = monai_bundles.parser(folder / "bundle")
    network = parser.get_parsed_content("network_def")
    values = parser.get_parsed_content("preprocessing")({"image": str(folder / "image.nii")})["image"]
    training.fit(network, np.asarray(values[0]), classes, steps=steps)
    torch.save(network.state_dict(), folder / "bundle" / "models" / "model.pt")


def _secondread(threads: int, folder: str, data: str) -> dict[str, Any]:
    """Files to labels with the engine."""
    from engines import loader, package, predict

    began = time.perf_counter()
    opened = package.open_package(Path(folder) / "package")
    volume = _volume(data)
    read = time.perf_counter() - began
    with loader.open_runner(opened, threads=threads) as runner:
        ready = time.perf_counter() - began
        found = predict.predict(opened, runner, volume, threads=threads)
    seconds = time.perf_counter() - began
    np.save(Path(folder) / "secondread.npy", found.mask)
    stages = {"read": read, "open": ready - read, **found.seconds, "CPU time": time.process_time()}
    return {"seconds": seconds, "stages": stages}


def _monai(threads: int, folder: str) -> dict[str, Any]:
    """File to labels with MONAI."""
    import torch

    from tests.support import monai_bundles

    torch.set_num_threads(threads)
    bundle = Path(folder) / "bundle"
    began = time.perf_counter()
    parser = monai_bundles.parser(bundle)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    opened = time.perf_counter()
    data = parser.get_parsed_content("preprocessing")({"image": str(Path(folder) / "image.nii")})
    prepared = time.perf_counter()
    with torch.inference_mode():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    inferred = time.perf_counter()
    labels = np.asarray(parser.get_parsed_content("postprocessing")(data)["pred"])[0].astype(np.uint8)
    ended = time.perf_counter()
    np.save(Path(folder) / "monai.npy", labels.transpose(2, 1, 0))
    stages = {"open": opened - began, "preprocess": prepared - opened, "infer": inferred - prepared}
    stages |= {"postprocess": ended - inferred, "CPU time": time.process_time()}
    return {"seconds": ended - began, "stages": stages}


if __name__ == "__main__":
    apart.serve({"image": _image, "make": _make, "secondread": _secondread, "monai": _monai})
