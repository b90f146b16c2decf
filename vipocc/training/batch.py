"""A batch on the trainer's device: conversion from stored types, mirroring and colour variation.

Stored types travel (uint8 colours, float16 depth); everything is converted and augmented on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

MAP = "map/"
"""What the names of per-pixel maps begin with in a collated batch."""


@dataclass(frozen=True)
class Batch:
    """Samples of one optimisation step. B samples, V views, L loss views, K render views, P patches."""

    images: Tensor
    """[B, V, 3, H, W] colours in 0..1; view 0 is the key image, view 1 the key camera at t + 1."""
    intrinsics: Tensor
    """[B, V, 3, 3] normalised intrinsics."""
    key_from_view: Tensor
    """[B, V, 4, 4] rigid transforms in metres."""
    render_views: Tensor
    """[B, K] views that colours are taken from."""
    centres: Tensor
    """[B, P, 2] centres (x, y) of the colour patches."""
    patch_views: Tensor
    """[B, P] loss view of each colour patch."""
    depth_centres: Tensor
    """[B, P', 2] centres of the depth patches, all in view 0."""
    mirrored: Tensor
    """[B] which samples the flip coin chose."""
    prior_depth: Tensor | None
    """[B, 2, H, W] pseudo-depth in metres of views 0 and 1, missing = NaN; None where no loss needs it."""
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """By name, [B, C, H', W'] per-pixel maps of view 0 that the density head asks for, in the type they are stored."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[-2], self.images.shape[-1]


def to_batch(raw: Mapping[str, Tensor], device: torch.device) -> Batch:
    """Return a collated batch of samples (`vipocc.training.samples`) as tensors on `device`."""

    def moved(name: str) -> Tensor:
        return raw[name].to(device, non_blocking=True)

    images = moved("images").permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
    prior = moved("prior_depth").float() if "prior_depth" in raw else None
    return Batch(
        images=images,
        intrinsics=moved("intrinsics"),
        key_from_view=moved("key_from_view"),
        render_views=moved("render_views"),
        centres=moved("centres").long(),
        patch_views=moved("patch_views"),
        depth_centres=moved("depth_centres").long(),
        mirrored=moved("flip"),
        prior_depth=prior,
        maps={name.removeprefix(MAP): _channels_first(moved(name)) for name in raw if name.startswith(MAP)},
    )


def _channels_first(stored: Tensor) -> Tensor:
    """Return a map [B, H, W] or [B, H, W, C] as [B, C, H, W]."""
    return stored[:, None] if stored.ndim == 3 else stored.permute(0, 3, 1, 2)


def share_choices(batch: Batch) -> Batch:
    """Return the batch with the patches, view split and flip of its first sample in all samples (released code)."""

    def first(values: Tensor) -> Tensor:
        return values[:1].expand_as(values)

    return replace(
        batch,
        render_views=first(batch.render_views),
        centres=first(batch.centres),
        patch_views=first(batch.patch_views),
        depth_centres=first(batch.depth_centres),
        mirrored=first(batch.mirrored),
    )


def mirror(batch: Batch) -> Batch:
    """Return the batch with the chosen samples seen in a mirror: images, calibration, patches and priors alike.

    A scene mirrored in the plane x = 0 of the key camera. With S = diag(-1, 1, 1), a pose [R, t] becomes S [R, t] S,
    the principal point changes its sign in normalised coordinates, and the patch that covered columns c - s/2 to
    c + s/2 - 1 covers their mirror images around the centre W - c.
    """
    chosen, width = batch.mirrored, batch.images.shape[-1]
    sign = torch.tensor([-1.0, 1.0, 1.0, 1.0], device=batch.images.device)
    poses = batch.key_from_view * sign[:, None] * sign
    centre_sign = torch.ones(3, 3, device=batch.images.device)
    centre_sign[0, 1:] = -1.0

    def pick(mirrored: Tensor, straight: Tensor) -> Tensor:
        return torch.where(chosen.reshape(-1, *[1] * (straight.ndim - 1)), mirrored, straight)

    def centres(straight: Tensor) -> Tensor:
        return pick(torch.stack([width - straight[..., 0], straight[..., 1]], dim=-1), straight)

    return replace(
        batch,
        images=pick(batch.images.flip(-1), batch.images),
        intrinsics=pick(batch.intrinsics * centre_sign, batch.intrinsics),
        key_from_view=pick(poses, batch.key_from_view),
        centres=centres(batch.centres),
        depth_centres=centres(batch.depth_centres),
        prior_depth=None if batch.prior_depth is None else pick(batch.prior_depth.flip(-1), batch.prior_depth),
        maps={name: pick(stored.flip(-1), stored) for name, stored in batch.maps.items()},
    )


def vary_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Return images [B, V, 3, H, W] with brightness, contrast, saturation and hue changed, alike in a sample's views.

    Args:
        images: colours in 0..1.
        factors: [B, 8] on the CPU: the four changes (factors around 1, the hue as a shift in turns), then the order in
            which they are applied, as numbers 0 to 3.
    """
    from torchvision.transforms.v2 import functional

    operations = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    varied = []
    for sample, values in zip(images, factors.tolist(), strict=True):
        for operation in (int(number) for number in values[4:]):
            sample = operations[operation](sample, values[operation])
        varied.append(sample)
    return torch.stack(varied)
