"""A MONAI bundle becomes a package, and the package gives MONAI's own labels."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from engines import loader, package, predict
from engines.volume import Geometry, Volume
from tests.support import peers

pytestmark = pytest.mark.peer("monai")

SHAPE = (26, 60, 54)


def _volume(orientation: str = "HPL", *, turned_by: float = 0.0) -> Volume:
    """Smooth noise: no symmetry in it, and every axis has another length and spacing."""
    values = scipy.ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, SHAPE), (1.5, 3, 3))
    array = (values / values.std() * 300 + np.linspace(-200, 300, SHAPE[1])[:, None]).astype(np.int16)
    array[:3] = array[:, :, -4:] = 0
    cos, sin = np.cos(turned_by), np.sin(turned_by)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 0.9], [0, 0.8, 0], [2.5, 0, 0]])
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = (-30, -20, 100)
    volume = Volume(array=array, geometry=Geometry(shape=SHAPE, affine=affine), unit="[hnsf'U]")
    seen = volume.reoriented(orientation)
    return Volume(array=np.ascontiguousarray(seen.array), geometry=seen.geometry, unit=volume.unit)


def _write_nifti(volume: Volume, path: Path) -> None:
    """The volume as NIfTI-1, (column, row, slice) axes, affine to RAS: nothing of MONAI has a part in it."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.affine @ np.eye(4)[[2, 1, 0, 3]]
    lengths = volume.array.shape[::-1]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *lengths, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, *np.linalg.norm(flip[:3, :3], axis=0), 0, 0, 0, 0)
    struct.pack_into("<2f", header, 108, 352, 1)
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, *flip[:3].ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + volume.array.astype("<i2").tobytes())


def _chain(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def _step(name: str, keys: str = "image", **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": keys, **arguments}


LOAD = (_step("LoadImaged"), _step("EnsureChannelFirstd"))
SOFTMAX, ARGMAX = _step("Activationsd", "pred", softmax=True), _step("AsDiscreted", "pred", argmax=True)
SEGRESNET = {
    "_target_": "SegResNet",
    "spatial_dims": "@dimensions",
    "in_channels": 1,
    "out_channels": "$@dimensions + 0",
    "init_filters": 8,
    "blocks_down": [1, 2],
    "blocks_up": [1],
    "norm": "INSTANCE",
}
UNET = {
    "_target_": "monai.networks.nets.UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "channels": [4, 8],
    "strides": [2],
    "norm": "batch",
}


def _inverted(*, nearest: bool) -> dict[str, Any]:
    return _step(
        "Invertd",
        "pred",
        transform="@preprocessing",
        orig_keys="image",
        nearest_interp=nearest,
        to_tensor=True,
    )


def _sliding(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "sw_batch_size": 2} | arguments


CASES: dict[str, dict[str, Any]] = {
    # As the CT bundles of the model zoo have it
    "ct": {
        "image": "axial.nii",
        "network_def": SEGRESNET,
        "preprocessing": _chain(
            *LOAD,
            _step("Orientationd", axcodes="RAS"),
            _step("Spacingd", pixdim=[1.5, 1.7, 2.0], mode="bilinear"),
            _step("ScaleIntensityRanged", a_min=-300, a_max=500, b_min=-0.5, b_max=1.0, clip=True),
            _step("EnsureTyped"),
        ),
        "inferer": _sliding(overlap=0.4, mode="gaussian"),
        "postprocessing": _chain(
            SOFTMAX,
            _inverted(nearest=False),
            ARGMAX,
            _step("KeepLargestConnectedComponentd", "pred", applied_labels=[2]),
            {**_step("SaveImaged", "pred", output_dir="$@bundle_root + '/eval'"), "_disabled_": True},
        ),
        "classes": ["background", "spleen", "tumor"],
    },
    # A turned scan of another orientation, finer than acquired along one axis; what is inverted are logits
    "mr": {
        "image": "turned.nii",
        "network_def": SEGRESNET,
        "preprocessing": _chain(
            *LOAD,
            _step("Orientationd", axcodes="PLI"),
            _step("Spacingd", pixdim=[1.1, 1.3, 1.2], mode="bilinear"),
            _step("NormalizeIntensityd", nonzero=True, channel_wise=True),
        ),
        "inferer": _sliding(overlap=0.25),
        "postprocessing": _chain(_inverted(nearest=False), SOFTMAX, ARGMAX),
        "classes": ["background", "left", "right"],
        "seed": 1,
    },
    # The image as acquired, smaller than the window; one class beyond one half
    "sigmoid": {
        "image": "axial.nii",
        "network_def": UNET,
        "preprocessing": _chain(
            *LOAD, _step("Orientationd", axcodes="LPS"), _step("ScaleIntensityd", minv=-1.0, maxv=1.0)
        ),
        "inferer": _sliding(roi_size=[48, 48, 32], overlap=0.5, mode="gaussian"),
        "postprocessing": _chain(
            _step("Activationsd", "pred", sigmoid=True),
            _inverted(nearest=False),
            _step("AsDiscreted", "pred", threshold=0.5),
        ),
        "classes": ["lesion"],
        "seed": 3,
    },
    # Cropped, and labels are what is brought back
    "labels": {
        "image": "axial.nii",
        "network_def": SEGRESNET,
        "preprocessing": _chain(
            *LOAD,
            _step("Orientationd", axcodes="RAS"),
            _step("CropForegroundd", source_key="image"),
            _step("Spacingd", pixdim=[1.7, 1.9, 2.1], mode="bilinear"),
            _step("NormalizeIntensityd", subtrahend=40.0, divisor=250.0),
        ),
        "inferer": _sliding(overlap=0.5),
        "postprocessing": _chain(SOFTMAX, ARGMAX, _inverted(nearest=True)),
        "classes": ["background", "one", "two"],
    },
    # One size for all images, seen at once
    "whole": {
        "image": "axial.nii",
        "network_def": SEGRESNET,
        "preprocessing": _chain(
            *LOAD,
            _step("Orientationd", axcodes="RAS"),
            _step("ScaleIntensityRanged", a_min=-100, a_max=200, b_min=0.0, b_max=1.0),
            _step("Resized", spatial_size=[40, 36, 32], mode="trilinear"),
        ),
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": _chain(SOFTMAX, _inverted(nearest=False), ARGMAX),
        "classes": ["background", "one", "two"],
    },
}
for _case in CASES.values():
    _case["more"] = {"dimensions": 3}

IMAGES = {"axial.nii": _volume(), "turned.nii": _volume("LFA", turned_by=0.2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case's bundle, package and expected labels."""
    folder = tmp_path_factory.mktemp("monai")
    for name, volume in IMAGES.items():
        _write_nifti(volume, folder / name)
    (folder / "cases.json").write_text(json.dumps(CASES))
    peers.import_python("-m", "tests.support.monai_bundles", str(folder))
    return folder


def _agreement(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.mean(found == expected))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", list(CASES))
def test_the_package_gives_monais_own_labels(made: Path, name: str, engine: loader.Engine) -> None:
    # Given a package made of a bundle, and what MONAI itself says of an image
    opened = package.open_package(made / name / "package")
    expected = np.load(made / name / "expected.npy").transpose(2, 1, 0)
    # When the same image is analysed
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        found = predict.predict(opened, runner, IMAGES[CASES[name]["image"]], threads=2)
    # Then the labels are the same, all of which there are
    assert set(np.unique(expected)) == set(range(len(opened.manifest.labels) + 1))
    for label in range(len(opened.manifest.labels) + 1):
        own, theirs = found.mask == label, expected == label
        assert 2 * (own & theirs).sum() / (own.sum() + theirs.sum()) >= 0.999, label
    assert _agreement(found.mask, expected) >= 0.9995


def test_the_manifest_says_what_the_bundle_says(made: Path) -> None:
    manifest = package.open_package(made / "ct" / "package").manifest
    assert (manifest.name, manifest.version, manifest.manufacturer) == ("bundle", "0.2.0", "Tests")
    assert [label.label for label in manifest.labels] == ["spleen", "tumor"]
    assert manifest.labels[0].type.value == "78961009"
    assert manifest.reference.series == {"Modality": "CT"}
    assert [label.keep_largest for label in manifest.labels] == [False, True]


REFUSALS = """
import json, sys, warnings
from pathlib import Path
import torch
from engines.errors import PackageError
from engines.importing import monai_bundle
from tests.support import monai_bundles
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
cases = json.loads((folder / "cases.json").read_text())
said = {}
def attempt(name, change):
    bundle = folder / name / "bundle"
    path = bundle / "configs" / "inference.json"
    monai_bundles.make(bundle, cases["sigmoid"])
    config = json.loads(path.read_text())
    change(config, bundle)
    path.write_text(json.dumps(config))
    try:
        monai_bundle.import_bundle(bundle, folder / name / "package")
        said[name] = "imported"
    except PackageError as error:
        said[name] = str(error)
    assert not (folder / name / "package").exists()
def scripts(config, bundle):
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "net.py").write_text("open('ran', 'w')")
    config["network_def"] = {"_target_": "scripts.net.Net"}
def other_class(config, bundle): config["network_def"]["_target_"] = "subprocess.Popen"
def function(config, bundle): config["network_def"]["_target_"] = "monai.bundle.run"
def nested(config, bundle): config["network_def"]["act"] = {"_target_": "os.system", "command": "touch ran"}
def reached(config, bundle):
    config["network_def"] = {"_target_": "torch.nn.parallel.distributed.os.system", "command": "touch ran"}
def inside(config, bundle):
    reached(config, bundle)
    config["network_def"] = {"_target_": "torch.nn.Sequential", "_args_": [config["network_def"]]}
def initialiser(config, bundle): config["network_def"] = {"_target_": "torch.nn.init.ones_"}
def expression(config, bundle): config["network_def"]["out_channels"] = "$__import__('os').system('touch ran')"
def required(config, bundle): config["network_def"]["_requires_"] = "$print(1)"
def wrong_key(config, bundle): config["network_def"]["colour"] = 1
def no_definition(config, bundle): del config["network_def"]
def other_weights(config, bundle): torch.save({"a": torch.zeros(2)}, bundle / "models" / "model.pt")
def other_widths(config, bundle): config["network_def"]["channels"] = [6, 8]
def pickled(config, bundle): torch.save(torch.nn.Linear(2, 2), bundle / "models" / "model.pt")
def no_weights(config, bundle): (bundle / "models" / "model.pt").unlink()
def rubbish(config, bundle): (bundle / "models" / "model.pt").write_bytes(b"rubbish")
def broken(config, bundle): (bundle / "models" / "model.pt").write_bytes(b"\\x80\\x02}q\\0junk")
def window(config, bundle): config["inferer"]["roi_size"] = [33, 33, 33]
def endless(config, bundle): config["inferer"]["roi_size"] = [10**6, 10**6, 10**6]
for change in (scripts, other_class, function, nested, reached, inside, initialiser, expression, required, wrong_key,
               no_definition, other_weights, other_widths, pickled, no_weights, rubbish, broken, window, endless):
    attempt(change.__name__, change)
(folder / "said.json").write_text(json.dumps(said))
"""


def test_code_and_foreign_weights_are_refused_by_name(made: Path, tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text(json.dumps(CASES))
    (tmp_path / "refusals.py").write_text(REFUSALS)
    peers.import_python(str(tmp_path / "refusals.py"), str(tmp_path))
    said = json.loads((tmp_path / "said.json").read_text())
    trusted = "only their networks are imported, never a bundle's own code"
    expected = {
        "scripts": f"configs/inference.json: network_def::_target_: scripts.net.Net is not of monai.networks or torch.nn: {trusted}",
        "other_class": f"configs/inference.json: network_def::_target_: subprocess.Popen is not of monai.networks or torch.nn: {trusted}",
        "function": f"configs/inference.json: network_def::_target_: monai.bundle.run is not of monai.networks or torch.nn: {trusted}",
        "nested": f"configs/inference.json: network_def::act::_target_: os.system is not of monai.networks or torch.nn: {trusted}",
        "reached": f"configs/inference.json: network_def::_target_: torch.nn.parallel.distributed.os.system is not of monai.networks or torch.nn: {trusted}",
        "inside": f"configs/inference.json: network_def::_args_::0::_target_: torch.nn.parallel.distributed.os.system is not of monai.networks or torch.nn: {trusted}",
        "initialiser": f"configs/inference.json: network_def::_target_: torch.nn.init.ones_ is not of monai.networks or torch.nn: {trusted}",
        "expression": "configs/inference.json: network_def::out_channels: $__import__('os').system('touch ran') is code",
        "required": "configs/inference.json: network_def::_requires_: $print(1) is code",
        "wrong_key": "configs/inference.json: network_def: MONAI cannot build it",
        "no_definition": "configs/inference.json: network_def: it is missing",
        "other_weights": "models/model.pt: the weights are not this network's: 16 missing (model.0.conv.weight, ",
        "other_widths": "models/model.pt: the weights are not this network's: ",
        "pickled": "models/model.pt: it holds more than tensors, which only running its code would load",
        "no_weights": "models: there is no model.pt or model.pth or model.ts: fetch the bundle's weights",
        "rubbish": "models/model.pt: these are no weights of PyTorch: ",
        "broken": "models/model.pt: these are no weights of PyTorch: ",
        "endless": "configs/inference.json: the network cannot be exported for inputs of [(1, 1, 1000000, 1000000, 1000000)] (inferer::roi_size)",
        "window": "configs/inference.json: network_def: of an input of (1, 1, 33, 33, 33) it makes (1, 1, 34, 34, 34)",
    }
    whole = {name: f"{tmp_path / name}/bundle/{text}" for name, text in expected.items()}
    assert {name: text for name, text in said.items() if not text.startswith(whole[name])} == {}
    assert set(said) == set(expected)
    # The first few of the weights, however many there are
    assert (
        said["other_weights"].count("model.0.") == 3
        and "; 1 not in the network (a): " in said["other_weights"]
    )
    assert (
        " of another shape (model.0.conv.weight, " in said["other_widths"]
        and "missing" not in said["other_widths"]
    )
    assert not list(tmp_path.rglob("ran"))
