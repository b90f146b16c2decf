"""Volume rendering: from densities along rays to distances and colours (published_system 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vipocc.model.config import RendererConfig
from vipocc.model.field import PointQuery, colours_at, density_at, parts, radiance_at
from vipocc.model.heads.interface import DensityHead

_LAST_DELTA = 1e10


@dataclass(frozen=True)
class Rays:
    """Rays in the key camera's frame."""

    origins: Tensor
    """[B, R, 3] metres."""
    directions: Tensor
    """[B, R, 3] unit vectors."""
    central: bool = False
    """Whether every ray starts at the key camera's centre and passes through its image plane, so that one lookup of
    features serves all samples of a ray. The result is the same, sooner."""


@dataclass(frozen=True)
class ColourViews:
    """The views that colours are taken from."""

    images: Tensor
    """[B, V, 3, H, W]"""
    intrinsics_ndc: Tensor
    """[B, V, 3, 3]"""
    view_from_key: Tensor
    """[B, V, 4, 4]"""


@dataclass(frozen=True)
class Rendered:
    """What rendering yields for each ray."""

    distance: Tensor
    """[B, R] expected Euclidean distance in metres."""
    weights: Tensor | None
    """[B, R, S] share of each sample; they sum to 1 under the hard cap. None where kernels kept nothing per sample."""
    colours: Tensor | None
    """[B, R, V, 3] colour seen by each view, or None without views; a head that predicts colours always gives its own,
    [B, R, 1, 3], as if of one view."""
    invalid: Tensor | None
    """bool [B, R, S, V] sample not seen by that view or unknown to the head, or None without views; where the head
    predicts colours [B, R, S, 1], unknown to the head. None where kernels kept nothing per sample."""
    samples: Tensor | None = None
    """[B, R, S, V, 3] colour that each view shows at each sample, only where they were asked for."""
    unseen: Tensor | None = None
    """[B, R, V] share of the weight on invalid samples, without gradient, where kernels kept nothing per sample."""


def sample_distances(
    near: float,
    far: float,
    samples: int,
    shape: tuple[int, ...],
    *,
    jitter: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Distances [*shape, samples] of the samples of rays, ascending, evenly spread in inverse distance.

    One sample in each of `samples` equal bins: anywhere in it, drawn from the generator `jitter` (which lives on
    `device`), or without one in its middle.
    """
    bins = torch.arange(samples, device=device, dtype=torch.float32)
    if jitter is None:
        offset = torch.full((1,), 0.5, device=device).expand(*shape, samples)
    else:
        offset = torch.rand(*shape, samples, generator=jitter, device=device)
    share = (bins + offset) / samples
    return 1.0 / ((1.0 - share) / near + share / far)


def composite(sigma: Tensor, distances: Tensor, *, hard_cap: bool = True) -> Tensor:
    """Weights [..., S] of the samples of a ray: the share of light that ends at each.

    sigma [..., S] in 1/m and ascending distances [..., S] in metres. Transmittance is the exponential of a running
    sum, which equals the published running product but for its 1e-10 and has a cheap and safe gradient. (expm1 would be
    more exact for thin samples, by less than 1e-7, and part from the published numbers.)
    With `hard_cap` the last sample takes what is left, else its interval is 1e10 m long.
    """
    depths = functional.relu(sigma[..., :-1]) * (distances[..., 1:] - distances[..., :-1])
    before = functional.pad(depths.cumsum(dim=-1), (1, 0))
    transmittance = torch.exp(-before)
    ended = 1.0 - torch.exp(-depths)
    if hard_cap:
        last = torch.ones_like(transmittance[..., -1:])
    else:
        last = 1.0 - torch.exp(-functional.relu(sigma[..., -1:]) * _LAST_DELTA)
    return transmittance * torch.cat([ended, last], dim=-1)


def composite_reference(sigma: Tensor, distances: Tensor, *, hard_cap: bool = True) -> Tensor:
    """Plain twin of `composite`, as published: alpha = 1 - exp(-delta sigma), T = prod(1 - alpha + 1e-10)."""
    deltas = torch.cat([distances.diff(dim=-1), torch.full_like(distances[..., :1], _LAST_DELTA)], dim=-1)
    alpha = 1.0 - torch.exp(-deltas * functional.relu(sigma))
    if hard_cap:
        alpha = torch.cat([alpha[..., :-1], torch.ones_like(alpha[..., -1:])], dim=-1)
    shifted = torch.cat([torch.ones_like(alpha[..., :1]), 1.0 - alpha[..., :-1] + 1e-10], dim=-1)
    return alpha * shifted.cumprod(dim=-1)


def ray_query(rays: Rays, distances: Tensor, intrinsics_ndc: Tensor) -> PointQuery:
    """Return the samples at distances [B, R, S] of rays as a query; intrinsics [B, 3, 3] of the key camera."""
    if rays.central:
        return PointQuery.of_central_rays(rays.directions, distances, intrinsics_ndc)
    return PointQuery.of_rays(rays.origins, rays.directions, distances, intrinsics_ndc)


def render_rays(
    head: DensityHead,
    prepared: Any,
    intrinsics_ndc: Tensor,
    rays: Rays,
    distances: Tensor,
    views: ColourViews | None = None,
    *,
    hard_cap: bool = True,
    chunk: int | None = None,
    keep_samples: bool = False,
    gathered: bool = False,
) -> Rendered:
    """Render rays: densities from the head, colours from `views`, or from a head that predicts them.

    prepared: what `head.prepare` made of the features, with `gathered` what `head.gather` made of that; intrinsics_ndc
    [B, 3, 3] of the key camera; distances [B, R, S] of the samples. Without views only densities are computed, unless
    the head predicts colours; `keep_samples` hands out the samples' colours.
    """
    batch, count, samples = distances.shape
    query = ray_query(rays, distances, intrinsics_ndc)
    if not gathered:
        prepared = head.gather(prepared, parts(query, chunk))
    predicted: Tensor | None = None
    if head.predicts_colour:
        sigma, predicted = radiance_at(head, prepared, query, chunk, gathered=True)
    else:
        sigma = density_at(head, prepared, query, chunk, gathered=True)
    weights = composite(sigma.reshape(batch, count, samples), distances, hard_cap=hard_cap)
    distance = (weights * distances).sum(dim=-1)
    if predicted is not None:
        seen, invalid = predicted.reshape(batch, -1, 1, 3), head.unseen(prepared, query).reshape(batch, -1, 1)
    elif views is not None:
        points = query.points.reshape(batch, -1, 3)
        seen, outside = colours_at(views.images, points, views.intrinsics_ndc, views.view_from_key)
        invalid = outside | head.unseen(prepared, query).reshape(batch, -1, 1)
    else:
        return Rendered(distance, weights, None, None)
    seen = seen.reshape(batch, count, samples, *seen.shape[2:])
    invalid = invalid.reshape(batch, count, samples, -1)
    colours = torch.einsum("brs,brsvc->brvc", weights, seen)
    return Rendered(distance, weights, colours, invalid, seen if keep_samples else None)


def rays_at_once(config: RendererConfig, batch: int) -> int:
    """How many rays of each image fit into one chunk of points."""
    return max(1, config.chunk // (config.samples * batch))
