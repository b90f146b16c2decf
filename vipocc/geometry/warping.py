"""Warping a reference image into a target view by the target's depth.

`warp` is the clean form; `warp_official` repeats what the released system's temporal alignment loss does, half-pixel
shifts and all (published_system.md 5.3), for the `official` profile.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from vipocc.errors import UsageError
from vipocc.geometry.ndc import Convention, camera_plane, intrinsics_from_ndc, ndc_grid, pixel_to_ndc
from vipocc.geometry.projection import outside, project, transform
from vipocc.geometry.shapes import expect_rank


class Warped(NamedTuple):
    """A reference image seen from the target view."""

    image: torch.Tensor
    """[B, C, H, W] the reference sampled where each target pixel lands in it."""
    xy: torch.Tensor
    """[B, H, W, 2] where each target pixel lands in the reference, NDC."""
    depth: torch.Tensor
    """[B, 1, H, W] depth of each target pixel in the reference camera, metres, at least 1e-3."""
    valid: torch.Tensor
    """bool [B, 1, H, W] in front of the reference camera and inside its image."""


class OfficialWarp(NamedTuple):
    """What the released temporal alignment loss is computed from."""

    image: torch.Tensor
    """[B, C, H, W] reference image sampled with zero padding."""
    computed_depth: torch.Tensor
    """[B, 1, H, W] depth of each target pixel in the reference camera, metres; negative behind it."""
    sampled_depth: torch.Tensor
    """[B, 1, H, W] the reference's own depth sampled at the same place, zero outside."""
    valid: torch.Tensor
    """bool [B, 1, H, W] inside the reference image; points behind the camera are not excluded."""


def backproject(depth: torch.Tensor, intrinsics_ndc: torch.Tensor, convention: Convention) -> torch.Tensor:
    """3D points in the camera frame of every pixel: depth [B, 1, H, W], [B, 3, 3] -> [B, H*W, 3], row by row."""
    expect_rank("depth", depth, None, 1, None, None)
    expect_rank("intrinsics_ndc", intrinsics_ndc, depth.shape[0], 3, 3)
    height, width = int(depth.shape[2]), int(depth.shape[3])
    grid = ndc_grid((height, width), convention, device=depth.device, dtype=intrinsics_ndc.dtype).reshape(1, -1, 2)
    return camera_plane(intrinsics_ndc, grid) * depth.reshape(depth.shape[0], -1, 1)


def _same_image(reference: torch.Tensor, depth: torch.Tensor) -> tuple[int, int, int]:
    expect_rank("reference", reference, None, None, None, None)
    batch, _, height, width = reference.shape
    if tuple(depth.shape) != (batch, 1, height, width):
        raise UsageError(
            f"depth must be [{batch}, 1, {height}, {width}] to go with a reference of {list(reference.shape)}, "
            f"not {list(depth.shape)}"
        )
    return int(batch), int(height), int(width)


def _places(xy: torch.Tensor) -> torch.Tensor:
    """Return places with those that are no finite numbers moved outside: on the CPU, grid_sample's gradient crashes."""
    return xy.nan_to_num(nan=3.0, posinf=3.0, neginf=-3.0)


def warp(
    reference: torch.Tensor,
    depth_target: torch.Tensor,
    intrinsics_ndc: torch.Tensor,
    reference_from_target: torch.Tensor,
    convention: Convention,
) -> Warped:
    """Resample `reference` into the target view.

    reference [B, C, H, W]; depth_target [B, 1, H, W] metres; intrinsics_ndc [B, 3, 3], of both views;
    reference_from_target [B, 4, 4]. Bilinear, border padding, grid_sample(align_corners=False); gradients reach the
    reference and the depth. Where `valid` is false, image and depth are finite but mean nothing.
    """
    batch, height, width = _same_image(reference, depth_target)
    expect_rank("reference_from_target", reference_from_target, batch, 4, 4)
    points = backproject(depth_target, intrinsics_ndc, convention)
    xy, z = project(points, intrinsics_ndc, reference_from_target)
    valid = ~outside(xy, z)
    xy = xy.reshape(batch, height, width, 2)
    image = functional.grid_sample(
        reference, _places(xy).to(reference.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    shape = (batch, 1, height, width)
    return Warped(image, xy, z.reshape(shape), valid.reshape(shape))


def warp_official(
    reference: torch.Tensor,
    depth_target: torch.Tensor,
    depth_reference: torch.Tensor,
    intrinsics_ndc: torch.Tensor,
    reference_from_target: torch.Tensor,
) -> OfficialWarp:
    """The released warp (published_system.md 5.3 steps 1-3, golden vector G6).

    reference [B, C, H, W]; both depths [B, 1, H, W] metres; intrinsics_ndc [B, 3, 3] in the "official" convention;
    reference_from_target [B, 4, 4]. Rays start at integer pixels of intrinsics without the half pixel, coordinates are
    normalised by W - 1 and looked up with align_corners=False and zero padding, and q_z is not tested for its sign.
    """
    batch, height, width = _same_image(reference, depth_target)
    _same_image(reference, depth_reference)
    expect_rank("intrinsics_ndc", intrinsics_ndc, batch, 3, 3)
    expect_rank("reference_from_target", reference_from_target, batch, 4, 4)
    intrinsics = intrinsics_from_ndc(intrinsics_ndc, (height, width), "official")
    rows, columns = torch.meshgrid(
        torch.arange(height, device=reference.device, dtype=intrinsics.dtype),
        torch.arange(width, device=reference.device, dtype=intrinsics.dtype),
        indexing="ij",
    )
    pixels = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2)
    points = camera_plane(intrinsics, pixels) * depth_target.reshape(batch, -1, 1)
    q = transform(transform(points, reference_from_target), intrinsics)
    computed_depth = q[..., 2]
    uv = q[..., :2] / (computed_depth + 1e-7)[..., None]
    xy = pixel_to_ndc(uv, (height, width), "official")
    valid = (xy.abs() <= 1.0).all(dim=-1)
    grid = xy.reshape(batch, height, width, 2)
    stacked = torch.cat([reference, depth_reference.to(reference.dtype)], dim=1)
    sampled = functional.grid_sample(
        stacked, _places(grid).to(stacked.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    shape = (batch, 1, height, width)
    return OfficialWarp(sampled[:, :-1], computed_depth.reshape(shape), sampled[:, -1:], valid.reshape(shape))
