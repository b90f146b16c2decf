"""Small models that the tests of this folder share."""

from __future__ import annotations

import torch
from torch import Tensor

from vipocc.model.config import (
    DecoderConfig,
    DepthBranchConfig,
    EncoderConfig,
    FieldConfig,
    ModelConfig,
    RendererConfig,
)
from vipocc.model.renderer import ColourViews, Rays

NARROW = EncoderConfig(name="resnet18", width=0.25, pretrained="none")
SMALL = ModelConfig(
    encoder=NARROW,
    decoder=DecoderConfig(widths=(8, 8, 16, 16, 32), channels=16),
    field=FieldConfig(hidden=16),
    depth_branch=DepthBranchConfig(encoder=NARROW, widths=(8, 8, 16, 16, 32), channels=16),
    renderer=RendererConfig(samples=16),
)


def intrinsics(batch: int = 2) -> Tensor:
    """KITTI-360's, normalised."""
    matrix = torch.tensor([[0.7849, 0.0, -0.0312], [0.0, 2.9391, 0.2701], [0.0, 0.0, 1.0]])
    return matrix.repeat(batch, 1, 1)


def directions(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """Unit vectors that point forward, some of them outside the image."""
    some = torch.randn(batch, count, 3, generator=generator) * torch.tensor([1.0, 0.4, 0.0])
    some[..., 2] = 1.0
    return some / some.norm(dim=-1, keepdim=True)


def rays(batch: int = 2, count: int = 30, seed: int = 0, *, central: bool = False) -> Rays:
    generator = torch.Generator().manual_seed(seed)
    unit = directions(batch, count, generator)
    return Rays(torch.zeros_like(unit), unit, central=central)


def views(batch: int = 2, number: int = 3, seed: int = 0) -> ColourViews:
    generator = torch.Generator().manual_seed(seed)
    poses = torch.eye(4).repeat(batch, number, 1, 1)
    poses[..., :3, 3] = torch.randn(batch, number, 3, generator=generator)
    images = torch.rand(batch, number, 3, 64, 96, generator=generator)
    return ColourViews(images, intrinsics(batch)[:, None].repeat(1, number, 1, 1), poses)
