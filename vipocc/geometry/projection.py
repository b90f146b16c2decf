"""Projection of 3D points into a pinhole camera in normalised coordinates, differentiable.

Matrices are applied by elementwise products, not matmul: autocast (bfloat16) and TF32 would otherwise round
coordinates to 8 or 11 bits, several pixels at 640 columns.
"""

from __future__ import annotations

import torch

from vipocc.geometry.shapes import expect_shape

MIN_DEPTH = 1e-3
"""Depth in metres below which a point counts as not in front of the camera (published_system.md 3.3)."""


def compose(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Matrix product of small matrices [..., M, K] and [..., K, N] at full precision whatever autocast or TF32 say."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def transform(points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply matrix [..., 3, 3] or [..., 3 or 4, 4] to points [..., N, 3] at full precision; leading axes broadcast."""
    expect_shape("points", points, None, 3)
    expect_shape("matrix", matrix, None, None)
    columns = matrix[..., None, :3, :]
    moved = points[..., 0:1] * columns[..., 0]
    moved = torch.addcmul(moved, points[..., 1:2], columns[..., 1])
    moved = torch.addcmul(moved, points[..., 2:3], columns[..., 2])
    return moved + columns[..., 3] if matrix.shape[-1] == 4 else moved


def project(
    points: torch.Tensor,
    intrinsics_ndc: torch.Tensor,
    camera_from_points: torch.Tensor | None = None,
    eps: float = MIN_DEPTH,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Project points into a camera.

    points [B, N, 3] in metres, intrinsics_ndc [B, 3, 3], camera_from_points [B, 4, 4] or None for points already in
    the camera's frame; leading axes broadcast, so [B, 1, N, 3] with [B, V, 3, 3] gives all views at once.

    Returns (xy [B, N, 2], z [B, N]): NDC, unbounded outside the image, and depth; depth is clamped from below to
    `eps` in both, so that a point behind the camera stays finite (published_system.md 3.3, step 1). `outside` tells
    which ones are not seen.
    """
    expect_shape("points", points, None, 3)
    expect_shape("intrinsics_ndc", intrinsics_ndc, 3, 3)
    matrix = intrinsics_ndc
    if camera_from_points is not None:
        expect_shape("camera_from_points", camera_from_points, 4, 4)
        matrix = compose(intrinsics_ndc, camera_from_points[..., :3, :])
    q = transform(points, matrix)
    z = q[..., 2].clamp_min(eps)
    return q[..., :2] / z[..., None], z


def outside(xy: torch.Tensor, z: torch.Tensor, eps: float = MIN_DEPTH) -> torch.Tensor:
    """Which projected points no pixel shows: z <= eps, or x or y outside [-1, 1].  [B, N, 2], [B, N] -> bool [B, N]."""
    expect_shape("xy", xy, 2)
    return (z <= eps) | (xy.abs() > 1.0).any(dim=-1)
