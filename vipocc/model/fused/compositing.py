"""Compositing of densities along rays, with colours from views, as one differentiable operation on plain tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vipocc.geometry.projection import MIN_DEPTH, compose

WARPS = 1


@dataclass(frozen=True)
class Views:
    """Where colours come from: K views of each sample."""

    colours: Tensor
    """[B, K, H, W, 4] red, green, blue and a number that is not looked at; float16 or float32."""
    projections: Tensor
    """[B, K, 3, 4] normalised intrinsics times view-from-key."""


@dataclass(frozen=True)
class Composited:
    """What comes out for R rays of each of B images."""

    distance: Tensor
    """[B, R] expected Euclidean distance in metres."""
    colours: Tensor
    """[B, R, K, 3] colour in each view."""
    unseen: Tensor
    """[B, R, K] share of a ray's weight on samples that a view or the key camera does not see; without gradient."""


def pack_colours(images: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
    """Images [B, V, 3, H, W] as [B, V, H, W, 4], where a pixel is one load."""
    return functional.pad(images.to(dtype).permute(0, 1, 3, 4, 2), (0, 1)).contiguous()


def projections(intrinsics_ndc: Tensor, view_from_key: Tensor) -> Tensor:
    """[..., 3, 4] that takes points of the key camera's frame to a view's normalised coordinates."""
    return compose(intrinsics_ndc, view_from_key[..., :3, :])


def fused_composite(
    density: Tensor,
    origins: Tensor,
    directions: Tensor,
    distances: Tensor,
    intrinsics_ndc: Tensor,
    views: Views | None = None,
    *,
    hard_cap: bool = True,
) -> Composited:
    """Composite densities [B, R, S]; gradients reach them alone.

    Args:
        density: [B, R, S] in 1/m, not negative, float32; S is a power of two.
        origins: [B, R, 3] of rays in the key camera's frame.
        directions: [B, R, 3] unit vectors.
        distances: [B, R, S], ascending.
        intrinsics_ndc: [B, 3, 3] of the key camera.
        views: where colours come from; None composites distances alone.
        hard_cap: let each ray end at its last sample at the latest.
    """
    if views is None:
        of_views = (distances.new_zeros(len(distances), 0, 1, 1, 4), distances.new_zeros(len(distances), 0, 3, 4))
    else:
        of_views = (views.colours.contiguous(), views.projections.contiguous())
    distance, colours, unseen = _Composite.apply(
        density.contiguous(),
        origins.contiguous(),
        directions.contiguous(),
        distances.contiguous(),
        functional.pad(intrinsics_ndc, (0, 1)).contiguous(),
        *of_views,
        hard_cap,
    )
    return Composited(distance, colours, unseen)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        density: Tensor,
        origins: Tensor,
        directions: Tensor,
        distances: Tensor,
        key: Tensor,
        colours: Tensor,
        view_projections: Tensor,
        hard_cap: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from vipocc.model.fused.compositing_kernels import forward_kernel

        batch, rays, samples = distances.shape
        views, height, width = colours.shape[1:4]
        ctx.save_for_backward(density, origins, directions, distances, colours, view_projections)
        ctx.numbers = (rays, height, width, MIN_DEPTH)
        ctx.constants = {"SAMPLES": samples, "VIEWS": views, "HARD_CAP": hard_cap, "num_warps": WARPS}
        distance = density.new_empty(batch, rays)
        seen = density.new_empty(batch, rays, views, 3)
        unseen = density.new_empty(batch, rays, views)
        given = (density, origins, directions, distances, key, colours, view_projections)
        forward_kernel[(batch * rays,)](*given, distance, seen, unseen, *ctx.numbers, **ctx.constants)
        ctx.mark_non_differentiable(unseen)
        return distance, seen, unseen

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from vipocc.model.fused.compositing_kernels import backward_kernel

        density = ctx.saved_tensors[0]
        of_density = torch.empty_like(density)
        backward_kernel[(density.shape[0] * density.shape[1],)](
            *ctx.saved_tensors,
            gradients[0].contiguous(),
            gradients[1].contiguous(),
            of_density,
            *ctx.numbers,
            **ctx.constants,
        )
        return (of_density, *[None] * 7)
