"""A batch on the trainer's device: conversion from stored types, mirroring and colour variation.

Stored types travel (uint8 colours, float16 depth); everything is converted and augmented on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vipocc.model.heads.interface import channels_first

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

    # One pass from bytes to floats, which stay in the order they come in: the channels of a pixel side by side, as
    # convolutions in channels-last memory and the sampling of single pixels like them.
    images = moved("images").permute(0, 1, 4, 2, 3) / 255.0
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
        maps={name.removeprefix(MAP): channels_first(moved(name)) for name in raw if name.startswith(MAP)},
    )


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
    # Filled there: a constant brought from the host would make it wait, and cannot be part of a CUDA graph.
    sign = torch.ones(4, device=batch.images.device)
    sign[0] = -1.0
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


_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _NOTHING = range(5)
_GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in the grey value."""


def vary_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Return images [B, V, 3, H, W] with brightness, contrast, saturation and hue changed, alike in a sample's views.

    All samples at once and without waiting for the device, though each has its own order of the four changes: the
    three that blend with a grey image may come before or after the hue, so three blends are made on either side of it,
    of which those that a sample does not have there change nothing. Values are torchvision's.

    Args:
        images: colours in 0..1.
        factors: [B, 8]: the four changes (factors around 1, the hue as a shift in turns), then the order in which they
            are applied, as numbers 0 to 3.
    """
    factors = factors.to(images.device, non_blocking=True)
    strength, order = factors[:, :4], factors[:, 4:].long()
    hue_at = (order == _HUE).long().argmax(dim=1)
    for step in range(3):
        images = _blend(images, torch.where(step < hue_at, order[:, step], _NOTHING), strength)
    images = _shift_hue(images, strength[:, _HUE])
    for step in range(1, 4):
        images = _blend(images, torch.where(step > hue_at, order[:, step], _NOTHING), strength)
    return images


def _blend(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Return each sample blended with black, with the mean of its grey image or with its grey image, or as it is."""

    def per_sample(values: Tensor) -> Tensor:
        return values[:, None, None, None, None]

    factor = torch.where(operation == _NOTHING, 1.0, strength.gather(1, operation.clamp(max=_HUE)[:, None])[:, 0])
    red, green, blue = images.unbind(dim=-3)
    grey = (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue).unsqueeze(-3)
    mean = grey.mean(dim=(-3, -2, -1), keepdim=True)
    other = torch.where(per_sample(operation == _SATURATION), grey, mean)
    other = torch.where(per_sample((operation == _SATURATION) | (operation == _CONTRAST)), other, 0.0)
    return (per_sample(factor) * images + per_sample(1.0 - factor) * other).clamp(0.0, 1.0)


def _shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Return images whose hue, value and saturation being kept, is turned by `turns` [B] of the circle.

    With h the hue in sixths of the circle, v the largest and c the range of a pixel's channels, a channel of the result
    is v - c clamp(min(k, 4 - k), 0, 1) with k = (n + h) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = images.unbind(dim=-3)
    low, high = torch.aminmax(images, dim=-3)
    chroma = high - low
    # A grey pixel has no hue and, its range being 0, stays what it is whatever stands here.
    divisor = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    hue = hue + 6.0 * turns[:, None, None, None]
    channels = []
    for start in (5.0, 3.0, 1.0):
        place = (hue + start).remainder(6.0)
        channels.append(high - chroma * torch.minimum(place, 4.0 - place).clamp(0.0, 1.0))
    return torch.stack(channels, dim=-3)


def vary_colours_reference(images: Tensor, factors: Tensor) -> Tensor:
    """Return what `vary_colours` does, by torchvision's operations on one sample after the other."""
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
