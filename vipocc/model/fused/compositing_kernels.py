"""Triton kernels of compositing: one program takes one ray, from densities to distance and colours and back."""

from __future__ import annotations

import triton
import triton.language as tl

from vipocc.model.fused.lookup import corners, lookup, outside, points_on_ray, project


@triton.jit
def _composite(density, distances, ray, t, SAMPLES: tl.constexpr, HARD_CAP: tl.constexpr):
    """Weights of a ray's samples, the light left behind each, and the intervals' lengths (0 for a capped last one)."""
    sample = tl.arange(0, SAMPLES)
    last = sample == SAMPLES - 1
    after = tl.load(distances + ray * SAMPLES + sample + 1, mask=sample < SAMPLES - 1, other=0.0)
    delta = tl.where(last, 0.0 if HARD_CAP else 1e10, after - t)
    depth = tl.load(density + ray * SAMPLES + sample) * delta
    # The last interval is no part of the sum: an infinite one would cancel what stands before it.
    counted = tl.where(last, 0.0, depth)
    through = tl.cumsum(counted, 0)
    ended = 1.0 - tl.exp(-depth)
    if HARD_CAP:
        ended = tl.where(last, 1.0, ended)
    return tl.exp(counted - through) * ended, tl.exp(counted - through - depth), delta


@triton.jit
def forward_kernel(
    density,  # [B * R, SAMPLES]
    origins,  # [B * R, 3]
    directions,  # [B * R, 3]
    distances,  # [B * R, SAMPLES]
    key,  # [B, 3, 4] projection into the key camera
    colours,  # [B, VIEWS, H, W, 4]
    projections,  # [B, VIEWS, 3, 4]
    distance_out,  # [B * R]
    colour_out,  # [B * R, VIEWS, 3]
    unseen_out,  # [B * R, VIEWS]
    rays,  # R
    height,
    width,
    eps,
    SAMPLES: tl.constexpr,
    VIEWS: tl.constexpr,
    HARD_CAP: tl.constexpr,
):
    """Distance, colours in each view, and the share of the ray's weight that a view or the key camera does not see."""
    ray = tl.program_id(0).to(tl.int64)
    image = ray // rays
    t = tl.load(distances + ray * SAMPLES + tl.arange(0, SAMPLES))
    weight, _left, _delta = _composite(density, distances, ray, t, SAMPLES, HARD_CAP)
    tl.store(distance_out + ray, tl.sum(weight * t, 0))
    if VIEWS > 0:
        x, y, z, _central = points_on_ray(origins, directions, ray, t)
        u, v, depth = project(x, y, z, key + image * 12, eps)
        unseen_by_key = outside(u, v, depth, eps)
        rgba = tl.arange(0, 4)
        for view in range(VIEWS):
            place = image * VIEWS + view
            u, v, depth = project(x, y, z, projections + place * 12, eps)
            invalid = outside(u, v, depth, eps) | unseen_by_key
            tl.store(unseen_out + ray * VIEWS + view, tl.sum(tl.where(invalid, weight, 0.0), 0))
            x0, x1, y0, y1, right, lower = corners(u, v, height, width)
            rows = colours + place * height * width * 4
            seen = lookup(rows, x0, x1, y0, y1, right, lower, width, 4)
            shown = tl.sum(seen * weight[:, None], 0)
            tl.store(colour_out + (ray * VIEWS + view) * 3 + rgba, shown, mask=rgba < 3)


@triton.jit
def backward_kernel(
    density,
    origins,
    directions,
    distances,
    colours,
    projections,
    distance_gradient,  # [B * R]
    colour_gradient,  # [B * R, VIEWS, 3]
    density_gradient,  # [B * R, SAMPLES]
    rays,
    height,
    width,
    eps,
    SAMPLES: tl.constexpr,
    VIEWS: tl.constexpr,
    HARD_CAP: tl.constexpr,
):
    """Gradient of the densities of one ray."""
    ray = tl.program_id(0).to(tl.int64)
    image = ray // rays
    sample, rgba = tl.arange(0, SAMPLES), tl.arange(0, 4)
    t = tl.load(distances + ray * SAMPLES + sample)
    weight, left, delta = _composite(density, distances, ray, t, SAMPLES, HARD_CAP)
    by_weight = tl.load(distance_gradient + ray) * t
    if VIEWS > 0:
        x, y, z, _central = points_on_ray(origins, directions, ray, t)
        for view in range(VIEWS):
            place = image * VIEWS + view
            u, v, _depth = project(x, y, z, projections + place * 12, eps)
            x0, x1, y0, y1, right, lower = corners(u, v, height, width)
            rows = colours + place * height * width * 4
            seen = lookup(rows, x0, x1, y0, y1, right, lower, width, 4)
            wanted = tl.load(colour_gradient + (ray * VIEWS + view) * 3 + rgba, mask=rgba < 3, other=0.0)
            by_weight += tl.sum(seen * wanted[None, :], 1)
    # A sample's optical depth dims all samples behind it and brightens its own.
    shares = by_weight * weight
    behind = tl.where(sample < SAMPLES - 1, tl.sum(shares, 0) - tl.cumsum(shares, 0), 0.0)
    tl.store(density_gradient + ray * SAMPLES + sample, (by_weight * left - behind) * delta)
