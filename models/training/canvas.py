"""Voxels to paint a phantom on, and the scanner around them: table, blur, noise, field of view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from labels import BACKGROUND, BODY, Triple
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

Array = NDArray[np.float32]

#: Voxel spacing of a phantom along (slice, row, column), mm: the network's own.
SPACING = (4.0, 3.0, 3.0)


def smooth_noise(shape: tuple[int, ...], scale: Sequence[float], random: np.random.Generator) -> Array:
    """A random field of standard deviation 1 that varies over `scale` voxels along each axis."""
    coarse = [max(int(n / s) + 2, 3) for n, s in zip(shape, scale, strict=True)]
    source = torch.from_numpy(random.standard_normal(coarse).astype(np.float32))[None, None]
    field = functional.interpolate(source, size=shape, mode="trilinear", align_corners=True)[0, 0]
    return np.asarray((field / field.std().clamp(min=1e-6)).numpy(), dtype=np.float32)


class Canvas:
    """Voxels to paint on, and their places in millimetres from the centre of the patient."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.shape = (int(random.integers(40, 84)), 128, 128)
        self.hu = np.full(self.shape, -1000, np.float32)
        self.labels = np.zeros(self.shape, np.uint8)
        #: Tissue that no lung may fill.
        self.solid = np.zeros(self.shape, bool)
        grids = np.meshgrid(
            *[(np.arange(n, dtype=np.float32) - n / 2) * s for n, s in zip(self.shape, SPACING, strict=True)],
            indexing="ij",
        )
        # A smooth warp of space makes every ellipsoid an individual shape.
        self.z, self.y, self.x = (g + self.smooth(45.0, 7.0) for g in grids)
        self.flat_y, self.flat_x = grids[1], grids[2]

    def uniform(self, low: float, high: float) -> float:
        """One random number."""
        return float(self.random.uniform(low, high))

    def smooth(self, scale_mm: float, amplitude: float) -> Array:
        """A random field that varies over `scale_mm` with standard deviation `amplitude`."""
        return amplitude * smooth_noise(self.shape, [scale_mm / step for step in SPACING], self.random)

    def ellipsoid(self, centre: Triple, radii: Triple, power: float = 2.0) -> Array:
        """Below 1 inside; (slice, row, column) centre and radii in mm; a higher power is boxier."""
        parts = zip((self.z, self.y, self.x), centre, radii, strict=True)
        return np.asarray(sum(np.abs((axis - c) / r) ** power for axis, c, r in parts), dtype=np.float32)

    def paint(self, where: NDArray[np.bool_], hu: float | Array, label: int | None = None) -> None:
        """Set the HU, and the label unless None, of some voxels."""
        self.hu[where] = hu[where] if isinstance(hu, np.ndarray) else hu
        if label is not None:
            self.labels[where] = label


def paint_table(canvas: Canvas) -> None:
    """A thin curved couch under the patient, sometimes with a mattress."""
    rows = np.where((canvas.labels == BODY).any(axis=(0, 2)))[0]
    below = (rows.max() - canvas.shape[1] / 2) * SPACING[1] + canvas.uniform(3, 25) if rows.size else 100.0
    # Flat for a body, deep like a headrest at times.
    curve = canvas.uniform(0, 0.0012) if canvas.random.random() < 0.75 else canvas.uniform(0.003, 0.012)
    sag = canvas.flat_y + curve * canvas.flat_x**2
    outside = (canvas.labels == BACKGROUND) & (np.abs(canvas.flat_x) < canvas.uniform(150, 260))
    thickness = canvas.uniform(3, 9)
    canvas.paint(outside & (np.abs(sag - below) < thickness / 2), canvas.uniform(-700, 200))
    if canvas.random.random() < 0.5:
        canvas.paint(
            outside & (np.abs(sag - below - canvas.uniform(15, 50)) < thickness), canvas.uniform(-600, 400)
        )
    if canvas.random.random() < 0.4:
        canvas.paint(
            outside & (sag < below - 2) & (sag > below - canvas.uniform(8, 30)), canvas.uniform(-980, -850)
        )


def finish(canvas: Canvas) -> None:
    """Blur of the scanner, noise, and the scanner's round field of view."""
    blurred = ndimage.gaussian_filter(canvas.hu, canvas.uniform(0.2, 0.6))
    noise = canvas.random.standard_normal(canvas.shape).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, canvas.uniform(0.0, 0.6))
    blurred += noise / max(float(noise.std()), 1e-6) * canvas.uniform(3, 60)
    canvas.hu = np.maximum(blurred, -1024).astype(np.float32)
    if canvas.random.random() < 0.3:
        outside = np.hypot(canvas.flat_y, canvas.flat_x) > canvas.uniform(135, 200)
        canvas.paint(outside, float(canvas.random.choice([-1000, -1024, -2000, -3024])), BACKGROUND)
