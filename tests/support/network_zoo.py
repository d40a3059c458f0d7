"""Networks of the kinds that people bring, with random weights, as ONNX files. Run by the import environment's Python.

    python -m tests.support.network_zoo FOLDER

Writes NAME.onnx and NAME.npz (what went in, what PyTorch answered) for each of `NETWORKS` to FOLDER.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks import nets
from monai.networks.nets import vista3d
from torch import nn

from engines.importing import onnx_export

CUBE = (1, 1, 32, 32, 32)


class PairedAttention(nn.Module):
    """Efficient paired attention (Shaker et al., UNETR++, IEEE TMI 2024): one pair of queries and keys, two attentions.

    Over the channels, and over places whose keys and values are projected to a few tokens.
    """

    def __init__(self, channels: int, places: int, *, tokens: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.keys, self.by_place, self.by_channel = (
            nn.Linear(channels, channels) for _ in range(4)
        )
        self.project = nn.Linear(places, tokens)
        self.temperature = nn.Parameter(torch.ones(2, heads, 1, 1))
        self.out_place, self.out_channel = (nn.Linear(channels, channels // 2) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, places, channels = x.shape

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.reshape(batch, places, self.heads, -1).permute(0, 2, 3, 1)

        queries, keys = split(self.queries(x)), split(self.keys(x))
        queries, keys = (nn.functional.normalize(one, dim=-1) for one in (queries, keys))
        channel = (queries @ keys.transpose(-2, -1) * self.temperature[0]).softmax(dim=-1) @ split(
            self.by_channel(x)
        )
        few = queries.transpose(-2, -1) @ self.project(keys) * self.temperature[1]
        place = few.softmax(dim=-1) @ self.project(split(self.by_place(x))).transpose(-2, -1)
        whole = channel.permute(0, 3, 1, 2).reshape(batch, places, channels)
        return torch.cat(
            [
                self.out_place(place.permute(0, 2, 1, 3).reshape(batch, places, channels)),
                self.out_channel(whole),
            ],
            dim=-1,
        )


class PairedUNETR(nn.Module):
    """A small U of paired attention and convolutions, as UNETR++ has them at each level."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 16, 4, 4), nn.GroupNorm(1, 16))
        self.position = nn.Parameter(torch.randn(1, 512, 16) * 0.1)
        self.norm, self.attention = nn.LayerNorm(16), PairedAttention(16, 512)
        self.gamma = nn.Parameter(torch.full((16,), 0.5))
        self.block = nn.Sequential(nn.Conv3d(16, 16, 3, padding=1), nn.InstanceNorm3d(16), nn.LeakyReLU(0.01))
        self.up = nn.ConvTranspose3d(16, 8, 4, 4)
        self.skip, self.out = nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        deep = self.stem(image)
        flat = deep.flatten(2).transpose(1, 2) + self.position
        flat = flat + self.gamma * self.attention(self.norm(flat))
        deep = deep + self.block(flat.transpose(1, 2).reshape(deep.shape))
        return self.out(torch.relu(self.up(deep) + self.skip(image)))


class Retina(nn.Module):
    """A one-stage detector (Lin et al., RetinaNet, ICCV 2017); its anchors are decoded in the graph."""

    def __init__(self, classes: int, size: int, step: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )  # fmt: skip
        self.ratios = (0.5, 1.0, 2.0)
        self.scores = nn.Conv2d(32, classes * len(self.ratios), 3, padding=1)
        self.deltas = nn.Conv2d(32, 4 * len(self.ratios), 3, padding=1)
        self.classes = classes
        centres = (torch.arange(size // step) + 0.5) * step
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        shapes = torch.tensor([[16 * ratio**0.5, 16 / ratio**0.5] for ratio in self.ratios])
        places = torch.stack([x, y], dim=-1).reshape(-1, 1, 2).expand(-1, len(self.ratios), 2)
        anchors = torch.cat([places, shapes.expand(len(places), -1, 2)], dim=-1).reshape(-1, 4)
        self.register_buffer("anchors", anchors)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(image)
        deltas = self.deltas(features)[0].permute(1, 2, 0).reshape(-1, 4)
        scores = self.scores(features)[0].permute(1, 2, 0).reshape(-1, self.classes).sigmoid()
        centre = self.anchors[:, :2] + deltas[:, :2] * self.anchors[:, 2:]
        half = self.anchors[:, 2:] * torch.exp(deltas[:, 2:].clamp(max=4)) / 2
        return torch.cat([centre - half, centre + half], dim=1), scores


class Prompted(nn.Module):
    """VISTA3D with its class prompts fixed, so that each has its channel."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        encoder = nets.SegResNetDS2(
            in_channels=1, blocks_down=(1, 2, 2), norm="instance", out_channels=16, init_filters=16, dsdepth=1
        )
        self.network = vista3d.VISTA3D(
            image_encoder=encoder,
            class_head=vista3d.ClassMappingClassify(n_classes=32, feature_size=16, use_mlp=True),
            point_head=vista3d.PointMappingSAM(feature_size=16, n_classes=32, last_supported=20),
        )
        self.register_buffer("prompts", torch.arange(1, classes + 1)[:, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image, class_vector=self.prompts).transpose(0, 1)


#: By name: the network, the shape of its input, and the names of its outputs where there are several.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "segresnet": (lambda: nets.SegResNet(init_filters=8, out_channels=3, blocks_down=(1, 2, 2), blocks_up=(1, 1)), CUBE, ()),
    "segresnet-ds": (lambda: nets.SegResNetDS(init_filters=8, out_channels=3, blocks_down=(1, 2, 2), dsdepth=2), CUBE, ()),
    "dynunet": (lambda: nets.DynUNet(3, 1, 3, (3, 3, 3), (1, 2, 2), (2, 2), filters=(8, 16, 32), deep_supervision=True), CUBE, ()),
    "unetr": (lambda: nets.UNETR(1, 3, CUBE[2:], feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4), CUBE, ()),
    "swin-unetr": (lambda: nets.SwinUNETR(1, 3, depths=(1, 1, 1, 1), feature_size=12), (1, 1, 64, 32, 32), ()),
    "unetr-plus-plus": (lambda: PairedUNETR(3), CUBE, ()),
    "vista3d": (lambda: Prompted(3), CUBE, ()),
    "densenet-chest-xray": (lambda: nets.DenseNet121(2, 1, 14), (1, 1, 64, 64), ()),
    "retinanet": (lambda: Retina(3, 64), (1, 1, 64, 64), ("boxes", "scores")),
    "image-to-image": (lambda: nets.UNet(3, 1, 1, (8, 16, 32), (2, 2), num_res_units=2, norm="batch"), CUBE, ()),
}  # fmt: skip


def main() -> None:
    """Write all of them."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for name, (build, shape, outputs) in NETWORKS.items():
        torch.manual_seed(0)
        network = build().eval()
        content, _ = onnx_export.export(
            network, {"image": shape}, output_name="pred", outputs=outputs, where=name
        )
        (folder / f"{name}.onnx").write_bytes(content)
        image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            answers = network(image)
        np.savez(folder / f"{name}.npz", image=image.numpy(), **_named(answers, outputs))


def _named(answers: Any, outputs: tuple[str, ...]) -> dict[str, Any]:
    """PyTorch's answers by the names of the graph's outputs."""
    if outputs:
        return {key: answer.numpy() for key, answer in zip(outputs, answers, strict=True)}
    while isinstance(answers, list | tuple):
        answers = answers[0]
    return {"pred": answers.numpy()}


if __name__ == "__main__":
    main()
