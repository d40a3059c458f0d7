"""A small 3D U-Net: five resolutions, half a million weights."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Channels per resolution, finest first.
WIDTHS = (8, 16, 32, 48, 64)


def block(inward: int, outward: int) -> nn.Sequential:
    """Two 3x3x3 convolutions; batch normalisation folds into them when the network is exported."""
    layers: list[nn.Module] = []
    for channels in (inward, outward):
        layers += [
            nn.Conv3d(channels, outward, 3, padding=1, bias=False),
            nn.BatchNorm3d(outward),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """(batch, 1, slices, rows, columns) in [0, 1] to logits (batch, classes, slices, rows, columns).

    Slices, rows and columns must be multiples of 16.
    """

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.down = nn.ModuleList(block(i, o) for i, o in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True))
        self.narrow = nn.ModuleList(nn.Conv3d(i, o, 1) for o, i in pairwise(WIDTHS))
        self.up = nn.ModuleList(block(2 * width, width) for width in WIDTHS[:-1])
        self.head = nn.Conv3d(WIDTHS[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The logits."""
        skips: list[Tensor] = []
        x = image
        for level, down in enumerate(self.down):
            x = down(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        for level in range(len(WIDTHS) - 2, -1, -1):
            x = functional.interpolate(self.narrow[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat([x, skips[level]], dim=1))
        return cast(Tensor, self.head(x))
