"""Which cells of a horizontal slice are occupied, from accumulated LiDAR sweeps.

A sweep sees a cell if the cell is nearer than the surface in its direction. The surface is a profile around the
sensor: the nearest return of each degree among the points at the slice's height (published_system.md 7.2).

Two rules:

- "official": the released evaluation's, exactly. Up to two sweeps may see an occupied cell; a cell's distance is the
  norm of its homogeneous vector, sqrt(x^2 + y^2 + z^2 + 1), held against planar ranges; a direction without returns
  takes the range of the direction before it.
- "paper": what the paper's supplement says: invisible in all sweeps is occupied, visible in any is free. Planar
  distances on both sides; a direction without returns sees nothing.

Both: a cell nearer than 3 m to the sensor is not seen by that sweep, and `visible` speaks of the first sweep.
Frame: level frame of the key camera (x right, y down, z forward), see `level_from_world`. Arrays are float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vipocc.data_manifests.ground_truth.sweeps import ANGULAR_BINS, Sweep, angular_bin, check_sweep
from vipocc.errors import DataError, UsageError
from vipocc.geometry.poses import from_rotation, invert, rotation_x
from vipocc.geometry.shapes import Float64, expect_rank

Rule: TypeAlias = Literal["official", "paper"]
Mask: TypeAlias = NDArray[np.bool_]

CAMERA_TILT_DEG = 5.0
"""KITTI-360's rectified camera looks this far below the road-parallel plane (published_system.md 7.1)."""
BLIND_RANGE = 3.0
"""Metres around the sensor within which a sweep says nothing."""
OFFICIAL_TOLERANCE = 2
"""Sweeps that may see a cell which the official rule still calls occupied."""

_BIN_WIDTH = 2.0 * np.pi / ANGULAR_BINS
PROFILE_ANGLES = -np.pi + (np.arange(-1, ANGULAR_BINS + 1) + 0.5) * _BIN_WIDTH
"""[362] directions of a profile in radians: row k + 1 is the centre of bin k, one bin wrapped round on either side."""


@dataclass(frozen=True)
class SliceGrid:
    """The cells that are judged: a grid at one height in the level frame; row 0 is the farthest, column 0 the left."""

    x_range: tuple[float, float] = (-4.0, 4.0)
    z_range: tuple[float, float] = (20.0, 4.0)
    y_range: tuple[float, float] = (0.0, 0.75)
    columns: int = 80
    rows: int = 160

    @property
    def y(self) -> float:
        """Height of the cells, the middle of the slice."""
        return 0.5 * (self.y_range[0] + self.y_range[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    @property
    def reach(self) -> float:
        """Distance from the key camera past which points of any height count as surface, sqrt(z_max^2 + x_min^2)."""
        return float(np.hypot(max(self.z_range), min(self.x_range)))


SLICE_GRID = SliceGrid()
"""The grid of the published evaluation (published_system.md 7.1)."""


class OccupancyTruth(NamedTuple):
    """Ground truth of one frame on a SliceGrid."""

    occupied: Mask
    """bool [rows, columns], row 0 far."""
    visible: Mask
    """bool [rows, columns], row 0 far; seen by the first sweep."""


def slice_grid(grid: SliceGrid = SLICE_GRID) -> Float64:
    """Cell positions [rows * columns, 3] in the level frame; z is the slower axis, from far to near (golden G10)."""
    z, x = np.meshgrid(np.linspace(*grid.z_range, grid.rows), np.linspace(*grid.x_range, grid.columns), indexing="ij")
    return np.stack([x, np.full_like(x, grid.y), z], axis=-1).reshape(-1, 3)


def level_from_world(world_from_camera: ArrayLike, tilt_deg: float = CAMERA_TILT_DEG) -> Float64:
    """level_from_world [4, 4] of the key camera's pose: its own frame, tilted up so that z runs along the road."""
    return np.asarray(from_rotation(rotation_x(np.deg2rad(-tilt_deg))) @ invert(world_from_camera))


def occupancy_ground_truth(
    sweeps: Iterable[NDArray[Any] | Sweep],
    level_from_velo: ArrayLike,
    grid: SliceGrid = SLICE_GRID,
    rule: Rule = "official",
) -> OccupancyTruth:
    """Occupancy of the slice from sweeps; memory does not grow with their number if they come from an iterator.

    sweeps: points [n, 3] in the sensor frame (x forward, y left, z up), or `Sweep`s prepared by the caller, the key
    frame's first; level_from_velo [S, 4, 4]: `level_from_world(key pose) @ world_from_velo` of each. Published: the
    300 rows from the key frame on.

    Raises DataError for too few sweeps, a sweep of fewer than 360 points or one with no point in the slice;
    UsageError where the numbers of sweeps and transforms differ. Equal to `occupancy_ground_truth_reference`.
    """
    transforms, tolerance = checked_transforms(level_from_velo, rule)
    cells = slice_grid(grid)
    seen_by = np.zeros(len(cells), dtype=np.int32)
    # Only cells whose fate is open are looked up: one seen by more sweeps than the rule tolerates stays free.
    undecided = np.arange(len(cells))
    visible: Mask | None = None
    for index, (sweep, transform) in enumerate(_paired(sweeps, transforms)):
        velo_from_level = invert(transform)
        local = cells[undecided] @ velo_from_level[:3, :3].T + velo_from_level[:3, 3]
        if not isinstance(sweep, Sweep):
            check_sweep(sweep)
        seen = _seen(local, sweep, transform, grid, rule, index)
        if visible is None:
            visible = seen.copy()
        seen_by[undecided] += seen
        undecided = undecided[seen_by[undecided] <= tolerance]
    assert visible is not None
    return OccupancyTruth((seen_by <= tolerance).reshape(grid.shape), visible.reshape(grid.shape))


def angular_profile(
    sweep: Sweep, level_from_velo: ArrayLike, grid: SliceGrid = SLICE_GRID, rule: Rule = "official", index: int = 0
) -> Float64:
    """Surface around the sensor: [362, 2] of (angle, planar range), wrapped by one bin at either end."""
    ranges = _bin_ranges(sweep, np.asarray(level_from_velo, dtype=np.float64), grid, 0, ANGULAR_BINS)
    return np.stack([PROFILE_ANGLES, _wrap(_fill_empty(ranges, sweep, level_from_velo, grid, rule, index))], axis=-1)


def checked_transforms(level_from_velo: ArrayLike, rule: Rule) -> tuple[Float64, int]:
    """Return the transforms [S, 4, 4] and how many sweeps may see a cell that the rule calls occupied; or raise."""
    if rule not in ("official", "paper"):
        raise UsageError(f"occupancy rule must be 'official' or 'paper', not {rule!r}")
    transforms = np.asarray(level_from_velo, dtype=np.float64)
    expect_rank("level_from_velo", transforms, None, 4, 4)
    tolerance = OFFICIAL_TOLERANCE if rule == "official" else 0
    if len(transforms) <= tolerance:
        raise DataError(
            f"{len(transforms)} LiDAR sweeps are too few: with less than {tolerance + 1}, "
            f"the {rule} rule calls every cell occupied"
        )
    return transforms, tolerance


def _paired(
    sweeps: Iterable[NDArray[Any] | Sweep], transforms: Float64
) -> Iterator[tuple[NDArray[Any] | Sweep, Float64]]:
    count = 0
    for sweep in sweeps:
        if count == len(transforms):
            raise UsageError(f"there are more sweeps than the {count} transforms")
        yield sweep, transforms[count]
        count += 1
    if count != len(transforms):
        raise UsageError(f"there are {count} sweeps for {len(transforms)} transforms")


def _in_slice(points: NDArray[Any], level_from_velo: Float64, grid: SliceGrid) -> Mask:
    level = points.astype(np.float64) @ level_from_velo[:3, :3].T + level_from_velo[:3, 3]
    y = level[:, 1]
    far = np.einsum("ni,ni->n", level, level) >= grid.reach**2
    return np.asarray(((y >= grid.y_range[0]) & (y <= grid.y_range[1])) | far)


def _planar_range(points: NDArray[Any]) -> Float64:
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    return np.sqrt(x * x + y * y)


def _bin_ranges(sweep: Sweep, level_from_velo: Float64, grid: SliceGrid, first: int, last: int) -> Float64:
    """Nearest range of bins first..last-1, inf where a bin has no point in the slice."""
    starts = sweep.starts[first : last + 1]
    points = sweep.points[starts[0] : starts[-1]]
    ranges = np.full(last - first, np.inf)
    filled = starts[1:] > starts[:-1]
    if filled.any():
        kept = np.where(_in_slice(points, level_from_velo, grid), _planar_range(points), np.inf)
        ranges[filled] = np.minimum.reduceat(kept, (starts[:-1] - starts[0])[filled])
    return ranges


def _fill_empty(
    ranges: Float64, sweep: Sweep, level_from_velo: ArrayLike, grid: SliceGrid, rule: Rule, index: int
) -> Float64:
    """What a bin without points is worth; `ranges` are all 360."""
    empty = np.isinf(ranges)
    if rule == "paper":
        return np.where(empty, 0.0, ranges)
    if empty.all():
        raise DataError(f"LiDAR sweep {index} of the frame has no point at the height of the slice")
    if not empty.any():
        return ranges
    previous = np.maximum.accumulate(np.where(empty, -1, np.arange(ANGULAR_BINS)))
    filled = ranges[np.maximum(previous, 0)]
    if previous[0] < 0:
        first = int(np.argmax(~empty))
        points = sweep.points[sweep.starts[first] : sweep.starts[first + 1]]
        points = points[_in_slice(points, np.asarray(level_from_velo, dtype=np.float64), grid)]
        angle = np.arctan2(points[:, 1].astype(np.float64), points[:, 0].astype(np.float64))
        filled[previous < 0] = _planar_range(points)[np.argmin(angle)]
    return filled


def _wrap(ranges: Float64) -> Float64:
    return np.concatenate([ranges[-1:], ranges, ranges[:1]])


def _cell_distance(local: Float64, rule: Rule) -> Float64:
    planar2 = local[:, 0] ** 2 + local[:, 1] ** 2
    return np.sqrt(planar2 + local[:, 2] ** 2 + 1.0) if rule == "official" else np.sqrt(planar2)


def _needed_bins(angle: Float64) -> Mask:
    """bool [360]: the bins that the interpolation at these angles reads, with one to spare on either side."""
    centre = angular_bin(angle)
    needed = np.zeros(ANGULAR_BINS, dtype=np.bool_)
    for offset in (-2, -1, 0, 1, 2):
        needed[(centre + offset) % ANGULAR_BINS] = True
    return needed


def _part(points: NDArray[Any], needed: Mask) -> Sweep:
    """The points in the `needed` bins; all of them where those reach round half a turn or more."""
    bins = np.flatnonzero(needed)
    gaps = np.diff(bins, append=bins[0] + ANGULAR_BINS)
    widest = int(np.argmax(gaps))
    if gaps[widest] <= ANGULAR_BINS // 2 + 1:
        return Sweep(points)
    first = bins[(widest + 1) % len(bins)]
    last = first + ANGULAR_BINS - gaps[widest] + 1
    return Sweep.part(points, first * _BIN_WIDTH - np.pi, last * _BIN_WIDTH - np.pi)


def _seen(
    local: Float64, sweep: NDArray[Any] | Sweep, level_from_velo: Float64, grid: SliceGrid, rule: Rule, index: int
) -> Mask:
    """Which of the cells `local` [n, 3] (sensor frame) the sweep sees.

    A sweep from down the road sees the slice within a few degrees, so only those bins' points are visited. A bin
    without points inherits from bins that may lie elsewhere; then all are.
    """
    if not len(local):
        return np.zeros(0, dtype=np.bool_)
    angle = np.arctan2(local[:, 1], local[:, 0])
    needed = _needed_bins(angle)
    part = sweep if isinstance(sweep, Sweep) else _part(sweep, needed)
    ranges = np.zeros(ANGULAR_BINS)
    edges = np.flatnonzero(np.diff(needed.astype(np.int8), prepend=0, append=0))
    for first, last in edges.reshape(-1, 2):
        ranges[first:last] = _bin_ranges(part, level_from_velo, grid, int(first), int(last))
    if np.isinf(ranges).any():
        if rule == "official":
            part = sweep if isinstance(sweep, Sweep) else Sweep(sweep)
            ranges = _bin_ranges(part, level_from_velo, grid, 0, ANGULAR_BINS)
        ranges = _fill_empty(ranges, part, level_from_velo, grid, rule, index)
    distance = _cell_distance(local, rule)
    return (distance <= np.interp(angle, PROFILE_ANGLES, _wrap(ranges))) & (distance >= BLIND_RANGE)


def angular_profile_reference(
    points: NDArray[Any], level_from_velo: ArrayLike, grid: SliceGrid = SLICE_GRID, rule: Rule = "official"
) -> Float64:
    """`angular_profile` of points [n, 3], bin by bin as published_system.md 7.2 tells it."""
    check_sweep(points)
    kept = points[_in_slice(points, np.asarray(level_from_velo, dtype=np.float64), grid)].astype(np.float64)
    if rule == "official" and not len(kept):
        raise DataError("a LiDAR sweep of the frame has no point at the height of the slice")
    angle = np.arctan2(kept[:, 1], kept[:, 0])
    distance = np.sqrt(kept[:, 0] ** 2 + kept[:, 1] ** 2)
    bins = angular_bin(angle)
    profile = np.zeros((ANGULAR_BINS + 2, 2))
    current = distance[np.argmin(angle)] if len(kept) else 0.0
    for k in range(ANGULAR_BINS):
        members = distance[bins == k]
        if len(members):
            current = members.min()
        elif rule == "paper":
            current = 0.0
        profile[k + 1] = -np.pi + (k + 0.5) * _BIN_WIDTH, current
    profile[0] = profile[ANGULAR_BINS, 0] - 2.0 * np.pi, profile[ANGULAR_BINS, 1]
    profile[-1] = profile[1, 0] + 2.0 * np.pi, profile[1, 1]
    return profile


def occupancy_ground_truth_reference(
    sweeps: Iterable[NDArray[Any]],
    level_from_velo: ArrayLike,
    grid: SliceGrid = SLICE_GRID,
    rule: Rule = "official",
) -> OccupancyTruth:
    """The plain twin of `occupancy_ground_truth`: every sweep, every direction and every cell, one after another."""
    transforms, tolerance = checked_transforms(level_from_velo, rule)
    cells = slice_grid(grid)
    blocked_by = np.zeros(len(cells), dtype=np.int64)
    visible: Mask | None = None
    for sweep, transform in _paired(sweeps, transforms):
        profile = angular_profile_reference(np.asarray(sweep), transform, grid, rule)
        velo_from_level = invert(transform)
        local = cells @ velo_from_level[:3, :3].T + velo_from_level[:3, 3]
        distance = _cell_distance(local, rule)
        surface = np.interp(np.arctan2(local[:, 1], local[:, 0]), profile[:, 0], profile[:, 1])
        blocked = (distance > surface) | (distance < BLIND_RANGE)
        blocked_by += blocked
        visible = ~blocked if visible is None else visible
    assert visible is not None
    return OccupancyTruth((blocked_by >= len(transforms) - tolerance).reshape(grid.shape), visible.reshape(grid.shape))
