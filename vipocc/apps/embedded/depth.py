"""Training of the embedded Depth Anything: depth in logarithms, and its edges."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from vipocc.apps.embedded.architectures import DEPTH_SIZE, MAX_DEPTH
from vipocc.apps.embedded.batches import Batch, normalised

SCALES = 4
_EDGES = 0.5
_SKY = 0.1


def depth_input(image: torch.Tensor) -> torch.Tensor:
    """Return images [B, 3, H, W] in [0, 1] as the network gets them: cubic to 196x644, normalised."""
    enlarged = functional.interpolate(image, DEPTH_SIZE, mode="bicubic", align_corners=False, antialias=True)
    return normalised(enlarged)


def depth_loss(predicted: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Return the loss of predicted against true depth, both [B, h, w] in metres, the truth infinite in the sky.

    The mean absolute difference of logarithms, which is about the relative error; the sky counts a tenth, at the
    network's largest depth. Added is the difference of their slopes at four scales (as in MegaDepth's gradient term).
    """
    sky = ~(depth < MAX_DEPTH)
    wanted = torch.where(sky, torch.full_like(depth, float(MAX_DEPTH)), depth).clamp_min(0.1)
    wrong = predicted.clamp_min(1e-3).log() - wanted.log()
    weight = torch.where(sky, torch.full_like(depth, _SKY), torch.ones_like(depth))
    loss = (wrong.abs() * weight).sum() / weight.sum()
    seen = ~sky
    for _ in range(SCALES):
        for axis in (-1, -2):
            both = seen.narrow(axis, 1, seen.shape[axis] - 1) & seen.narrow(axis, 0, seen.shape[axis] - 1)
            slope = wrong.diff(dim=axis).abs() * both
            loss = loss + _EDGES / SCALES * slope.sum() / both.sum().clamp_min(1)
        wrong, seen = wrong[:, ::2, ::2], seen[:, ::2, ::2]
    return loss


class DepthTask:
    """See `training.Task`."""

    def __init__(self, network: Any, device: str) -> None:
        self.network = network.to(device)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return the loss of a batch."""
        predicted = self.network(pixel_values=depth_input(batch.image)).predicted_depth
        truth = functional.interpolate(batch.depth[:, None], DEPTH_SIZE, mode="nearest-exact")[:, 0]
        return {"loss": depth_loss(predicted, truth)}
