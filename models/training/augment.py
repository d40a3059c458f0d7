"""Random patches: moved, warped, noisy, diseased, but never mirrored, for left is not right."""

from __future__ import annotations

from dataclasses import dataclass

import labels
import numpy as np
import torch
from canvas import smooth_noise
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from volumes import Case

#: Patch to train on, in voxels along (slice, row, column). In use it is larger: see `train.TILE`.
PATCH = (48, 96, 96)
#: The window that becomes [0, 1], HU.
WINDOW = (-1000.0, 400.0)
#: Label of voxels that the loss leaves out.
IGNORE = 255


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One patch as the network takes it."""

    #: float32 (slices, rows, columns) in [0, 1].
    image: Tensor
    #: int64, the same shape; 255 outside the source volume.
    target: Tensor


def draw(case: Case, random: np.random.Generator, strength: float = 1.0) -> Sample:
    """A random patch of a case, or of a short scan cut from it."""
    if random.random() < 0.25:
        case = short_scan(case, random)
    hu = case.hu if random.random() < 0.3 else with_disease(case, random)
    truth = case.labels
    if hu is not case.hu and random.random() < 0.35:
        hu, truth = with_effusion(hu, truth, random)
    grid = warp(case.hu.shape, random, strength)
    # Beyond the volume is air, as in the engine's padding; grid_sample pads with 0, so air becomes 0 here.
    source = torch.from_numpy(hu)[None, None] - WINDOW[0]
    image = functional.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    shifted = torch.from_numpy(truth.astype(np.float32))[None, None] + 1
    target = functional.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=True)
    target = torch.where(target < 0.5, torch.tensor(float(IGNORE + 1)), target) - 1
    target = target[0, 0].long()
    noisy = degrade(image[0, 0].numpy() + WINDOW[0], random, strength)
    if random.random() < 0.2:
        outside = field_of_view(noisy.shape, random)
        noisy[outside] = WINDOW[0]
        target[torch.from_numpy(outside) & (target != IGNORE)] = labels.BACKGROUND
    return Sample(image=normalised(noisy), target=target)


def short_scan(case: Case, random: np.random.Generator) -> Case:
    """Some of the slices, as if no more had been scanned."""
    length = min(int(random.integers(6, 32)), len(case.hu))
    start = int(random.integers(0, len(case.hu) - length + 1))
    part = slice(start, start + length)
    return Case(name=case.name, hu=case.hu[part].copy(), labels=case.labels[part].copy())


def normalised(hu: NDArray[np.float32]) -> Tensor:
    """The window as [0, 1]."""
    low, high = WINDOW
    return torch.from_numpy((np.clip(hu, low, high) - low) / (high - low)).float()


def warp(shape: tuple[int, ...], random: np.random.Generator, strength: float) -> Tensor:
    """Sampling positions (1, *PATCH, 3) in grid_sample's coordinates: a random place, turned and stretched."""
    size = np.array(shape, dtype=np.float32)
    patch = np.array(PATCH, dtype=np.float32)
    slack = np.maximum(size - patch, 0) / 2 + patch * 0.12
    centre = (size - 1) / 2 + random.uniform(-1, 1, 3) * slack
    matrix = _rotation(random, strength) * random.uniform(1 - 0.22 * strength, 1 + 0.22 * strength, 3)
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in PATCH]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    # Voxels are 4 mm high and 3 mm wide; turning happens in millimetres.
    stretch = torch.tensor([4.0, 3.0, 3.0])
    points = (points * stretch) @ torch.from_numpy(matrix.T.astype(np.float32)) / stretch
    coarse = torch.from_numpy(random.standard_normal((1, 3, 4, 6, 6)).astype(np.float32)) * 2.2 * strength
    bend = functional.interpolate(coarse, size=PATCH, mode="trilinear", align_corners=True)
    points = points + bend[0].permute(1, 2, 3, 0) + torch.from_numpy(centre.astype(np.float32))
    scaled = points / torch.from_numpy(np.maximum(size - 1, 1)) * 2 - 1
    return scaled.flip(-1)[None]


def _rotation(random: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """A small random rotation."""
    matrix = np.eye(3)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = np.deg2rad(random.uniform(-12, 12) * strength)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def with_disease(case: Case, random: np.random.Generator) -> NDArray[np.float32]:
    """Other lungs in the same chest: denser, lighter, emphysematous; and other soft tissue and table."""
    hu = case.hu.copy()
    lung = (case.labels == labels.LEFT_LUNG) | (case.labels == labels.RIGHT_LUNG)
    body = case.labels == labels.BODY
    change = random.uniform(-110, 140) + random.uniform(0, 40) * smooth_noise(hu.shape, [14] * 3, random)
    hu[lung] = np.clip(hu[lung] + change[lung], -1000, 200)
    if random.random() < 0.35:
        holes = smooth_noise(hu.shape, [random.uniform(2, 9)] * 3, random) > random.uniform(0.0, 1.5)
        hu[lung & holes] = random.uniform(-1000, -955)
    if random.random() < 0.25:
        dense = smooth_noise(hu.shape, [7] * 3, random) > random.uniform(1.6, 2.4)
        hu[lung & dense] += random.uniform(200, 500)
    if random.random() < 0.6:
        tissue = body & (hu > -20)
        gain = random.uniform(-25, 60) + random.uniform(0, 60) * smooth_noise(hu.shape, [9] * 3, random)
        hu[tissue] += gain[tissue]
    if random.random() < 0.4:
        hu[case.labels == labels.BACKGROUND] = random.choice([-1000, -1024, -980])
    return hu


def with_effusion(
    hu: NDArray[np.float32], truth: NDArray[np.uint8], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Fluid at the back, or a solid top or bottom, of one lung: no longer lung but body."""
    side = int(random.choice([labels.LEFT_LUNG, labels.RIGHT_LUNG]))
    lung = truth == side
    if lung.sum() < 1000:
        return hu, truth
    slices, rows, _ = np.nonzero(lung)
    place = np.arange(hu.shape[1])[None, :, None] + 2 * smooth_noise(hu.shape, [18] * 3, random)
    part, how = random.uniform(0.1, 0.5), random.integers(0, 3)
    if how == 0:
        solid = lung & (place > np.quantile(rows, 1 - part))
    else:
        height = np.arange(hu.shape[0])[:, None, None] + 2 * smooth_noise(hu.shape, [18] * 3, random)
        above = height > np.quantile(slices, 1 - part)
        solid = lung & (above if how == 1 else height < np.quantile(slices, part))
    hu, truth = hu.copy(), truth.copy()
    hu[solid] = random.uniform(0, 60)
    truth[solid] = labels.BODY
    return hu, truth


def degrade(hu: NDArray[np.float32], random: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Another scanner: blur or noise, a shifted scale, thicker slices."""
    if random.random() < 0.3:
        hu = ndimage.gaussian_filter(hu, [random.uniform(0, 1.0), *[random.uniform(0, 0.8)] * 2])
    if random.random() < 0.7:
        hu = hu + random.standard_normal(hu.shape).astype(np.float32) * random.uniform(0, 55) * strength
    hu = hu * random.uniform(0.96, 1.04) + random.uniform(-20, 20)
    return np.asarray(hu, dtype=np.float32)


def field_of_view(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.bool_]:
    """What lies outside a scanner's round field of view."""
    rows, columns = (np.arange(n) - n / 2 for n in shape[1:])
    outside = np.hypot(rows[:, None], columns[None]) > random.uniform(42, 68)
    return np.broadcast_to(outside, shape).copy()
