"""Make the input of models/chest-ct/example: a synthetic chest, small enough to ship.

python make_example.py --out input.npz
secondread models check models/chest-ct --record input.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from canvas import SPACING, Canvas, finish
from phantoms import paint_thorax
from scipy import ndimage

#: Every so many voxels of the phantom along each axis.
STEP = 2


def main() -> None:
    """Paint the chest of a seed and write every second voxel of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("input.npz"))
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    canvas = Canvas(np.random.default_rng(arguments.seed))
    paint_thorax(canvas)
    finish(canvas)
    smooth = ndimage.gaussian_filter(canvas.hu, 0.8)[::STEP, ::STEP, ::STEP]
    # Steps of 8 HU and a window are enough for this model, and pack well.
    voxels = (np.rint(np.clip(smooth, -1024, 500) / 8) * 8).astype(np.int16)
    affine = np.zeros((4, 4))
    # Axes towards head, posterior and left: LPS z, y and x.
    for axis, lps in enumerate((2, 1, 0)):
        affine[lps, axis] = SPACING[axis] * STEP
        affine[lps, 3] = -SPACING[axis] * STEP * voxels.shape[axis] / 2
    affine[3, 3] = 1
    np.savez_compressed(
        arguments.out, **{"image.voxels": voxels, "image.affine": affine, "image.unit": "[hnsf'U]"}
    )
    print(f"{voxels.shape}, {arguments.out.stat().st_size / 1000:.0f} kB in {arguments.out}")


if __name__ == "__main__":
    main()
