"""Batches of pictures on the device: drawn, turned round, and worsened as pictures of other worlds are.

Everything of step k is drawn from (seed, k), so a run that goes on after a stop sees what it would have seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from vipocc.apps.embedded.pictures import Pictures

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Batch(NamedTuple):
    """B pictures on the device; fields as in `Pictures`."""

    image: torch.Tensor
    """float32 [B, 3, H, W] in [0, 1]."""
    depth: torch.Tensor
    """float32 [B, H, W]."""
    thing: torch.Tensor
    """uint8 [B, H, W]."""
    kind: torch.Tensor
    """int64 [B, MOST]."""
    box: torch.Tensor
    """float32 [B, MOST, 4]."""
    area: torch.Tensor
    """int64 [B, MOST]."""


class Batches:
    """Draws batches from pictures that lie on the device as a whole."""

    def __init__(self, pictures: Pictures, size: int, seed: int, device: str) -> None:
        self.size, self.seed, self.device = size, seed, torch.device(device)
        self._held = [torch.from_numpy(np.ascontiguousarray(column)).to(self.device) for column in pictures]

    def __len__(self) -> int:
        return len(self._held[0])

    def draw(self, step: int, *, worsen: bool = True) -> tuple[Batch, torch.Generator]:
        """Return the batch of a step and a generator (on the CPU) for what else is drawn in it."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = torch.randint(len(self), (self.size,), generator=generator).to(self.device)
        image, depth, thing, kind, box, area = (column[rows] for column in self._held)
        batch = Batch(image.permute(0, 3, 1, 2).float() / 255, depth.float(), thing, kind.long(), box, area.long())
        batch = _turned(batch, torch.rand(self.size, generator=generator) < 0.5)
        if worsen:
            batch = batch._replace(image=_coarser(_relit(batch.image, generator), generator))
        return batch, generator


def _turned(batch: Batch, turn: torch.Tensor) -> Batch:
    """Mirror the pictures of which `turn` [B] is true."""
    turn = turn.to(batch.image.device)
    width = batch.image.shape[-1]

    def choose(turned: torch.Tensor, as_is: torch.Tensor) -> torch.Tensor:
        return torch.where(turn.view(-1, *(1,) * (as_is.ndim - 1)), turned, as_is)

    mirrored = torch.stack(
        [width - batch.box[..., 2], batch.box[..., 1], width - batch.box[..., 0], batch.box[..., 3]], -1
    )
    there = (batch.area > 0)[..., None]
    return batch._replace(
        image=choose(batch.image.flip(-1), batch.image),
        depth=choose(batch.depth.flip(-1), batch.depth),
        thing=choose(batch.thing.flip(-1), batch.thing),
        box=choose(torch.where(there, mirrored, batch.box), batch.box),
    )


def _relit(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change brightness, contrast, gamma, the tint and the saturation of each picture a little."""
    count = len(image)

    def draw(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return (low + (high - low) * torch.rand(count, channels, 1, 1, generator=generator)).to(image.device)

    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * draw(0.5, 1.4)
    image = image * draw(0.92, 1.08, 3) * draw(0.75, 1.25)
    middle = image.mean((1, 2, 3), keepdim=True)
    image = middle + (image - middle) * draw(0.75, 1.25)
    return image.clamp(1e-3, 1).pow(draw(0.8, 1.25)).clamp(0, 1)


def _coarser(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Take detail from the whole batch on some steps: worlds and demos have smaller pictures, which go in enlarged."""
    luck = float(torch.rand((), generator=generator))
    size = image.shape[-2:]
    if luck < 0.3:  # as the demo's 96x320
        small = functional.avg_pool2d(image, 2)
    elif luck < 0.6:
        scale = 0.35 + 0.6 * float(torch.rand((), generator=generator))
        small = functional.interpolate(image, scale_factor=scale, mode="bilinear", antialias=True)
    else:
        return image
    return functional.interpolate(small, size, mode="bilinear", align_corners=False)


def normalised(image: torch.Tensor) -> torch.Tensor:
    """Return images [B, 3, H, W] in [0, 1] with ImageNet's mean and spread taken out."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=image.device)[:, None, None]
    return (image - mean) / std
