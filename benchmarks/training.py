"""A network trained for a minute on one CT: its classes keep apart, as those of a real model do.

With random weights the best two of many classes are close together nearly everywhere, and what is compared is how two
programs round. The labels to learn are bands of smoothed Hounsfield units, of which every class has some voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

#: How far values are smoothed, in voxels: edges of organs, not noise, are learnt.
SMOOTHING = 1.5


def bands(values: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """The labels of an image whose values were brought to one scale: bands of equal width, 0 the darkest."""
    smooth = ndimage.gaussian_filter(values.astype(np.float32), SMOOTHING)
    edges = np.linspace(smooth.min(), smooth.max(), classes + 1)[1:-1]
    return np.digitize(smooth, edges)


def fit(
    network: torch.nn.Module, values: NDArray[Any], classes: int, *, steps: int, patch: int = 48
) -> float:
    """Train in place on cubes of (slices, rows, columns); the mean loss of the last tenth."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    labels = bands(values, classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    network.train()
    for _ in range(steps):
        corner = [int(rng.integers(0, length - patch + 1)) for length in values.shape]
        cube = tuple(slice(first, first + patch) for first in corner)
        answer = network(torch.from_numpy(values[cube].astype(np.float32))[None, None])
        loss = torch.nn.functional.cross_entropy(answer, torch.from_numpy(labels[cube])[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss))
    network.eval()
    return float(np.mean(losses[-max(1, steps // 10) :]))
