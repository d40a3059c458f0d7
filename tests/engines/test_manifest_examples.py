"""The manifests of docs/manifest-examples.md, each run with a network that fits it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import loader, package, predict
from engines.findings import Findings
from engines.volume import Geometry, Scale, Volume
from tests.engines import build, nets
from tests.support import phantoms

PAGE = Path(__file__).parents[2] / "docs" / "manifest-examples.md"
BLOCKS = dict(re.findall(r"```yaml (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
SHAPE = (20, 48, 40)


def _open(folder: Path, name: str, network: bytes) -> package.ModelPackage:
    digest = hashlib.sha256(network).hexdigest()
    text = (BLOCKS["start"] + BLOCKS[name]).replace("0" * 64, digest)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(network)
    (folder / "model.yaml").write_text(text)
    (folder / "MODEL_CARD.md").write_text("# example\n")
    return package.open_package(folder)


def _answer(opened: package.ModelPackage, volume: Volume, **others: Volume) -> Findings:
    with loader.open_runner(opened, threads=1) as runner:
        return predict.predict(opened, runner, volume, others)


def _x_ray() -> Volume:
    rows = phantoms.asymmetric((1, 60, 80)).astype(np.float32)
    array = (rows - rows.min()) / (rows.max() - rows.min())
    geometry = Geometry(shape=(1, 60, 80), affine=np.eye(4), scale=Scale.PLANE, in_patient=False)
    return Volume(array=array, geometry=geometry, unit="1")


def _ct() -> Volume:
    array = phantoms.asymmetric(SHAPE).clip(-1000, 0)
    array[8:12, 20:24, 12:16] = 3000
    return build.volume(array, spacing=(1.25, 0.7, 0.7))


def _classified(folder: Path) -> None:
    found = _answer(
        _open(folder, "classification", nets.pooled((4, -4), (0, 0), rank=4, name="logits")), _x_ray()
    )
    assert [each.key for each in found.measurements] == ["effusion", "nodule"]
    assert [each.key for each in found.findings] == ["effusion"]
    assert all(each.value is not None and 0 < each.value < 1 for each in found.measurements)


def _valued(folder: Path) -> None:
    found = _answer(_open(folder, "regression", nets.pooled((1,), (1,), rank=4, name="age")), _x_ray())
    (age,) = found.measurements
    # A z-score's mean is 0, and the network adds 1.
    assert age.value == pytest.approx(230, abs=0.1)
    assert [(each.key, each.present) for each in found.findings] == [("grown", True)]


def _detected(folder: Path) -> None:
    found = _answer(_open(folder, "detection", nets.bright_spots(0.99, (2, 2, 2))), _ct())
    assert 0 < len(found.boxes) <= 20
    for box in found.boxes:
        assert all(low < high for low, high in zip(box.low, box.high, strict=True))
        assert all(
            first - 2 <= low and high <= last + 2
            for low, high, first, last in zip(box.low, box.high, (8, 20, 12), (12, 24, 16), strict=True)
        )


def _translated(folder: Path) -> None:
    volume = build.volume(phantoms.asymmetric(SHAPE).clip(-1000, 2000))
    made = _answer(_open(folder, "image", nets.affine()), volume).image
    assert made is not None and made.unit == volume.unit
    np.testing.assert_allclose(made.array, volume.array, atol=0.01)


def _fused(folder: Path) -> None:
    weights = np.zeros((2, 3, 1, 1, 1), np.float32)
    # Edema is bright on FLAIR, the core on T1 with contrast.
    weights[0, 2], weights[1, 0] = 9, 9
    tensors = [nets.tensor("w", weights), nets.tensor("b", np.full(2, -9, np.float32))]
    node: Any = nets.helper.make_node("Conv", ["image", "w", "b"], ["logits"])
    space = ("d", "h", "w")
    network = nets.graph(
        [node], tensors, [nets.info("image", ("n", 3, *space))], [nets.info("logits", ("n", 2, *space))]
    )

    def series(part: tuple[slice, slice, slice]) -> Volume:
        array = np.full(SHAPE, 100, np.int16)
        array[part] = 900
        array[:, :4] = 0
        return build.volume(array, spacing=(1, 1, 1), unit="1")

    edema = (slice(4, 16), slice(10, 40), slice(8, 32))
    core = (slice(8, 12), slice(20, 30), slice(14, 22))
    found = _answer(_open(folder, "several", network), series(core), t2=series(edema), flair=series(edema))
    expected = np.zeros(SHAPE, np.uint8)
    expected[edema], expected[core] = 1, 2
    np.testing.assert_array_equal(found.mask, expected)
    assert len(found.measurements) == 2


CASES: dict[str, Callable[[Path], None]] = {
    "classification": _classified,
    "regression": _valued,
    "detection": _detected,
    "image": _translated,
    "several": _fused,
}


@pytest.mark.parametrize("name", CASES)
def test_a_documented_manifest_is_answered(name: str, tmp_path: Path) -> None:
    CASES[name](tmp_path / name)


def test_no_documented_manifest_is_left_out() -> None:
    assert set(BLOCKS) == {"start", *CASES}
