"""Labels land on the source's voxels, and only the largest component stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from engines import components, postprocess, resampling
from engines.errors import OutputError

RNG = np.random.default_rng(7)


def _smooth(classes: int, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Logits that change slowly, as those of a network do."""
    noise = RNG.normal(size=(classes, *shape))
    return np.asarray(40 * scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 2)), dtype=np.float32)


def _dense(logits: NDArray[np.float32], shape: tuple[int, int, int], *, softmax: bool) -> NDArray[Any]:
    """The answer the plain way: every class on the whole source grid, then argmax."""
    values = logits.astype(np.float64)
    if softmax:
        values = np.exp(values - values.max(axis=0))
        values /= values.sum(axis=0)
    for axis in range(3):
        weights = resampling.axis_weights(logits.shape[axis + 1], shape[axis], antialias=False)
        if weights is not None:
            values = np.moveaxis(np.tensordot(weights.toarray(), values, axes=(1, axis + 1)), 0, axis + 1)
    return values.argmax(axis=0)


@pytest.mark.parametrize(
    "source", [(30, 41, 52), (10, 12, 14), (5, 40, 9), (10, 25, 14), (23, 12, 14), (1, 1, 1)]
)
@pytest.mark.parametrize("activation", ["softmax", "none"])
@pytest.mark.parametrize("classes", [2, 5, 40])
def test_slabs_give_what_all_classes_at_once_would(
    source: tuple[int, int, int], activation: str, classes: int
) -> None:
    logits = _smooth(classes, (10, 12, 14))
    mask = np.full(source, 255, np.uint8)
    backward = postprocess.Backward(mask, (10, 12, 14), activation=activation, threads=2)
    for start, stop in ((0, 4), (4, 5), (5, 10)):
        backward.write(start, logits[:, start:stop])
    expected = _dense(logits, source, softmax=activation == "softmax")
    # float32 against float64: only a voxel where two classes are equal may differ.
    assert np.mean(mask != expected) < 1e-3
    assert len(np.unique(mask)) > 1 or source == (1, 1, 1)


def test_a_class_that_cannot_win_is_left_out_and_no_other() -> None:
    values = np.array([[0.6, 0.1, 0.5], [0.3, 0.8, 0.4], [0.1, 0.05, 0.09], [0.0, 0.05, 0.3]], np.float32)
    assert postprocess.candidates(values[:, None]).tolist() == [0, 1, 3]


def test_more_labels_than_a_byte_holds() -> None:
    assert postprocess.mask_dtype(256) is np.uint8
    assert postprocess.mask_dtype(257) is np.uint16
    logits = np.zeros((300, 1, 1, 2), np.float32)
    logits[299, 0, 0, 1] = 1
    mask = np.zeros((1, 1, 2), postprocess.mask_dtype(300))
    postprocess.Backward(mask, (1, 1, 2), activation="softmax").write(0, logits)
    assert mask.tolist() == [[[0, 299]]]


def test_equal_values_give_the_first_label() -> None:
    mask = np.full((2, 3, 3), 9, np.uint8)
    postprocess.Backward(mask, (2, 3, 3), activation="none").write(0, np.zeros((3, 2, 3, 3), np.float32))
    assert (mask == 0).all()


def _largest_by_image(mask: NDArray[Any], number: int, structure: NDArray[Any]) -> NDArray[Any]:
    """The same through an image of all components."""
    numbers, count = scipy.ndimage.label(mask == number, structure)
    if count < 2:
        return mask
    sizes = np.bincount(numbers.ravel())[1:]
    return np.where((mask == number) & (numbers != 1 + sizes.argmax()), 0, mask)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("shape", [(9, 17, 23), (1, 20, 20), (20, 1, 20), (20, 20, 1), (17, 8, 8)])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.32, 0.9])
def test_only_the_largest_component_stays(shape: tuple[int, int, int], share: float, corners: bool) -> None:
    structure = scipy.ndimage.generate_binary_structure(3, 3 if corners else 1)
    for _ in range(5):
        mask = (RNG.random(shape) < share).astype(np.uint8) * 2
        mask[RNG.random(shape) < 0.1] = 1
        sizes = np.sort(np.bincount(scipy.ndimage.label(mask == 2, structure)[0].ravel())[1:])
        expected = _largest_by_image(mask, 2, structure)
        components.keep_largest(mask, 2, corners=corners)
        if len(sizes) > 1 and sizes[-1] == sizes[-2]:
            assert (mask == 2).sum() == (expected == 2).sum()
        else:
            np.testing.assert_array_equal(mask, expected)


def test_rows_and_slices_do_not_touch_around_the_corner() -> None:
    """The last voxel of a row is no neighbour of the next row's first, nor of the next slice's."""
    mask = np.zeros((2, 3, 4), np.uint8)
    mask[0, 0, 3] = mask[0, 1, 0] = mask[0, 2, 3] = mask[1, 0, 0] = 1
    mask[1, 2, :3] = 1
    components.keep_largest(mask, 1)
    assert mask.sum() == 3
    assert mask[1, 2, :3].all()


def test_a_label_without_voxels_or_with_one_run_is_left_alone() -> None:
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[1, 2, 1:4] = 1
    before = mask.copy()
    for number in (1, 2):
        components.keep_largest(mask, number)
    np.testing.assert_array_equal(mask, before)


def test_a_mask_that_cannot_be_changed_in_place_is_refused() -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        components.keep_largest(np.zeros((4, 5, 6), np.uint8).transpose(2, 1, 0), 1)


def test_small_components_go_and_large_ones_stay() -> None:
    # Given one label in components of 1, 8 and 27 voxels, the largest of which touches the border
    mask = np.zeros((9, 10, 11), np.uint8)
    mask[0:3, 0:3, 0:3] = 1
    mask[5:7, 5:7, 5:7] = 1
    mask[8, 9, 10] = 1
    mask[0, 9, 0] = 2
    # When those below eight voxels are dropped
    components.drop_components(mask, 1, smaller_than=8)
    # Then the speck is gone, and nothing else
    assert mask[8, 9, 10] == 0
    assert (mask == 1).sum() == 27 + 8
    assert mask[0, 9, 0] == 2
    components.drop_components(mask, 1, smaller_than=28)
    assert not (mask == 1).any()
    components.drop_components(mask, 1, smaller_than=28)


@pytest.mark.parametrize("source", [(10, 12, 14), (23, 25, 14), (5, 40, 9)])
def test_probabilities_are_those_of_all_classes_at_once(source: tuple[int, int, int]) -> None:
    logits = _smooth(5, (10, 12, 14))
    wanted = {3: np.full(source, 9, np.float32), 1: np.full(source, 9, np.float32)}
    mask, plain = np.zeros(source, np.uint8), np.zeros(source, np.uint8)
    backward = postprocess.Backward(mask, (10, 12, 14), activation="softmax", probabilities=wanted, threads=2)
    for start, stop in ((0, 4), (4, 5), (5, 10)):
        backward.write(start, logits[:, start:stop])
    values = np.exp(logits.astype(np.float64))
    values /= values.sum(axis=0)
    for axis in range(3):
        weights = resampling.axis_weights(logits.shape[axis + 1], source[axis], antialias=False)
        if weights is not None:
            values = np.moveaxis(np.tensordot(weights.toarray(), values, axes=(1, axis + 1)), 0, axis + 1)
    for number, share in wanted.items():
        np.testing.assert_allclose(share, values[number], atol=1e-5)
        assert share.min() >= 0 and share.max() <= 1
    # And the mask is the one that there is without them
    postprocess.Backward(plain, (10, 12, 14), activation="softmax").write(0, logits)
    np.testing.assert_array_equal(mask, plain)


@pytest.mark.parametrize("value", [1.01, -0.01])
def test_what_is_no_probability_is_refused(value: float) -> None:
    values = np.full((2, 2, 3, 3), 0.5, np.float32)
    values[1, 1, 1, 1] = value
    wanted = {1: np.zeros((2, 3, 3), np.float32)}
    backward = postprocess.Backward(
        np.zeros((2, 3, 3), np.uint8), (2, 3, 3), activation="none", probabilities=wanted
    )
    with pytest.raises(OutputError, match="the network's probabilities run from"):
        backward.write(0, values)
