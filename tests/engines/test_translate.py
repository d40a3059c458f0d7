"""Image-to-image networks: what they make lies on the source's own grid, in its unit or the manifest's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import loader, package, predict
from engines.errors import InputMismatch, OutputError, PackageError
from engines.findings import Findings
from engines.volume import Volume
from tests.engines import build, nets
from tests.engines.test_predict import ORIENTATIONS
from tests.support import phantoms

ENGINES = loader.ON_THE_CPU
SHAPE = (12, 24, 20)
TILING = {"patch": [6, 12, 12]}


def _package(folder: Path, network: bytes, **changes: Any) -> package.ModelPackage:
    output = {"name": "out", "image": {"label": "Denoised"} | changes.pop("image", {})}
    settings = {"task": "image", "outputs": [output], "tiling": TILING, "results": ["sr"]}
    return package.open_package(build.write(folder, network, **(settings | changes)))


def _made(
    opened: package.ModelPackage, volume: Volume, engine: loader.Engine = "openvino", **more: Any
) -> Volume:
    image = _predicted(opened, volume, engine, **more).image
    assert image is not None
    assert image.geometry is volume.geometry and image.array.flags.c_contiguous
    assert image.array.dtype == np.float32
    return image


def _predicted(
    opened: package.ModelPackage, volume: Volume, engine: loader.Engine = "openvino", **more: Any
) -> Findings:
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        return predict.predict(opened, runner, volume, **more)


def _volume() -> Volume:
    return build.volume(phantoms.asymmetric(SHAPE))


INTENSITIES: list[dict[str, Any]] = [
    {"kind": "window", "low": -2000, "high": 3000},
    {"kind": "ct", "low": -2000, "high": 3000, "mean": 120, "std": 300},
    {"kind": "z-score"},
    {"kind": "z-score", "nonzero": True},
    {"kind": "min-max"},
]


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_a_network_that_changes_nothing_gives_the_source_back(
    intensity: dict[str, Any], tmp_path: Path
) -> None:
    volume = _volume()
    opened = _package(tmp_path, nets.affine(), inputs=[build.entry(intensity=intensity)])
    image = _made(opened, volume)
    np.testing.assert_allclose(image.array, volume.array, atol=0.01)
    assert image.unit == volume.unit


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_however_it_was_scanned(orientation: str, tmp_path: Path) -> None:
    turned = _volume().reoriented(orientation)
    scanned = Volume(array=np.ascontiguousarray(turned.array), geometry=turned.geometry, unit=turned.unit)
    image = _made(_package(tmp_path, nets.affine()), scanned, "onnxruntime")
    np.testing.assert_allclose(image.array, np.clip(scanned.array, -1000, 1000), atol=0.01)


def test_on_another_grid_a_straight_line_stays_one(tmp_path: Path) -> None:
    # Given an image that rises evenly along every axis, and a model that sees it coarser here and finer there
    array = np.indices(SHAPE).astype(np.float32).transpose(1, 2, 3, 0) @ np.array([20, 10, 5], np.float32)
    volume = build.volume(array)
    opened = _package(tmp_path, nets.affine(), inputs=[build.entry(spacing_mm=[5, 0.5, 1.4])])
    # Then it comes back the same, away from the edges, where there is nothing to interpolate with
    image = _made(opened, volume)
    inner = (slice(4, -4), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(image.array[inner], array[inner], atol=0.05)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rank", [4, 5])
def test_a_scale_and_a_unit_of_its_own(engine: loader.Engine, rank: int, tmp_path: Path) -> None:
    unit = {"value": "%", "scheme": "UCUM", "meaning": "percent"}
    opened = _package(
        tmp_path,
        nets.affine(0.5, 0.25, rank=rank),
        image={"scale": 100, "offset": -3, "unit": unit},
        tiling={"patch": [1 if rank == 4 else 4, 16, 16]},
    )
    image = _made(opened, _volume(), engine)
    normalised = np.clip((_volume().array + 1000) / 2000, 0, 1)
    np.testing.assert_allclose(image.array, (normalised * 0.5 + 0.25) * 100 - 3, atol=1e-3)
    assert image.unit == "%"


def test_background_that_was_not_measured_stays_zero(tmp_path: Path) -> None:
    array = phantoms.asymmetric(SHAPE)
    array[:, :6] = 0
    entry = build.entry(intensity={"kind": "z-score", "nonzero": True})
    # Given a network that raises everything
    image = _made(_package(tmp_path, nets.affine(1, 5), inputs=[entry]), build.volume(array))
    assert not image.array[array == 0].any()
    assert (image.array[array != 0] > array[array != 0] + 100).all()


def test_what_no_window_looks_at_stays_as_it_is(tmp_path: Path) -> None:
    # Given an image of which one corner holds something, and a network that raises everything by 100
    array = np.full(SHAPE, -900, np.int16)
    array[2:4, 2:4, 2:4] = 500
    opened = _package(
        tmp_path, nets.affine(1, 0.05), tiling={"patch": [6, 12, 10], "overlap": 0, "skip_at_most": 0.1}
    )
    image = _made(opened, build.volume(array))
    expected = array.astype(np.float32)
    expected[:6, :12, :10] += 100
    np.testing.assert_allclose(image.array, expected, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2))
def test_slices_of_any_number_and_size(
    tmp_path_factory: pytest.TempPathFactory, slices: int, rows: int, columns: int, context: int
) -> None:
    # Given a network without slices, which is fed several slices of a stack at once, with their neighbours
    rng = np.random.default_rng(slices * 1000 + rows * 30 + columns)
    array = rng.uniform(-900, 900, (slices, rows, columns)).astype(np.float32)
    array.flat[0] = -950
    array.flat[-1] = 950
    tiling = {"patch": [1, 10, 10], "context": context}
    opened = _package(
        tmp_path_factory.mktemp("model"),
        nets.affine(rank=4, channels=1 + 2 * context),
        tiling=tiling,
        inputs=[build.entry(min_slices=1)],
    )
    if array.size == 1:
        return
    image = _made(opened, build.volume(array))
    padded = np.pad(array, ((context, context), (0, 0), (0, 0)), mode="edge")
    expected = np.mean([padded[shift : shift + slices] for shift in range(1 + 2 * context)], axis=0)
    np.testing.assert_allclose(image.array, expected, atol=0.05)


def _points(*pairs: tuple[float, float]) -> list[list[list[float]]]:
    return [[[*pair] for pair in pairs]]


@pytest.mark.parametrize("engine", ENGINES)
def test_prompts_are_the_manifest_s_or_the_job_s(engine: loader.Engine, tmp_path: Path) -> None:
    opened = _package(tmp_path, nets.prompted(), prompts=[{"name": "points", "values": _points((0.1, 0.2))}])
    volume = build.volume(np.clip(phantoms.asymmetric(SHAPE), -1000, 1000))
    image = _made(opened, volume, engine)
    np.testing.assert_allclose(image.array, volume.array + 600.0, atol=0.01)
    # And a job's parameter takes their place, with as many points as it likes
    parameters = {"points": _points((0.1, 0.2), (-0.4, 0.05))}
    image = _made(opened, volume, engine, parameters=parameters)
    np.testing.assert_allclose(image.array, volume.array - 100.0, atol=0.01)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"boxes": [1]}, 'the model has no prompt "boxes": it has points'),
        ({"points": [1, 2]}, r'prompt "points" has 1 axes; the model\'s own has the shape \(1, 1, 2\)'),
        ({"points": [[[1, 2, 3]]]}, "expected points: float32 .*axis 2 differs"),
        ({"points": [[[1, "two"]]]}, 'prompt "points": write numbers'),
        ({"points": [[[1, 2], [3]]]}, 'prompt "points": the lists are of different lengths'),
        ({"points": [[[1, float("nan")]]]}, 'prompt "points": a number is none of float32'),
    ],
)
def test_a_parameter_that_is_no_prompt_is_refused(
    parameters: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    opened = _package(tmp_path, nets.prompted(), prompts=[{"name": "points", "values": _points((0.1, 0.2))}])
    with pytest.raises(InputMismatch, match=complaint):
        _predicted(opened, _volume(), parameters=parameters)


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ({"name": "points", "values": [[1], [2, 3]]}, "different lengths"),
        ({"name": "points", "values": [0.5], "dtype": "int64"}, "a number is none of int64"),
        ({"name": "points", "values": [300], "dtype": "uint8"}, "a number is none of uint8"),
        ({"name": "image", "values": [1]}, "two inputs of the graph have the same name"),
    ],
)
def test_what_a_prompt_may_not_be(prompt: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=complaint):
        _package(tmp_path, nets.prompted(), prompts=[prompt])


def test_a_model_without_prompts_takes_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(InputMismatch, match='no prompt "points": it takes none'):
        _predicted(_package(tmp_path, nets.affine()), _volume(), parameters={"points": [1]})


@pytest.mark.parametrize(
    ("network", "changes", "complaint"),
    [
        (
            build.network(),
            {"outputs": [{"name": "logits", "image": {"label": "x"}}]},
            r"an image needs \(1, 1, ",
        ),
        (nets.affine(offset=np.nan), {}, '"out" holds values that are not finite'),
        (nets.pooled((1.0,), (0.0,)), {}, r"has shape \(.*1\); an image needs"),
    ],
)
def test_an_answer_that_is_no_image_is_refused(
    network: bytes, changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=complaint):
        _predicted(_package(tmp_path, network, **changes), _volume())


@pytest.mark.parametrize(
    ("network", "tiling", "complaint"),
    [
        (nets.affine(rank=4), {"patch": [3, 12, 12]}, r"make \(n, 1, 3, 12, 12\)"),
        (nets.affine(rank=4), {"patch": [1, 12, 12], "context": 1}, r"make \(n, 3, 12, 12\)"),
        (
            nets.affine(channels=2),
            {"patch": [6, 12, 12]},
            r"input is image: float32 \(1, 2, .*make \(n, 1, 6",
        ),
        (nets.pooled((1.0,), (0.0,), rank=4), {"patch": [3, 12, 12]}, r"make \(n, 1, 3, 12, 12\)"),
    ],
)
def test_an_input_that_the_manifest_s_images_do_not_fit_is_refused(
    network: bytes, tiling: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputMismatch, match=complaint):
        _predicted(_package(tmp_path, network, tiling=tiling), _volume())


def test_an_image_with_a_scale_of_its_own_skips_nothing(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="what is not seen keeps the source's values"):
        _package(tmp_path, nets.affine(), image={"scale": 1}, tiling=TILING | {"skip_at_most": 0})


def test_skipped_windows_are_background_where_no_other_window_looks(tmp_path: Path) -> None:
    # Given a segmentation of everything, even where there is nothing, and an image with something in one corner
    array = np.full((16, 32, 32), -1000, np.int16)
    array[2:5, 3:6, 20:24] = 500
    for number, activation in enumerate(("softmax", "none", "sigmoid")):
        labels = 3 if activation == "sigmoid" else 2
        network = build.thresholds((-0.5, -0.2))
        outputs = [
            {
                "name": "logits",
                "activation": activation,
                "labels": [build.label(n + 1, f"label{n + 1}") for n in range(labels)],
            }
        ]
        tiling = {"patch": [8, 16, 16], "overlap": 0, "skip_at_most": 0}
        opened = package.open_package(
            build.write(tmp_path / str(number), network, outputs=outputs, tiling=tiling)
        )
        mask = _predicted(opened, build.volume(array)).mask
        # Then only the window that holds it is labelled
        places = np.argwhere(mask)
        assert places.min(axis=0).tolist() == [0, 0, 16] and places.max(axis=0).tolist() == [7, 15, 31]
        assert len(places) == 8 * 16 * 16


def test_skipping_costs_a_window_that_is_seen_nothing(tmp_path: Path) -> None:
    array = phantoms.asymmetric((24, 48, 40))
    masks = []
    for number, more in enumerate(({}, {"skip_at_most": 0})):
        tiling = {"patch": [8, 16, 16]} | more
        opened = package.open_package(
            build.write(tmp_path / str(number), build.thresholds((0.6, 0.8)), tiling=tiling)
        )
        masks.append(_predicted(opened, build.volume(array)).mask)
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("sampling", ["box", "box-linear", "first-voxel"])
@pytest.mark.parametrize("scale", [None, 2000])
def test_a_crop_and_a_pad_leave_everything_where_it_was(
    scale: float | None, sampling: str, tmp_path: Path
) -> None:
    # Given a smooth image with air around it that is cropped away, on a grid that is padded
    index = np.indices(SHAPE).astype(np.float32)
    array = 300 + 200 * np.sin(index.sum(axis=0) / 9)
    inside = (slice(3, 10), slice(4, 21), slice(2, 17))
    volume = np.full(SHAPE, -900, np.float32)
    volume[inside] = array[inside]
    entry = build.entry(
        sampling=sampling,
        spacing_mm=[1.25, 0.4, 0.35],
        steps=[{"kind": "crop", "above": -500}, {"kind": "pad", "multiple_of": [16, 16, 16], "value": 0.3}],
    )
    image = {} if scale is None else {"scale": scale, "offset": -1000}
    # When a network raises everything by 100
    opened = _package(tmp_path, nets.affine(1, 0.05), inputs=[entry], image=image)
    made = _made(opened, build.volume(volume)).array
    # Then what is inside is raised where it lies, and what is outside is left, or has no value
    np.testing.assert_allclose(made[inside], volume[inside] + 100, atol=8)
    outside = np.ones(SHAPE, bool)
    outside[inside] = False
    np.testing.assert_array_equal(made[outside], volume[outside] if scale is None else 0)
