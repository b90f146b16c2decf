"""LiDAR sweeps: reading Velodyne files, and a form of them that repeated use by many frames makes worth preparing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError, UsageError
from vipocc.geometry.shapes import expect_rank

Float32: TypeAlias = NDArray[np.float32]
S = TypeVar("S")

ANGULAR_BINS = 360
"""One-degree bins around the sensor's vertical axis (published_system.md 7.2)."""

_BYTES_PER_POINT = 16


def read_velodyne(path: Path) -> Float32:
    """Points [n, 3] of a KITTI .bin file (x forward, y left, z up, metres, sensor frame); reflectance is dropped.

    Raises DataError for a file that is absent, empty, cut in the middle of a point, or holds NaN or infinity.
    """
    again = "download the velodyne scans again"
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError("LiDAR scan is missing", where=path, fix=again) from None
    if not raw or len(raw) % _BYTES_PER_POINT:
        raise DataError(f"LiDAR scan is truncated ({len(raw)} bytes, 16 a point)", where=path, fix=again)
    points = np.frombuffer(raw, dtype="<f4").reshape(-1, 4)[:, :3]
    if not np.isfinite(points).all():
        raise DataError("LiDAR scan holds values that are not finite numbers", where=path, fix=again)
    return np.ascontiguousarray(points, dtype=np.float32)


def angular_bin(angle: NDArray[np.float64]) -> NDArray[np.intp]:
    """Bin 0..359 of angles in [-pi, pi]."""
    position = (angle + np.pi) * (ANGULAR_BINS / (2.0 * np.pi))
    return np.minimum(position.astype(np.intp), ANGULAR_BINS - 1)


def check_sweep(points: NDArray[Any]) -> None:
    """Raise unless `points` is [n, 3] with at least one point for each angular bin on average."""
    expect_rank("points", points, None, 3)
    if len(points) < ANGULAR_BINS:
        raise DataError(f"a sweep of {len(points)} points is too sparse for {ANGULAR_BINS} directions")


class Sweep:
    """The points of one sweep ordered by angular bin.

    The order depends on the sweep alone, so one preparation serves every frame that uses the sweep, and the points
    that can hide a given cell lie in one or two contiguous stretches. 12 bytes a point.
    """

    points: NDArray[Any]
    """[n, 3] in the sensor frame, bin after bin, in the dtype that came in."""
    starts: NDArray[np.intp]
    """[361] where each bin begins in `points`, and the end of the last."""

    def __init__(self, points: NDArray[Any]) -> None:
        """Sort points [n, 3] in the sensor frame; raises DataError for fewer points than there are bins."""
        check_sweep(points)
        self._order(points)

    @classmethod
    def part(cls, points: NDArray[Any], first_angle: float, last_angle: float) -> Sweep:
        """The points of a sweep from `first_angle` counter-clockwise to `last_angle`, less than half a turn away.

        A little more on either side; far quicker than sorting the whole sweep for one frame.
        """
        low, high = first_angle - 1e-3, last_angle + 1e-3
        x, y = points[:, 0], points[:, 1]
        inside = y * float(np.cos(low)) >= x * float(np.sin(low))
        inside &= x * float(np.sin(high)) >= y * float(np.cos(high))
        sweep = cls.__new__(cls)
        sweep._order(points[inside])
        return sweep

    def _order(self, points: NDArray[Any]) -> None:
        x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
        bins = angular_bin(np.arctan2(y, x)).astype(np.int16)
        # take() is four times as fast here as indexing.
        self.points = np.take(points, np.argsort(bins, kind="stable"), axis=0)
        counts = np.bincount(bins, minlength=ANGULAR_BINS)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)


class SweepCache(Generic[S]):
    """Prepared sweeps of a sliding window: each is loaded and sorted once while consecutive frames share it.

    `load` returns the points [n, 3] of a row, `prepare` what is kept of them, by default a `Sweep`. `capacity` should
    be at least the number of sweeps that a frame accumulates; 300 sweeps of 120,000 points take 430 MB.
    """

    def __init__(
        self,
        load: Callable[[int], NDArray[Any]],
        capacity: int = 320,
        prepare: Callable[[NDArray[Any]], S] = Sweep,  # type: ignore[assignment]
    ) -> None:
        if capacity < 1:
            raise UsageError(f"capacity must be at least 1, not {capacity}")
        self._load, self._prepare = load, prepare
        self._capacity = capacity
        self._sweeps: OrderedDict[int, S] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sweeps)

    def __getitem__(self, row: int) -> S:
        """The sweep of `row`, from memory if it was used lately."""
        sweep = self._sweeps.get(row)
        if sweep is None:
            sweep = self._prepare(self._load(row))
            while len(self._sweeps) >= self._capacity:
                self._sweeps.popitem(last=False)
            self._sweeps[row] = sweep
        else:
            self._sweeps.move_to_end(row)
        return sweep
