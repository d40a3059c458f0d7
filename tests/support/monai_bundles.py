"""MONAI bundles made by MONAI, and MONAI's own answer about an image. Run by the import environment's Python.

    python -m tests.support.monai_bundles FOLDER

FOLDER holds `cases.json`: for each name the four sections of an inference configuration, the names of the classes,
and an image (.nii). Each case gets a folder with the bundle, the package that is made of it, and MONAI's labels.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser

from engines.importing import monai_bundle


def main() -> None:
    """Make every case."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        bundle = folder / name / "bundle"
        make(bundle, case)
        np.save(folder / name / "expected.npy", infer(bundle, folder / case["image"]))
        monai_bundle.import_bundle(bundle, folder / name / "package")


def make(bundle: Path, case: dict[str, Any]) -> None:
    """A bundle with random weights, as those of the model zoo are laid out."""
    for part in ("configs", "models"):
        (bundle / part).mkdir(parents=True)
    classes = {str(number): name for number, name in enumerate(case["classes"])}
    metadata = {
        "version": "0.2",
        "task": "A test's network",
        "description": "Random weights.",
        "authors": "Tests",
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "num_channels": 1, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {"num_channels": len(classes), "channel_def": classes}},
        },
    }
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    config = {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network": "$@network_def.to(@device)",
        **{key: case[key] for key in ("network_def", "preprocessing", "inferer", "postprocessing")},
        **case.get("more", {}),
    }
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    torch.manual_seed(case.get("seed", 0))
    network = parser(bundle).get_parsed_content("network_def")
    torch.save(network.state_dict(), bundle / "models" / "model.pt")


def infer(bundle: Path, image: Path) -> np.ndarray[Any, Any]:
    """MONAI's labels on the image's own grid: (x, y, z) of the file."""
    sections = parser(bundle)
    network = sections.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    data = sections.get_parsed_content("preprocessing")({"image": str(image)})
    with torch.inference_mode():
        data["pred"] = sections.get_parsed_content("inferer")(data["image"][None], network)[0]
    answer = np.asarray(sections.get_parsed_content("postprocessing")(data)["pred"])
    return answer[0].astype(np.uint8)


def save(array: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], path: Path) -> None:
    """An array (x, y, z) as NIfTI, its affine to RAS mm."""
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def parser(bundle: Path) -> ConfigParser:
    """The sections of a bundle's inference configuration, its own imports left out."""
    sections = ConfigParser()
    sections.read_config(str(bundle / "configs" / "inference.json"))
    sections["imports"] = []
    return sections


if __name__ == "__main__":
    main()
