"""Whoever gives import-nnunet another folder than the model's own is told which one to give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engines.errors import PackageError
from engines.importing import nnunet_folder

WANTED = "give the folder that holds plans.json, dataset.json, fold_*: "


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A results folder as nnU-Net lays it out: results, dataset, configuration."""
    made = tmp_path / "results" / "Dataset001_A" / "nnUNetTrainer__nnUNetPlans__2d"
    (made / "fold_0" / "validation").mkdir(parents=True)
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        (made / name).write_text("{}")
    return made


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (lambda model: model.parent, "it holds no plans.json and no dataset.json and no fold_*"),
        (lambda model: model.parent.parent, "it holds no plans.json and no dataset.json and no fold_*"),
        (lambda model: model / "fold_0", "it holds no plans.json and no dataset.json and no fold_*"),
        (lambda model: model / "plans.json", "this is no folder"),
        (lambda model: model / "fold_0" / "checkpoint_final.pth", "this is no folder"),
    ],
    ids=["dataset", "results", "fold", "plans", "checkpoint"],
)
def test_the_model_that_is_near_is_named(
    model: Path, tmp_path: Path, given: Callable[[Path], Path], problem: str
) -> None:
    with pytest.raises(PackageError) as refused:
        nnunet_folder.import_folder(given(model), tmp_path / "out")
    assert str(refused.value) == f"{given(model)}: {problem}: {WANTED}{model}"


def test_of_several_models_all_are_named_up_to_three(model: Path, tmp_path: Path) -> None:
    others = [model.parent / f"nnUNetTrainer__nnUNetPlans__3d_{name}" for name in ("fullres", "lowres", "x")]
    for other in others:
        other.mkdir()
        (other / "plans.json").write_text("{}")
    with pytest.raises(PackageError) as refused:
        nnunet_folder.import_folder(model.parent, tmp_path / "out")
    assert str(refused.value).endswith(f"{WANTED}{model}, or {others[0]}, or {others[1]}")


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_a_file_that_is_missing_is_named(model: Path, tmp_path: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(PackageError) as refused:
        nnunet_folder.import_folder(model, tmp_path / "out")
    assert f"{model}: it holds no {name}: {WANTED}e.g. nnUNet_results/Dataset001_Name/" in str(refused.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"elsewhere: there is no such folder: give the folder that holds"):
        nnunet_folder.import_folder(tmp_path / "elsewhere", tmp_path / "out")
