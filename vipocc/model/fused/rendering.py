"""Rendering by the kernels: what `vipocc.model.renderer.render_rays` does, for heads and rays that they can take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vipocc.model.fused.compositing import Views, fused_composite, pack_colours, projections

if TYPE_CHECKING:
    from vipocc.model.heads.interface import DensityHead
    from vipocc.model.renderer import ColourViews, Rays, Rendered


def can_fuse(head: DensityHead, samples: int, like: Tensor) -> bool:
    """Tell whether the kernels can render by this head: on CUDA, in float32, a power of two of samples.

    Not where the same bits are asked for every time: gradients of features are added in whatever order rays end.

    Args:
        head: the density head.
        samples: of a ray.
        like: a tensor of the type and on the device of the rays.
    """
    fitting = samples >= 16 and samples & (samples - 1) == 0
    single = like.is_cuda and like.dtype == torch.float32
    return head.fuses and fitting and single and not torch.are_deterministic_algorithms_enabled()


def render_rays_fused(
    head: DensityHead,
    prepared: Any,
    intrinsics_ndc: Tensor,
    rays: Rays,
    distances: Tensor,
    views: ColourViews | None = None,
    *,
    hard_cap: bool = True,
) -> Rendered:
    """Render rays without keeping anything per sample; arguments as `render_rays`.

    Of the result, `weights` and `invalid` are None and `unseen` stands for them.
    """
    from vipocc.model.renderer import Rendered

    density = head.fused_density(prepared, rays, distances, intrinsics_ndc)
    packed = None
    if views is not None:
        # Eleven digits are more than the eight bits that colours come from.
        colours = pack_colours(views.images, torch.float16 if distances.is_cuda else torch.float32)
        packed = Views(colours, projections(views.intrinsics_ndc, views.view_from_key))
    result = fused_composite(
        density, rays.origins, rays.directions, distances, intrinsics_ndc, packed, hard_cap=hard_cap
    )
    if views is None:
        return Rendered(result.distance, None, None, None)
    return Rendered(result.distance, None, result.colours, None, unseen=result.unseen)
