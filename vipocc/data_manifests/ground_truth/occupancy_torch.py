"""`occupancy_ground_truth` on a torch device: all sweeps of a frame at once, the same cells.

What decides a cell is float64, in the order of operations of the numpy version: points travel as float32 and widen on
the device, as they do there. Sines, square roots and sums come out the same; an arctangent may differ by an ulp between
devices, and so, in principle, a cell whose direction falls exactly between two bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vipocc.data_manifests.ground_truth.occupancy import (
    BLIND_RANGE,
    PROFILE_ANGLES,
    SLICE_GRID,
    OccupancyTruth,
    Rule,
    SliceGrid,
    checked_transforms,
    slice_grid,
)
from vipocc.data_manifests.ground_truth.sweeps import ANGULAR_BINS, check_sweep
from vipocc.errors import DataError, UsageError
from vipocc.geometry.poses import invert

CHUNK_POINTS = 16_000_000
"""Points and cells that are looked at together: about 1.5 GB of device memory for the while, beside the sweeps."""


@dataclass(frozen=True)
class DeviceSweep:
    """A sweep on a device, ordered by angular bin: the twin of `sweeps.Sweep`."""

    points: Tensor
    """[n, 3] in the sensor frame, bin after bin, in the order they came within one."""
    counts: Tensor
    """int64 [360], points of each bin."""

    @classmethod
    def load(cls, points: NDArray[Any], device: torch.device | str) -> DeviceSweep:
        """Copy points [n, 3] to a device and order them; raises DataError for fewer points than there are bins."""
        return cls.load_all([points], device)[0]

    @classmethod
    def load_all(cls, sweeps: Sequence[NDArray[Any]], device: torch.device | str) -> list[DeviceSweep]:
        """`load` of many sweeps at once, which on a GPU is far quicker than one by one."""
        for points in sweeps:
            check_sweep(points)
        loaded: list[DeviceSweep] = []
        for first, last in _chunks([len(points) for points in sweeps], CHUNK_POINTS):
            loaded += cls._load_chunk(sweeps[first:last], device)
        return loaded

    @classmethod
    def _load_chunk(cls, sweeps: Sequence[NDArray[Any]], device: torch.device | str) -> list[DeviceSweep]:
        sizes = [len(points) for points in sweeps]
        kind = torch.float32 if all(points.dtype == np.float32 for points in sweeps) else torch.float64
        moved = torch.empty((sum(sizes), 3), dtype=kind, device=device)
        for part, points in zip(moved.split(sizes), sweeps, strict=True):
            part.copy_(torch.from_numpy(np.require(points, requirements=["C", "W"])))
        keys = _owners(torch.tensor(sizes, device=device), len(moved)) * ANGULAR_BINS + _bins(moved)
        counts = torch.bincount(keys, minlength=len(sizes) * ANGULAR_BINS).reshape(-1, ANGULAR_BINS)
        ordered = moved[torch.sort(keys.int(), stable=True).indices]
        return [cls(points, held) for points, held in zip(ordered.split(sizes), counts, strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes of device memory."""
        return int(self.points.nbytes + self.counts.nbytes)


@torch.no_grad()
def occupancy_ground_truth_torch(
    sweeps: Sequence[DeviceSweep],
    level_from_velo: ArrayLike,
    grid: SliceGrid = SLICE_GRID,
    rule: Rule = "official",
    *,
    chunk_points: int = CHUNK_POINTS,
) -> OccupancyTruth:
    """Return the cells of `occupancy.occupancy_ground_truth`, computed where the sweeps are.

    Args:
        sweeps: of one device, the key frame's first.
        level_from_velo: [S, 4, 4], see there.
        grid: the slice.
        rule: official or paper.
        chunk_points: bounds the memory: sweeps are taken together up to so many points, at least one at a time.

    Raises:
        DataError: too few sweeps, or one with no point in the slice.
        UsageError: numbers of sweeps and transforms differ.
    """
    transforms, tolerance = checked_transforms(level_from_velo, rule)
    if len(sweeps) != len(transforms):
        raise UsageError(f"there are {len(sweeps)} sweeps for {len(transforms)} transforms")
    device = sweeps[0].points.device
    cells = torch.from_numpy(slice_grid(grid)).to(device)
    level = torch.from_numpy(np.ascontiguousarray(transforms)).to(device)
    velo = torch.from_numpy(invert(transforms)).to(device)
    seen_by = torch.zeros(len(cells), dtype=torch.int32, device=device)
    visible: Tensor | None = None
    # Cells cost as much as points do.
    for first, last in _chunks([len(one.points) + len(cells) for one in sweeps], chunk_points):
        ranges = _bin_ranges(sweeps[first:last], level[first:last], grid)
        profiles = _profiles(ranges, sweeps[first:last], transforms[first:last], grid, rule, first)
        seen = _seen(cells, velo[first:last], profiles, rule)
        visible = seen[0] if visible is None else visible
        seen_by += seen.sum(dim=0, dtype=torch.int32)
    assert visible is not None
    maps = torch.stack([seen_by <= tolerance, visible]).cpu().numpy().reshape(2, *grid.shape)
    return OccupancyTruth(maps[0], maps[1])


def _chunks(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    first, held = 0, 0
    for index, size in enumerate(sizes):
        if held and held + size > most:
            yield first, index
            first, held = index, 0
        held += size
    yield first, len(sizes)


def _owners(sizes: Tensor, total: int) -> Tensor:
    """Which sweep each of `total` points is of, int64, the points of one following those of the other."""
    return torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes, output_size=total)


def _bins(points: Tensor) -> Tensor:
    wide = points.double()
    position = (torch.atan2(wide[:, 1], wide[:, 0]) + np.pi) * (ANGULAR_BINS / (2.0 * np.pi))
    return position.long().clamp_(max=ANGULAR_BINS - 1)


def _moved(points: Tensor, coefficient: Callable[[int, int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of points [..., 3] after a transform given by its elements; products, summed from left to right."""
    x, y, z = points.unbind(-1)
    rows = [x * coefficient(i, 0) + y * coefficient(i, 1) + z * coefficient(i, 2) + coefficient(i, 3) for i in range(3)]
    return rows[0], rows[1], rows[2]


def _kept_ranges(points: Tensor, coefficient: Callable[[int, int], Tensor], grid: SliceGrid) -> Tensor:
    """Planar range of points [n, 3], inf for those out of the slice; level_from_velo by its elements."""
    wide = points.double()
    x, y, z = _moved(wide, coefficient)
    kept = ((y >= grid.y_range[0]) & (y <= grid.y_range[1])) | (x * x + y * y + z * z >= grid.reach**2)
    planar = torch.sqrt(wide[:, 0] * wide[:, 0] + wide[:, 1] * wide[:, 1])
    return torch.where(kept, planar, torch.inf)


def _bin_ranges(sweeps: Sequence[DeviceSweep], level_from_velo: Tensor, grid: SliceGrid) -> Tensor:
    """Nearest range of each bin [S, 360], inf where it has no point in the slice."""
    points = torch.cat([sweep.points for sweep in sweeps])
    lengths = torch.stack([sweep.counts for sweep in sweeps])
    # One pass over all points instead of one for each sweep: on a GPU, starting a kernel costs as much as a sweep does.
    owners = _owners(lengths.sum(dim=1), len(points))
    kept = _kept_ranges(points, lambda i, j: level_from_velo[:, i, j].index_select(0, owners), grid)
    nearest = torch.segment_reduce(kept, "min", lengths=lengths.reshape(-1), initial=torch.inf, unsafe=True)
    return nearest.reshape(len(sweeps), ANGULAR_BINS)


def _profiles(
    ranges: Tensor,
    sweeps: Sequence[DeviceSweep],
    transforms: NDArray[np.float64],
    grid: SliceGrid,
    rule: Rule,
    offset: int,
) -> Tensor:
    """Surface around the sensor [S, 362] by bin, wrapped by one on either side; a bin without points filled."""
    empty = torch.isinf(ranges)
    if rule == "paper":
        filled = torch.where(empty, 0.0, ranges)
    else:
        bins = torch.arange(ANGULAR_BINS, device=ranges.device)
        previous = torch.where(empty, -1, bins).cummax(dim=1).values
        filled = ranges.gather(1, previous.clamp(min=0))
        # Where the first bins are empty there is no direction before them: few sweeps, and few points of each.
        leading = torch.nonzero(empty[:, 0]).flatten().tolist()
        if leading:
            firsts = (~empty).int().argmax(dim=1).tolist()
            none = empty.all(dim=1).tolist()
            for index in leading:
                if none[index]:
                    raise DataError(
                        f"LiDAR sweep {offset + index} of the frame has no point at the height of the slice"
                    )
                filled[index, : firsts[index]] = _first_range(sweeps[index], transforms[index], firsts[index], grid)
    return torch.cat([filled[:, -1:], filled, filled[:, :1]], dim=1)


def _first_range(sweep: DeviceSweep, level_from_velo: NDArray[np.float64], first: int, grid: SliceGrid) -> float:
    """Range of the kept point of the smallest angle, which lies in bin `first`."""
    end = int(sweep.counts[: first + 1].sum())
    points = sweep.points[end - int(sweep.counts[first]) : end]
    ranges = _kept_ranges(points, lambda i, j: points.new_tensor(level_from_velo[i, j], dtype=torch.float64), grid)
    wide = points.double()
    angle = torch.where(torch.isinf(ranges), torch.inf, torch.atan2(wide[:, 1], wide[:, 0]))
    return float(ranges[angle.argmin()])


def _seen(cells: Tensor, velo_from_level: Tensor, profiles: Tensor, rule: Rule) -> Tensor:
    """Which cells [n, 3] each sweep sees, bool [S, n]."""
    x, y, z = _moved(cells, lambda i, j: velo_from_level[:, i, j, None])
    planar2 = x * x + y * y
    distance = torch.sqrt(planar2 + z * z + 1.0) if rule == "official" else torch.sqrt(planar2)
    surface = _interpolate(torch.atan2(y, x), profiles)
    return (distance <= surface) & (distance >= BLIND_RANGE)


def _interpolate(angle: Tensor, profiles: Tensor) -> Tensor:
    """Piecewise linear surface [S, n] at angles [S, n], as numpy.interp: slope times what is beyond the left end."""
    centres = torch.from_numpy(PROFILE_ANGLES).to(angle.device)
    left = (torch.searchsorted(centres, angle, right=True) - 1).clamp_(0, len(centres) - 2)
    low, start = profiles.gather(1, left), centres[left]
    slope = (profiles.gather(1, left + 1) - low) / (centres[left + 1] - start)
    return slope * (angle - start) + low
