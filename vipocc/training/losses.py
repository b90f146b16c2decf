"""The training losses, as plain functions on plain tensors (paper 3.5; published_system 5).

Means over pixels or rays come as `Mean(total, count)`, so that counts of several micro-batches or ranks can be added
before one divides. All of it is float32: call it outside autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from vipocc.geometry.ndc import Convention
from vipocc.geometry.warping import warp, warp_official
from vipocc.training.ssim import ssim_error

SSIM_SHARE = 0.85
"""Share of the structural part in the photometric error (beta_1 of Eq. 11)."""
L1_SHARE = 0.15
"""Share of the absolute part (beta_2)."""
INVALID_WEIGHT = 0.9
"""A ray is invalid if in every render view more than this share of its weight is unseen."""
DIVERSE_DEVIATION = 0.01
"""`weight_guided_diverse`: smallest standard deviation of colours in 0..1 along a ray that tells samples apart."""
OFFICIAL_MIN_ELEMENTS = 10_000
"""The released masked mean is a constant 0 over no more elements than this."""

_WHOLLY_KNOWN = 0.999
_SMALLEST_RANGE = 1e-12

Criterion: TypeAlias = Literal["l1+ssim", "l1", "l2"]
InvalidPolicy: TypeAlias = Literal["weight_guided", "weight_guided_diverse", "strict", "none"]
DepthKind: TypeAlias = Literal["metric", "near", "normalised"]


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


def colour_error(rendered: Tensor, target: Tensor, criterion: Criterion = "l1+ssim") -> Tensor:
    """Photometric error of rendered patches, the smallest over the render views (Eq. 11, golden vector G3).

    rendered [..., h, w, V, 3] and target [..., h, w, 3] in [0, 1] -> [..., h, w].

    criterion: `l1+ssim` is Eq. 11; `l1` and `l2` are the mean absolute and squared difference of the channels.
    """
    height, width, views, channels = rendered.shape[-4:]
    predicted = rendered.reshape(-1, height, width, views, channels).permute(0, 3, 4, 1, 2).flatten(0, 1)
    wanted = target.reshape(-1, 1, height, width, channels).permute(0, 1, 4, 2, 3)
    wanted = wanted.expand(-1, views, -1, -1, -1).flatten(0, 1)
    difference = predicted - wanted
    if criterion == "l2":
        error = difference.square().mean(dim=1)
    elif criterion == "l1":
        error = difference.abs().mean(dim=1)
    else:
        structural = ssim_error(predicted, wanted).mean(dim=1)
        error = SSIM_SHARE * structural + L1_SHARE * difference.abs().mean(dim=1)
    return error.reshape(-1, views, height, width).amin(dim=1).reshape(rendered.shape[:-2])


def invalid_rays(
    weights: Tensor, invalid: Tensor, policy: InvalidPolicy = "weight_guided", samples: Tensor | None = None
) -> Tensor:
    """Which rays carry no photometric error, bool [...] (published_system 5.1, step 4).

    weights [..., S] of the samples, invalid bool [..., S, V]. `weight_guided`: in every view more than 0.9 of the
    weight lies on samples that are not seen; `strict`: in every view at least one sample is not seen.
    `weight_guided_diverse` needs the colours `samples` [..., S, V, 3] that the views show at the samples: as
    `weight_guided`, and a view also does not count where they hardly differ along the ray (their standard deviation,
    with S - 1 in its denominator and averaged over the channels, is below 0.01), since it cannot tell depths apart.

    Raises:
        ValueError: `weight_guided_diverse` without `samples`.
    """
    if policy == "none":
        return torch.zeros(weights.shape[:-1], dtype=torch.bool, device=weights.device)
    if policy == "strict":
        return invalid.any(dim=-2).all(dim=-1)
    blind = (weights.detach()[..., None] * invalid).sum(dim=-2) > INVALID_WEIGHT
    if policy == "weight_guided_diverse":
        if samples is None:
            raise ValueError("weight_guided_diverse needs the colours of the samples")
        blind = blind | (samples.detach().std(dim=-3).mean(dim=-1) < DIVERSE_DEVIATION)
    return blind.all(dim=-1)


def mostly_unseen(unseen: Tensor, policy: InvalidPolicy = "weight_guided") -> Tensor:
    """What `invalid_rays` says by `weight_guided` or `none`, from each view's share of unseen weight [..., V].

    Raises:
        ValueError: the policy looks at single samples.
    """
    if policy == "none":
        return torch.zeros(unseen.shape[:-1], dtype=torch.bool, device=unseen.device)
    if policy != "weight_guided":
        raise ValueError(f"{policy} looks at single samples")
    return (unseen > INVALID_WEIGHT).all(dim=-1)


def colour_loss(error: Tensor, invalid: Tensor, average: Literal["valid", "all"] = "valid") -> Mean:
    """Mean of `error` [...] over the rays that are not `invalid`, or (released code) over all, invalid ones as 0."""
    mean = masked_mean(error, ~invalid)
    return mean if average == "valid" else Mean(mean.total, torch.full_like(mean.count, error.numel()))


def smoothness_map(depth: Tensor, colours: Tensor) -> Tensor:
    """Edge-aware roughness of inverse depth in patches (BTS; published_system 5.4).

    depth [..., h, w] in metres (or distance: what is rendered) and colours [..., h, w, 3] in [0, 1] -> [..., h, w].
    |dx| exp(-mean_c |dI_x|) + |dy| exp(-mean_c |dI_y|), where x is 1/clamp(depth, 1e-3, 80) divided by its mean over
    the patch and d is the difference to the next pixel, 0 in the last column or row.
    """
    inverse = 1.0 / depth.clamp(1e-3, 80.0)
    inverse = inverse / inverse.mean(dim=(-2, -1), keepdim=True)
    along_x = inverse.diff(dim=-1).abs() * torch.exp(-colours.diff(dim=-2).abs().mean(dim=-1))
    along_y = inverse.diff(dim=-2).abs() * torch.exp(-colours.diff(dim=-3).abs().mean(dim=-1))
    return functional.pad(along_x, (0, 1)) + functional.pad(along_y, (0, 0, 0, 1))


def smoothness(depth: Tensor, colours: Tensor, invalid: Tensor, average: Literal["valid", "all"] = "all") -> Mean:
    """Mean of `smoothness_map` over patches, invalid rays [..., h, w] as 0 (BTS) or left out (`average="valid"`)."""
    return colour_loss(smoothness_map(depth, colours), invalid, average)


def smoothness_reference(depth: Tensor, colours: Tensor, invalid: Tensor) -> Tensor:
    """Plain twin of `smoothness` over all rays: one patch, row and column at a time -> 0-dimensional."""
    height, width = depth.shape[-2:]
    patches = (
        depth.reshape(-1, height, width),
        colours.reshape(-1, height, width, 3),
        invalid.reshape(-1, height, width),
    )
    total = depth.new_zeros(())
    for patch, image, left_out in zip(*patches, strict=True):
        inverse = 1.0 / patch.clamp(1e-3, 80.0)
        inverse = inverse / inverse.mean()
        for row in range(height):
            for column in range(width):
                if left_out[row, column]:
                    continue
                for y, x in ((row, column + 1), (row + 1, column)):
                    if y < height and x < width:
                        edge = (image[y, x] - image[row, column]).abs().mean()
                        total = total + (inverse[y, x] - inverse[row, column]).abs() * torch.exp(-edge)
    return total / depth.numel()


def depth_consistency(distance: Tensor, factor: Tensor, refined: Tensor, kind: DepthKind = "metric") -> Mean:
    """Absolute difference of rendered and refined depth (Eq. 10).

    distance [...] rendered along the rays, factor [...] their depth per distance (`geometry.ndc.depth_factor`), and
    refined [...] the depth branch's at their pixels. Both sides get gradient; pixels without a finite refined depth
    (no prior) are left out, no others.

    kind (published_system 5.2, versions 1 to 3): `metric` in metres; `near` weighted by 1 - n(refined), where n maps
    the smallest and the largest value of the whole batch to 0 and 1; `normalised` |n(refined) - n(rendered)|.
    """
    known = torch.isfinite(refined)
    predicted, rendered = torch.where(known, refined, torch.ones_like(refined)), distance * factor
    if kind == "normalised":
        return masked_mean((_spread(predicted, known) - _spread(rendered, known)).abs(), known)
    difference = (predicted - rendered).abs()
    if kind == "near":
        difference = difference * (1.0 - _spread(predicted, known))
    return masked_mean(difference, known)


def _spread(values: Tensor, known: Tensor) -> Tensor:
    """Map the smallest and the largest known value to 0 and 1."""
    low = torch.where(known, values, torch.full_like(values, torch.inf)).amin()
    high = torch.where(known, values, torch.full_like(values, -torch.inf)).amax()
    return torch.where(known, (values - low) / (high - low).clamp_min(_SMALLEST_RANGE), torch.zeros_like(values))


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
    Pixels without a finite depth, which the released data do not have, are left out as in `temporal_loss`.
    """
    known, known_other = torch.isfinite(depth_target), torch.isfinite(depth_reference)
    depth = torch.where(known, depth_target, torch.ones_like(depth_target))
    other = torch.where(known_other, depth_reference, torch.ones_like(depth_reference))
    stacked = torch.cat([reference, (~known_other).to(reference.dtype)], dim=1)
    warped = warp_official(stacked, depth, other, intrinsics_ndc, reference_from_target)
    image, share_missing = warped.image[:, :3], warped.image[:, 3:].detach()
    valid = warped.valid & known & (share_missing < 1.0 - _WHOLLY_KNOWN)
    computed, sampled = warped.computed_depth, warped.sampled_depth
    colour = (target - image).abs().clamp(0.0, 1.0)
    difference = ((computed - sampled).abs() / (computed + sampled)).clamp(0.0, 1.0)
    photometric = masked_mean((1.0 - difference) * colour, valid)
    geometry = masked_mean(difference, valid)
    return Temporal(official_value(photometric) + official_value(geometry), photometric, geometry)


def official_value(mean: Mean) -> Tensor:
    """Return the released masked mean: a constant 0 over no more than 10,000 valid entries."""
    # Selected on the device, so that the rule costs no synchronisation; the unselected branch gets zero gradient.
    return torch.where(mean.count > OFFICIAL_MIN_ELEMENTS, mean.value, torch.zeros_like(mean.total))


def total(
    colour: Tensor,
    depth: Tensor | None = None,
    temporal: Tensor | None = None,
    smooth: Tensor | None = None,
    *,
    weights: Sequence[float] = (1.0, 0.0025, 0.005, 0.0),
) -> Tensor:
    """Weighted sum of the colour, depth, temporal and smoothness losses; `weights` in that order (golden vector G11).

    A term that is None has no part in it; its weight may be left out where no later one is given.
    """
    loss = weights[0] * colour
    for place, term in enumerate((depth, temporal, smooth), start=1):
        if term is not None:
            loss = loss + weights[place] * term
    return loss
