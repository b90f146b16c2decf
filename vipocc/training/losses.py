"""The training losses, as plain functions on plain tensors (paper 3.5; published_system 5).

Means over pixels or rays come as `Mean(total, count)`, so that counts of several micro-batches or ranks can be added
before one divides. All of it is float32: call it outside autocast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from vipocc.geometry.ndc import Convention
from vipocc.geometry.warping import warp, warp_official

SSIM_SHARE = 0.85
"""Share of the structural part in the photometric error (beta_1 of Eq. 11)."""
L1_SHARE = 0.15
"""Share of the absolute part (beta_2)."""
INVALID_WEIGHT = 0.9
"""A ray is invalid if in every render view more than this share of its weight is unseen."""
OFFICIAL_MIN_ELEMENTS = 10_000
"""The released masked mean is a constant 0 over no more elements than this."""

_SSIM_WINDOW = ((0.0947, 0.1183, 0.0947), (0.1183, 0.1478, 0.1183), (0.0947, 0.1183, 0.0947))
_C1, _C2 = 1e-4, 9e-4
_WHOLLY_KNOWN = 0.999


@dataclass(frozen=True)
class Mean:
    """A mean in two parts, so that parts of several batches can be added before one divides."""

    total: Tensor
    """Sum of what is averaged, 0-dimensional, with gradient."""
    count: Tensor
    """How many entries it sums, 0-dimensional, without."""

    @property
    def value(self) -> Tensor:
        """The mean; 0 where there is nothing to average."""
        return self.total / self.count.clamp_min(1.0)


@dataclass(frozen=True)
class Temporal:
    """The parts of the temporal alignment loss."""

    loss: Tensor
    """What is minimised, 0-dimensional."""
    photometric: Mean
    """Weighted colour difference over valid pixels and channels."""
    geometry: Mean
    """Relative difference of warped and predicted depth over valid pixels; part of `loss` only in `official`."""


def masked_mean(values: Tensor, valid: Tensor) -> Mean:
    """Sum and count of `values` where `valid`; both are broadcast to one shape. Elsewhere values get no gradient."""
    values, valid = torch.broadcast_tensors(values, valid)
    return Mean(torch.where(valid, values, torch.zeros_like(values)).sum(), valid.sum().to(values.dtype))


def ssim_error(a: Tensor, b: Tensor) -> Tensor:
    """Structural dissimilarity clamp(1 - SSIM, 0, 1)/2 per pixel and channel: [N, C, h, w] twice -> the same shape.

    3x3 window of published_system 5.1 (sum 0.9998) over a border of zeros; variances are not clamped.
    """
    channels = a.shape[1]
    window = a.new_tensor(_SSIM_WINDOW)
    count = a.shape[0]
    # The five local moments share one convolution.
    stacked = torch.cat([a, b, a * a, b * b, a * b]).reshape(-1, 1, *a.shape[-2:])
    moments = functional.conv2d(stacked, window[None, None], padding=1)
    mean_a, mean_b, square_a, square_b, product = moments.reshape(5, count, channels, *a.shape[-2:])
    variance_a, variance_b = square_a - mean_a * mean_a, square_b - mean_b * mean_b
    covariance = product - mean_a * mean_b
    similarity = ((2.0 * mean_a * mean_b + _C1) * (2.0 * covariance + _C2)) / (
        (mean_a * mean_a + mean_b * mean_b + _C1) * (variance_a + variance_b + _C2)
    )
    error: Tensor = (1.0 - similarity).clamp(0.0, 1.0) / 2.0
    return error


def colour_error(rendered: Tensor, target: Tensor) -> Tensor:
    """Photometric error of rendered patches, the smallest over the render views (Eq. 11, golden vector G3).

    rendered [..., h, w, V, 3] and target [..., h, w, 3] in [0, 1] -> [..., h, w].
    """
    height, width, views, channels = rendered.shape[-4:]
    predicted = rendered.reshape(-1, height, width, views, channels).permute(0, 3, 4, 1, 2).flatten(0, 1)
    wanted = target.reshape(-1, 1, height, width, channels).permute(0, 1, 4, 2, 3)
    wanted = wanted.expand(-1, views, -1, -1, -1).flatten(0, 1)
    error = SSIM_SHARE * ssim_error(predicted, wanted).mean(dim=1) + L1_SHARE * (predicted - wanted).abs().mean(dim=1)
    return error.reshape(-1, views, height, width).amin(dim=1).reshape(rendered.shape[:-2])


def invalid_rays(
    weights: Tensor, invalid: Tensor, policy: Literal["weight_guided", "strict", "none"] = "weight_guided"
) -> Tensor:
    """Which rays carry no photometric error, bool [...].

    weights [..., S] of the samples, invalid bool [..., S, V]. `weight_guided`: in every view more than 0.9 of the
    weight lies on samples that are not seen; `strict`: in every view at least one sample is not seen.
    """
    if policy == "none":
        return torch.zeros(weights.shape[:-1], dtype=torch.bool, device=weights.device)
    if policy == "strict":
        return invalid.any(dim=-2).all(dim=-1)
    unseen = (weights.detach()[..., None] * invalid).sum(dim=-2)
    return (unseen > INVALID_WEIGHT).all(dim=-1)


def colour_loss(error: Tensor, invalid: Tensor, average: Literal["valid", "all"] = "valid") -> Mean:
    """Mean of `error` [...] over the rays that are not `invalid`, or (released code) over all, invalid ones as 0."""
    mean = masked_mean(error, ~invalid)
    return mean if average == "valid" else Mean(mean.total, torch.full_like(mean.count, error.numel()))


def depth_consistency(distance: Tensor, factor: Tensor, refined: Tensor) -> Mean:
    """Absolute difference of rendered and refined depth in metres (Eq. 10).

    distance [...] rendered along the rays, factor [...] their depth per distance (`geometry.ndc.depth_factor`), and
    refined [...] the depth branch's at their pixels. Both sides get gradient; pixels without a finite refined depth
    (no prior) are left out.
    """
    known = torch.isfinite(refined)
    return masked_mean((torch.where(known, refined, torch.ones_like(refined)) - distance * factor).abs(), known)


def temporal_loss(
    target: Tensor,
    reference: Tensor,
    depth_target: Tensor,
    depth_reference: Tensor,
    intrinsics_ndc: Tensor,
    reference_from_target: Tensor,
    convention: Convention = "centre",
) -> Temporal:
    """Temporal alignment (Eq. 9): |I_t - warped I_t+1| weighted by M, over points seen by the reference.

    target, reference [B, 3, H, W] images in [-1, 1] (the range the released loss weights are meant for); both depths
    [B, 1, H, W] metres; intrinsics_ndc [B, 3, 3]; reference_from_target [B, 4, 4].

    M = 1 - |z - D_r|/(z + D_r) is SC-SfMLearner's weight mask. It is a constant to the gradient: without a geometry
    term beside it, depths that disagree would else lower the loss.
    """
    known = torch.isfinite(depth_target)
    depth = torch.where(known, depth_target, torch.ones_like(depth_target))
    # Missing depths travel as a channel of their own: a NaN in the lookup would reach the gradient of its place.
    other = depth_reference.detach()
    known_other = torch.isfinite(other)
    other = torch.where(known_other, other, torch.ones_like(other))
    stacked = torch.cat([reference, other, known_other.to(reference.dtype)], dim=1)
    warped = warp(stacked, depth, intrinsics_ndc, reference_from_target, convention)
    image, sampled, share_known = warped.image[:, :3], warped.image[:, 3:4].detach(), warped.image[:, 4:].detach()
    valid = warped.valid & known & (share_known > _WHOLLY_KNOWN)
    computed = warped.depth.detach()
    difference = torch.where(valid, (computed - sampled).abs() / (computed + sampled), torch.zeros_like(sampled))
    photometric = masked_mean((1.0 - difference) * (target - image).abs(), valid)
    return Temporal(photometric.value, photometric, masked_mean(difference, valid))


def temporal_loss_official(
    target: Tensor,
    reference: Tensor,
    depth_target: Tensor,
    depth_reference: Tensor,
    intrinsics_ndc: Tensor,
    reference_from_target: Tensor,
) -> Temporal:
    """Temporal alignment as released (published_system 5.3, golden vector G6); arguments as `temporal_loss`.

    Adds the geometry term, clamps both differences to 1, keeps the gradient of the weight mask, does not test for
    points behind the reference, and drops a term that has no more than 10,000 valid elements in the batch.
    """
    warped = warp_official(reference, depth_target, depth_reference, intrinsics_ndc, reference_from_target)
    computed, sampled = warped.computed_depth, warped.sampled_depth
    colour = (target - warped.image).abs().clamp(0.0, 1.0)
    difference = ((computed - sampled).abs() / (computed + sampled)).clamp(0.0, 1.0)
    photometric = masked_mean((1.0 - difference) * colour, warped.valid)
    geometry = masked_mean(difference, warped.valid)
    return Temporal(official_value(photometric) + official_value(geometry), photometric, geometry)


def official_value(mean: Mean) -> Tensor:
    """Return the released masked mean: a constant 0 over no more than 10,000 valid entries."""
    # Selected on the device, so that the rule costs no synchronisation; the unselected branch gets zero gradient.
    return torch.where(mean.count > OFFICIAL_MIN_ELEMENTS, mean.value, torch.zeros_like(mean.total))


def total(
    colour: Tensor,
    depth: Tensor | None = None,
    temporal: Tensor | None = None,
    *,
    weights: tuple[float, float, float] = (1.0, 0.0025, 0.005),
) -> Tensor:
    """Weighted sum of the colour, depth and temporal losses; `weights` in that order (golden vector G11)."""
    loss = weights[0] * colour
    if depth is not None:
        loss = loss + weights[1] * depth
    if temporal is not None:
        loss = loss + weights[2] * temporal
    return loss
