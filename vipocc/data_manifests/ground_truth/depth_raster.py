"""Sparse depth images from one LiDAR sweep: ours, and the two procedures that published numbers were measured with.

All return float32 [H, W], metres along the optical axis, NaN where no point fell.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vipocc.geometry.shapes import Float64, Size, expect_rank, expect_size

Float32: TypeAlias = NDArray[np.float32]
Index: TypeAlias = NDArray[np.intp]

GARG_CROP = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
"""Top, bottom, left, right as fractions of the image (Garg et al., ECCV 2016), as every Eigen-split table uses it."""
EIGEN_MIN_DEPTH, EIGEN_MAX_DEPTH = 1e-3, 80.0


class PixelHits(NamedTuple):
    """Points that fall on an image, in the order of the sweep."""

    rows: Index
    """[m]"""
    columns: Index
    """[m]"""
    depth: Float64
    """[m] metres along the optical axis."""


def _project(points: NDArray[Any], image_from_lidar: Float64) -> tuple[Float64, Float64, Float64]:
    expect_rank("points", points, None, 3)
    expect_rank("image_from_lidar", image_from_lidar, 3, 4)
    q = points.astype(np.float64) @ image_from_lidar[:, :3].T + image_from_lidar[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        return q[:, 0] / q[:, 2], q[:, 1] / q[:, 2], q[:, 2]


def _within(rows: Float64, columns: Float64, size: Size) -> NDArray[np.bool_]:
    # Compared as floating point: a point in the camera's plane is at infinity and has no integer column.
    return np.asarray((rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1]))


def pixel_hits(points: NDArray[Any], camera_from_lidar: ArrayLike, intrinsics: ArrayLike, size: Size) -> PixelHits:
    """Points [n, 3] in front of the camera and on its image of `size` (height, width).

    camera_from_lidar [4, 4]; intrinsics [3, 3] in pixels of that image, pixel (0, 0) being a pixel's centre, so that
    pixel j takes what lands in [j - 0.5, j + 0.5).
    """
    expect_size("size", size)
    extrinsics = np.asarray(camera_from_lidar, dtype=np.float64)
    k = np.asarray(intrinsics, dtype=np.float64)
    expect_rank("camera_from_lidar", extrinsics, 4, 4)
    expect_rank("intrinsics", k, 3, 3)
    u, v, z = _project(points, k @ extrinsics[:3])
    columns, rows = np.floor(u + 0.5), np.floor(v + 0.5)
    kept = (z > 0) & _within(rows, columns, size)
    return PixelHits(rows[kept].astype(np.intp), columns[kept].astype(np.intp), z[kept])


def sparse_depth(points: NDArray[Any], camera_from_lidar: ArrayLike, intrinsics: ArrayLike, size: Size) -> Float32:
    """LiDAR depth at an image size: only points in front of the camera, the nearest one of each pixel.

    Arguments as for `pixel_hits`; returns float32 [H, W], NaN where no point fell.
    """
    hits = pixel_hits(points, camera_from_lidar, intrinsics, size)
    depth = np.full(size[0] * size[1], np.inf)
    np.minimum.at(depth, hits.rows * size[1] + hits.columns, hits.depth)
    return np.where(np.isinf(depth), np.nan, depth).reshape(size).astype(np.float32)


def sparse_depth_reference(
    points: NDArray[Any], camera_from_lidar: ArrayLike, intrinsics: ArrayLike, size: Size
) -> Float32:
    """The plain twin of `sparse_depth`, point by point."""
    extrinsics = np.asarray(camera_from_lidar, dtype=np.float64)
    k = np.asarray(intrinsics, dtype=np.float64)
    depth = np.full(size, np.nan)
    for point in np.asarray(points, dtype=np.float64):
        x, y, z = extrinsics[:3, :3] @ point + extrinsics[:3, 3]
        if z <= 0:
            continue
        u, v, _ = k @ (x / z, y / z, 1.0)
        row, column = int(np.floor(v + 0.5)), int(np.floor(u + 0.5))
        if 0 <= row < size[0] and 0 <= column < size[1] and not depth[row, column] <= z:
            depth[row, column] = z
    return depth.astype(np.float32)


def last_write_then_minimum(rows: Index, columns: Index, z: Float64, size: Size) -> Float64:
    """Depth [H, W], 0 where missing, with the released collision rule.

    Every point is written, the last one stays; then each group of points that share the key row * (W - 1) + col - 1
    puts its minimum into the pixel of its first point. The key confuses (r, W - 1) with (r + 1, 0).
    """
    depth = np.zeros(size)
    depth[rows, columns] = z
    if len(z):
        keys = rows * (size[1] - 1) + columns - 1
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] - 1))
        shared = np.diff(starts, append=len(keys)) > 1
        first = order[starts][shared]
        depth[rows[first], columns[first]] = np.minimum.reduceat(z[order], starts)[shared]
    depth[depth < 0] = 0
    return depth


def last_write_then_minimum_reference(rows: Index, columns: Index, z: Float64, size: Size) -> Float64:
    """The plain twin of the collision rule that `sparse_depth_official` and `sparse_depth_eigen` share."""
    depth = np.zeros(size)
    groups: dict[int, list[int]] = {}
    for i, (row, column) in enumerate(zip(rows, columns, strict=True)):
        depth[row, column] = z[i]
        groups.setdefault(int(row * (size[1] - 1) + column - 1), []).append(i)
    for members in groups.values():
        if len(members) > 1:
            depth[rows[members[0]], columns[members[0]]] = min(z[i] for i in members)
    return np.where(depth < 0, 0.0, depth)


def _missing_as_nan(depth: Float64) -> Float32:
    return np.where(depth == 0, np.nan, depth).astype(np.float32)


def sparse_depth_official(
    points: NDArray[Any], camera_from_lidar: ArrayLike, intrinsics_ndc: ArrayLike, size: Size
) -> Float32:
    """KITTI-360 ground truth as released, for the published depth numbers (published_system.md 7.5).

    intrinsics_ndc [3, 3] in the "official" convention. Kept with its faults: half-even rounding of (u/2 + 1/2) W, no
    test that a point is in front of the camera, so mirrored points erase real ones, and the colliding pixel key.
    """
    expect_size("size", size)
    extrinsics = np.asarray(camera_from_lidar, dtype=np.float64)
    k = np.asarray(intrinsics_ndc, dtype=np.float64)
    expect_rank("camera_from_lidar", extrinsics, 4, 4)
    expect_rank("intrinsics_ndc", k, 3, 3)
    x, y, z = _project(points, k @ extrinsics[:3])
    with np.errstate(invalid="ignore"):
        columns, rows = np.round((x / 2 + 0.5) * size[1]), np.round((y / 2 + 0.5) * size[0])
    kept = _within(rows, columns, size)
    hits = rows[kept].astype(np.intp), columns[kept].astype(np.intp)
    return _missing_as_nan(last_write_then_minimum(*hits, z[kept], size))


def sparse_depth_eigen(points: NDArray[Any], image_from_velo: ArrayLike, size: Size) -> Float32:
    """KITTI Raw ground truth of the Eigen split at full resolution, before any crop (published_system.md 1.7).

    image_from_velo [3, 4] = P_rect @ R_rect_00 @ velo_to_cam. Points behind the scanner are dropped; pixels are
    round(u) - 1, counting from one as KITTI's Matlab tools do.
    """
    expect_size("size", size)
    expect_rank("points", points, None, 3)
    u, v, z = _project(points[points[:, 0] >= 0], np.asarray(image_from_velo, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        columns, rows = np.round(u) - 1, np.round(v) - 1
    kept = _within(rows, columns, size)
    hits = rows[kept].astype(np.intp), columns[kept].astype(np.intp)
    return _missing_as_nan(last_write_then_minimum(*hits, z[kept], size))


def eigen_mask(depth: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that KITTI Raw's depth metrics count, bool [H, W]: 1e-3 < depth < 80 m inside the Garg crop."""
    expect_rank("depth", depth, None, None)
    height, width = depth.shape
    top, bottom, left, right = GARG_CROP
    inside = np.zeros(depth.shape, dtype=np.bool_)
    inside[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return inside & (depth > EIGEN_MIN_DEPTH) & (depth < EIGEN_MAX_DEPTH)
