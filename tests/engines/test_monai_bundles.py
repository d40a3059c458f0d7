"""What of a MONAI bundle no package can say is told by key and name, before anything heavy is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.errors import PackageError
from engines.importing import monai_bundle, monai_chain, monai_preprocessing, package_writer
from engines.importing.monai_config import BundleConfig


def _config(**content: Any) -> BundleConfig:
    return BundleConfig(content, "configs/inference.json")


def _bundle(folder: Path, **sections: Any) -> Path:
    """A bundle without weights, whose sections are right where they are not given."""
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{}")
    config = {
        "network_def": {"_target_": "SegResNet"},
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image"}]},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32]},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [_step("Activationsd", "pred", softmax=True)],
        },
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config | sections))
    return folder


def _step(name: str, keys: str = "image", **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": keys, **arguments}


PRE, POST = "preprocessing::transforms", "postprocessing::transforms"


@pytest.mark.parametrize(
    ("section", "steps", "said"),
    [
        ("preprocessing", [_step("GaussianSmoothd", sigma=0.4)], f"{PRE}::0 (GaussianSmoothd): this transform is not supported"),
        ("preprocessing", [_step("Lambdad", func="$lambda x: x")], f"{PRE}::0 (Lambdad): this transform is not supported"),
        ("preprocessing", [_step("Spacingd", pixdim=[1, 1, 1], mode="nearest")], f"{PRE}::0 (Spacingd): mode: nearest is not supported"),
        ("preprocessing", [_step("Spacingd", pixdim=[1, 1, -1])], f"{PRE}::0 (Spacingd): pixdim: [1, 1, -1] is not supported"),
        ("preprocessing", [_step("Spacingd", pixdim=[1, 1, 1], new=1)], f"{PRE}::0 (Spacingd): new is not supported"),
        (
            "preprocessing",
            [_step("Spacingd", pixdim=2.0), _step("Orientationd", axcodes="RAS")],
            f"{PRE}::1 (Orientationd): it comes after resampling: put Orientation before Spacing",
        ),
        ("preprocessing", [_step("Orientationd", axcodes="XYZ")], f"{PRE}::0 (Orientationd): axcodes: XYZ is not supported"),
        ("preprocessing", [_step("Orientationd", axcodes="RAR")], f"{PRE}::0 (Orientationd): axcodes: RAR is not supported"),
        ("preprocessing", [_step("Orientationd", axcodes="RAH")], f"{PRE}::0 (Orientationd): axcodes: RAH is not supported"),
        ("preprocessing", [_step("Spacingd", pixdim=[])], f"{PRE}::0 (Spacingd): pixdim: [] is not supported"),
        ("preprocessing", [_step("Spacingd", pixdim=[1, 1, float("nan")])], f"{PRE}::0 (Spacingd): {PRE}::0::pixdim::2: it is too large, or no number"),
        (
            "preprocessing",
            [_step("ScaleIntensityRanged", a_min=0, a_max=1, b_min=0, b_max="x")],
            f"{PRE}::0 (ScaleIntensityRanged): b_min and b_max must be two numbers that differ",
        ),
        (
            "preprocessing",
            [_step("ScaleIntensityd"), _step("NormalizeIntensityd")],
            f"{PRE}::1 (NormalizeIntensityd): intensities are scaled twice",
        ),
        ("preprocessing", [_step("Resized", spatial_size=[8, 8, 8])], f"{PRE}::0 (Resized): mode: area is not supported"),
        ("preprocessing", [_step("CropForegroundd", margin=4)], f"{PRE}::0 (CropForegroundd): margin: 4 is not supported"),
        ("preprocessing", [_step("CropForegroundd", select_fn="$lambda x: x > 3")], "select_fn: $lambda x: x > 3 is code"),
        ("postprocessing", [_step("AsDiscreted", "pred", threshold=0.3)], f"{POST}::0 (AsDiscreted): threshold: 0.3 is not supported"),
        (
            "postprocessing",
            [_step("AsDiscreted", "pred", argmax=True), _step("Invertd", "pred", nearest_interp=False)],
            f"{POST}::1 (Invertd): numbers of labels cannot be interpolated",
        ),
        ("postprocessing", [_step("FillHolesd", "pred")], f"{POST}::0 (FillHolesd): this transform is not supported"),
        (
            "postprocessing",
            [_step("KeepLargestConnectedComponentd", "pred", independent=False)],
            f"{POST}::0 (KeepLargestConnectedComponentd): independent: False is not supported",
        ),
        ("inferer", {"_target_": "SaliencyInferer"}, "inferer (SaliencyInferer): this inferer is not supported"),
        ("inferer", {"_target_": "SimpleInferer"}, "inferer (SimpleInferer): the network sees whole images of any size"),
        (
            "inferer",
            {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, -1]},
            "inferer (SlidingWindowInferer): roi_size: [32, 32, -1] is not supported",
        ),
        (
            "inferer",
            {"_target_": "SlidingWindowInferer", "roi_size": 32, "overlap": 1.0},
            "inferer (SlidingWindowInferer): overlap: 1.0 is not supported",
        ),
        (
            "inferer",
            {"_target_": "SlidingWindowInferer", "roi_size": 32, "overlap": [[1], [1], [2]]},
            "inferer (SlidingWindowInferer): overlap: [[1], [1], [2]] is not supported",
        ),
        (
            "inferer",
            {"_target_": "SlidingWindowInferer", "roi_size": 32, "padding_mode": "reflect"},
            "inferer (SlidingWindowInferer): padding_mode: reflect is not supported",
        ),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(tmp_path: Path, section: str, steps: Any, said: str) -> None:
    content = {"_target_": "Compose", "transforms": steps} if isinstance(steps, list) else steps
    with pytest.raises(PackageError) as refused:
        monai_bundle.import_bundle(_bundle(tmp_path / "bundle", **{section: content}), tmp_path / "out")
    assert str(refused.value).startswith(f"{tmp_path / 'bundle' / 'configs' / 'inference.json'}: ")
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_all_of_it_is_named_at_once(tmp_path: Path) -> None:
    chain = [_step("GaussianSmoothd"), _step("RandFlipd")]
    with pytest.raises(PackageError) as refused:
        monai_bundle.import_bundle(
            _bundle(
                tmp_path / "bundle",
                preprocessing={"_target_": "Compose", "transforms": chain},
                postprocessing=[_step("FillHolesd", "pred")],
            ),
            tmp_path / "out",
        )
    assert [line.split("(")[1].split(")")[0] for line in str(refused.value).splitlines()] == [
        "GaussianSmoothd",
        "RandFlipd",
        "FillHolesd",
    ]


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"there is no inference\.json: give the folder of a MONAI bundle"):
        monai_bundle.import_bundle(tmp_path, tmp_path / "out")
    bundle = _bundle(tmp_path / "bundle")
    (bundle / "configs" / "inference.json").write_text("{]")
    with pytest.raises(PackageError, match=r"configs/inference\.json: it cannot be read"):
        monai_bundle.import_bundle(bundle, tmp_path / "out")


@pytest.mark.parametrize(("name", "depth"), [("inference.json", 3_000), ("inference.yaml", 500)])
def test_what_is_nested_too_deeply_is_refused(tmp_path: Path, name: str, depth: int) -> None:
    (tmp_path / name).write_text("[" * depth + "]" * depth)
    with pytest.raises(PackageError, match=r"inference\.\w+: it cannot be read: maximum recursion depth"):
        BundleConfig.read(tmp_path / name)
    nested: list[Any] = []
    for _ in range(3_000):
        nested = [nested]
    with pytest.raises(PackageError, match=r"configs/inference\.json: nested: it is nested too deeply"):
        _config(nested=nested).value("nested")


def test_metadata_that_describe_no_tensors_are_refused(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "bundle")
    (bundle / "configs" / "metadata.json").write_text('{"network_data_format": []}')
    with pytest.raises(PackageError, match=r"metadata\.json: network_data_format: it must be a mapping"):
        monai_bundle.import_bundle(bundle, tmp_path / "out")


def test_what_only_the_manifest_refuses_names_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(PackageError) as refused:
        package_writer.write(tmp_path / "out", b"", {"format": 1}, "", source=tmp_path / "bundle")
    for line in str(refused.value).splitlines():
        assert line.startswith(f"{tmp_path / 'bundle'}: what its model.yaml would say: ")
    assert not (tmp_path / "out").exists()


def test_references_and_arithmetic_are_followed_and_code_is_not_run(tmp_path: Path) -> None:
    config = _config(
        size="$[@edge] * 1",
        edge=96,
        half="$@edge / 2 + 1",
        nested={"list": ["@half", {"deep": "@edge"}]},
        whole="@nested",
        deep="@nested::list::1::deep",
        old="@nested#list#0",
        off="$not True",
        code=f"$open('{tmp_path / 'ran'}', 'w')",
        circle="@round",
        round="@circle",
        large="$9 ** 9 ** 9",
        endless="$999999 ** 999999",
        larger="$999999 ** 9",
        imaginary="$(-8) ** 0.5",
        stacked="$" + "-" * 10_000 + "1",
        infinite=float("inf"),
        root="$64 ** 0.5 + 2 ** -1",
        copied="%other.json::key",
    )
    assert config.value("half") == 49
    assert config.value("whole") == {"list": [49, {"deep": 96}]}
    assert (config.value("deep"), config.value("old"), config.value("off")) == (96, 49, False)
    assert config.value("root") == 8.5
    for key, said in {
        "code": "code: .* is code, and a bundle's code is not run",
        "size": "is code",
        "large": "is code",
        "endless": "is code",
        "larger": "is code",
        "imaginary": "is code",
        "stacked": "is code",
        "infinite": "infinite: it is too large, or no number: correct it",
        "circle": "go round in a circle",
        "copied": "copies from elsewhere",
        "missing": "there is no missing",
    }.items():
        with pytest.raises(PackageError, match=said):
            config.value(key)
    assert not (tmp_path / "ran").exists()


def test_a_disabled_step_and_one_of_another_key_are_left_out() -> None:
    config = _config(
        use=False,
        preprocessing=[
            _step("LoadImaged"),
            {**_step("GaussianSmoothd"), "_disabled_": "$not @use"},
            _step("monai.transforms.RandFlipd", "label"),
            _step("monai.transforms.Orientationd", ["image", "label"], axcodes="LPI"),
        ],
    )
    unsupported = monai_chain.Unsupported(file="f")
    seen = monai_preprocessing.seen([*monai_chain.steps(config, "preprocessing")], unsupported)
    unsupported.settle()
    assert seen.orientation == "LPF"
