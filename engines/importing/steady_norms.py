"""Normalisations in a form that every runtime computes alike: their sums are made of the sums of slices.

OpenVINO adds the half million voxels of a window up one by one in float32 and loses three digits; a network of twenty
such layers then answers otherwise than PyTorch where two classes are close together.
"""

from __future__ import annotations

from typing import Any

import torch


class SteadyNorm(torch.nn.Module):  # type: ignore[misc]
    """What an instance or group normalisation computes."""

    def __init__(self, norm: Any, groups: int | None = None) -> None:
        super().__init__()
        self.norm = norm
        #: How many groups of channels there are, None where each channel is one of its own.
        self.groups = groups

    def forward(self, image: torch.Tensor) -> Any:
        inner = tuple(range(3, image.dim()))
        if not inner:
            return self.norm(image)
        share = (self.groups or image.shape[1]) / image[0].numel()
        # Lengths (ReduceL2) between the two sums keep a runtime from taking them together again.
        lengths = torch.linalg.vector_norm(image, 2, inner, keepdim=True)
        mean = self._of_groups(torch.sum(image, inner, keepdim=True) * share)
        variance = self._of_groups(lengths * lengths * share) - mean * mean
        scale = 1.0 / torch.sqrt(variance + self.norm.eps)
        if self.norm.weight is None:
            return image * scale - mean * scale
        form = (1, -1, *[1] * (image.dim() - 2))
        scale = self.norm.weight.view(form) * scale
        return image * scale + (self.norm.bias.view(form) - mean * scale)

    def _of_groups(self, sums: torch.Tensor) -> torch.Tensor:
        """Those of slices added up, for each channel what its group has."""
        totals = sums.sum(2, keepdim=True)
        if self.groups is None:
            return totals
        channels = totals.shape[1]
        grouped = totals.reshape(-1, self.groups, channels // self.groups).sum(2, keepdim=True)
        return grouped.expand(-1, -1, channels // self.groups).reshape(totals.shape)


def steady(network: torch.nn.Module) -> torch.nn.Module:
    """The network with its normalisations replaced in place."""
    for name, part in network.named_children():
        if (made := _steady(part)) is not None:
            setattr(network, name, made)
        elif not isinstance(part, SteadyNorm):
            # A decoder may hold its encoder too, so that a part is met twice.
            steady(part)
    return network


def _steady(part: torch.nn.Module) -> SteadyNorm | None:
    """A normalisation's other form; None for what is none, or answers by what it met in training."""
    if isinstance(part, torch.nn.GroupNorm):
        return SteadyNorm(part, part.num_groups)
    instance = isinstance(part, torch.nn.InstanceNorm2d | torch.nn.InstanceNorm3d)
    return SteadyNorm(part) if instance and not part.track_running_stats else None
