"""`models import-nnunet` beside the real nnU-Net: the labels of a package are those of nnUNetPredictor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines import cascade, fusion, given, lineage, loader, package, predict
from engines.cascade import Stage
from engines.errors import PackageError
from engines.importing import nnunet_cascade, nnunet_files, nnunet_manifest, nnunet_plans
from engines.manifest_stages import LabelChannels
from engines.package import ModelPackage
from engines.volume import Geometry, Volume
from tests.support import peers

pytestmark = pytest.mark.peer("nnunet")

#: nnU-Net adds logits up in float16; where two classes are that close, either is right.
AGREEMENT = 0.9995

CASES = (
    "plain",
    "old plans",
    "residual encoder",
    "regions",
    "two dimensions",
    "separate z",
    "separate z on the model's grid",
    "transposed",
    "z-score where it is not zero",
    "rescaled",
    "two folds, mirrored",
    "smaller than the patch",
    "resampled by torch",
    "resampled by torch, separate z",
)

CASCADES = ("cascade", "cascade of regions where it is not zero, transposed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folders, nnU-Net's answers and packages of every case."""
    folder = tmp_path_factory.mktemp("nnunet")
    peers.import_python("-m", "tests.support.nnunet_models", str(folder))
    return folder


def _volume(array: np.ndarray, spacing: list[float]) -> Volume:
    """Axes as SimpleITK reads an axial DICOM series: HPL."""
    affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.diag(spacing)).T
    return Volume(
        array=array, geometry=Geometry(shape=array.shape, affine=affine, frame_of_reference_uid="1.2")
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("case", CASES)
def test_a_package_gives_the_labels_that_nnunet_gives(made: Path, case: str, engine: loader.Engine) -> None:
    folder = made / case
    opened = package.open_package(folder / "package")
    volume, others = _seen(folder, opened)
    expected = np.load(folder / "labels.npy")
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        got = predict.predict(opened, runner, volume, others, threads=1).mask
    assert len(np.unique(expected)) > 2
    assert np.mean(got == expected) >= AGREEMENT


def _seen(folder: Path, opened: ModelPackage) -> tuple[Volume, dict[str, Volume]]:
    """The case's image: the first channel, and the others by role."""
    spacing = json.loads((folder / "spacing.json").read_text())
    first, *others = (_volume(channel, spacing) for channel in np.load(folder / "image.npy"))
    return first, dict(zip([entry.called for entry in opened.manifest.inputs[1:]], others, strict=True))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("case", CASCADES)
def test_two_packages_of_a_cascade_give_the_labels_of_both_stages_of_nnunet(
    made: Path, case: str, engine: loader.Engine
) -> None:
    folder = made / case
    first, second = (package.open_package(folder / name) for name in ("first package", "package"))
    volume, others = _seen(folder, second)
    expected = np.load(folder / "labels.npy")
    with (
        loader.open_runner(first, engine=engine, threads=1) as earlier,
        loader.open_runner(second, engine=engine, threads=1) as runner,
    ):
        before = {"first": Stage(package=first, runner=earlier)}
        stage = Stage(package=second, runner=runner, earlier=before)
        got = cascade.predict_all(stage, volume, others, threads=1).mask
    assert len(np.unique(expected)) > 2
    assert np.mean(got == expected) >= AGREEMENT


@pytest.mark.parametrize("case", CASCADES)
def test_the_second_stage_sees_the_very_channels_that_nnunet_makes_of_the_first_ones_labels(
    made: Path, case: str
) -> None:
    folder = made / case
    opened = package.open_package(folder / "package")
    volume, others = _seen(folder, opened)
    [after] = opened.manifest.after
    known = {label.key: label.index for label in opened.manifest.labels}
    assert isinstance(after.use, LabelChannels)
    numbers = tuple(known[key] for key in after.use.labels)
    mask = np.load(folder / "first labels.npy")
    before = given.Given(channels=(given.LabelMap(use=after.use, mask=mask, numbers=numbers),))
    seen = fusion.prepare(opened.manifest, volume, others, labelled=before.labelled)
    got = before.beside(seen, volume, opened.manifest.reference).arrays["image"][1 + len(others) :]
    expected = np.load(folder / "channels.npy")
    assert all(0.01 < channel.mean() < 0.9 for channel in expected)
    np.testing.assert_array_equal(got, expected)


def _import(*arguments: str) -> subprocess.CompletedProcess[str]:
    python = str(peers.IMPORT_ENVIRONMENT / "bin" / "python")
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [python, "-m", "worker.cli", "models", "import-nnunet", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A results folder to spoil."""
    return Path(shutil.copytree(made / "plain" / "model", tmp_path / "model"))


def test_the_command_writes_a_package_and_says_what_its_author_must_fill_in(
    model: Path, tmp_path: Path
) -> None:
    codes = tmp_path / "codes.yaml"
    codes.write_text('one: {value: "10200004", scheme: SCT, meaning: Liver}\n')
    done = _import(
        str(model), "--out", str(tmp_path / "out"), "--folds", "0", "--name", "mine", "--codes", str(codes)
    )
    assert done.returncode == 0, done.stderr
    opened = package.open_package(tmp_path / "out")
    assert opened.manifest.name == "mine"
    assert opened.manifest.labels[0].type.value == "10200004"
    assert opened.manifest.labels[1].type.scheme.startswith("99")
    assert "the licence of the weights" in done.stderr
    assert "the code of two" in done.stderr
    assert "the code of one" not in done.stderr


def _edited(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    content["configurations"]["base"] |= changes
    path.write_text(json.dumps(content))


def _without_plans(model: Path) -> None:
    (model / "plans.json").unlink()


def _of_a_cascade(model: Path) -> None:
    _edited(model / "plans.json", previous_stage="3d_lowres")


def _of_a_cascade_with_labels_resampled_otherwise(model: Path) -> None:
    _edited(
        model / "plans.json",
        previous_stage="3d_lowres",
        resampling_fn_seg_kwargs={"is_seg": True, "order": 1, "order_z": 1},
    )


def _of_another_resampling(model: Path) -> None:
    _edited(model / "plans.json", resampling_fn_data="no_resampling_data_or_seg_to_shape")


def _of_a_cascade_with_labels_resampled_by_torch(model: Path) -> None:
    _edited(model / "plans.json", previous_stage="3d_lowres", resampling_fn_seg="resample_torch_fornnunet")


def _of_another_architecture(model: Path) -> None:
    plans = json.loads((model / "plans.json").read_text())
    architecture = plans["configurations"]["base"]["architecture"]
    architecture["network_class_name"] = "mine.TransformerUNet"
    architecture["arch_kwargs"]["nonlin"] = "os.system"
    (model / "plans.json").write_text(json.dumps(plans))


def _normalised_otherwise(model: Path) -> None:
    _edited(model / "plans.json", normalization_schemes=["HistogramMatching"])


def _truncated(model: Path) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:5000])


def _damaged_as_a_pickle(model: Path) -> None:
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"\x80\x02}q\0junk")


class _Malicious:
    """Unpickling it would make a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._path,)


def _with_code(model: Path) -> None:
    import pickle

    content = {"network_weights": {}, "init_args": {}, "trainer_name": _Malicious(str(model / "ran"))}
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            _without_plans,
            ["it holds no plans.json: give the folder that holds plans.json, dataset.json, fold_*"],
        ),
        (_of_a_cascade, ["configurations.test.previous_stage: 3d_lowres", "--after FOLDER"]),
        (
            _of_a_cascade_with_labels_resampled_otherwise,
            ["configurations.test.resampling_fn_seg_kwargs.order_z: 1"],
        ),
        (
            _of_another_resampling,
            ["configurations.test.resampling_fn_data: no_resampling_data_or_seg_to_shape"],
        ),
        (
            _of_a_cascade_with_labels_resampled_by_torch,
            ["configurations.test.resampling_fn_seg: resample_torch_fornnunet"],
        ),
        (_of_another_architecture, ["network_class_name: mine.TransformerUNet", "nonlin: os.system"]),
        (_normalised_otherwise, ["normalization_schemes[0]: HistogramMatching"]),
        (_truncated, ["checkpoint_final.pth: it is damaged"]),
        (_damaged_as_a_pickle, ["checkpoint_final.pth: it is damaged"]),
        (_with_code, ["checkpoint_final.pth: it holds more than numbers"]),
    ],
)
def test_a_folder_that_cannot_be_imported_is_refused_by_name(
    model: Path, tmp_path: Path, spoil: object, told: list[str]
) -> None:
    assert callable(spoil)
    spoil(model)
    done = _import(str(model), "--out", str(tmp_path / "out"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for words in told:
        assert words in done.stderr
    assert not (tmp_path / "out").exists()
    assert not (model / "ran").exists()


def _renamed(dataset: Path) -> None:
    content = json.loads(dataset.read_text())
    content["labels"] = {"background": 0, "one": 1, "three": 2, "two": 3}
    dataset.write_text(json.dumps(content))


def _refusal(model: Path, first: Path, name: str = "second") -> str:
    """What is said of the package `first` as the first stage of `model`, before anything is exported."""
    dataset = nnunet_files.read(model, "dataset.json")
    plans, classes = nnunet_plans.plans(model, "test"), nnunet_plans.classes(model, dataset)
    choices = nnunet_manifest.Choices(name=name, orientation="HPL", mirrored=(), codes={})
    manifest = nnunet_manifest.manifest(plans, dataset, classes, choices)
    with pytest.raises(PackageError) as caught:
        before = nnunet_cascade.first_stage(plans, first)
        assert before is not None
        nnunet_cascade.entry(plans, classes, manifest, before)
    return str(caught.value)


def test_a_first_stage_that_cannot_be_this_models_own_is_refused_by_name(made: Path, tmp_path: Path) -> None:
    folder = made / "cascade"
    first, second = folder / "first package", Path(shutil.copytree(folder / "model", tmp_path / "model"))
    alone = _refusal(folder / "first", first)
    assert f"--after {first}: test of {folder / 'first'} has no previous stage: leave it out" in alone
    same = _refusal(second, first, "first")
    assert "both packages would be called first: give this one a --name" in same
    inputs = _refusal(second, made / "z-score where it is not zero" / "package")
    assert "has not the inputs image, which both stages see" in inputs
    assert "there is no such folder" in _refusal(second, tmp_path / "none")
    _renamed(second / "dataset.json")
    labels = _refusal(second, first)
    assert "first has the labels 1 one, 2 two, 3 three, and this model 1 one, 2 three, 3 two" in labels


def test_the_command_makes_both_packages_of_a_cascade(made: Path, tmp_path: Path) -> None:
    folder = made / "cascade"
    first, second = tmp_path / "first", tmp_path / "second"
    done = _import(str(folder / "first"), "--out", str(first), "--name", "first", "--orientation", "HAR")
    assert done.returncode == 0, done.stderr
    done = _import(str(folder / "model"), "--out", str(second), "--after", str(first))
    assert done.returncode == 0, done.stderr
    # Then the second names the first as it is, which is still to be filled in, and was trained on the same files
    opened = [package.open_package(one) for one in (first, second)]
    assert not lineage.complete(opened)[1]
    assert opened[1].manifest.after[0].digest == opened[0].digest
    assert opened[1].manifest.reference.orientation == "HAR"
    assert "the digest anew, once model.yaml of first is filled in" in done.stderr


def test_without_pytorch_the_command_says_what_to_install(model: Path, tmp_path: Path) -> None:
    # In the serving environment, which has none.
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "worker.cli",
            "models",
            "import-nnunet",
            str(model),
            "--out",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "pip install 'secondread[import]'" in done.stderr
