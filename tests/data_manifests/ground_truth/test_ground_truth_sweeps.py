from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vipocc.data_manifests.ground_truth.sweeps import Sweep, SweepCache, angular_bin, read_velodyne
from vipocc.errors import DataError, UsageError


def cloud(seed: int, count: int = 2000) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 10, (count, 3)).astype(np.float32)


def test_read_velodyne_drops_reflectance(tmp_path: Path) -> None:
    path = tmp_path / "0000000007.bin"
    points = cloud(0, 5)
    np.column_stack([points, np.arange(5, dtype=np.float32)]).astype("<f4").tofile(path)
    read = read_velodyne(path)
    np.testing.assert_array_equal(read, points)
    assert read.dtype == np.float32
    assert read.flags.c_contiguous


def test_bad_scans_are_one_sentence_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "scan.bin"
    with pytest.raises(DataError, match=r"LiDAR scan is missing: .*scan.bin; download"):
        read_velodyne(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"truncated \(0 bytes"):
        read_velodyne(path)
    path.write_bytes(bytes(39))
    with pytest.raises(DataError, match=r"truncated \(39 bytes, 16 a point\): .*scan.bin"):
        read_velodyne(path)
    np.array([1, 2, np.nan, 0], dtype="<f4").tofile(path)
    with pytest.raises(DataError, match="not finite"):
        read_velodyne(path)


def test_sweep_is_the_same_points_by_bin() -> None:
    points = cloud(1)
    sweep = Sweep(points)
    bins = angular_bin(np.arctan2(sweep.points[:, 1].astype(float), sweep.points[:, 0].astype(float)))
    assert (np.diff(bins) >= 0).all()
    np.testing.assert_array_equal(np.searchsorted(bins, np.arange(361)), sweep.starts)
    np.testing.assert_array_equal(
        points[np.lexsort(points.T)], sweep.points[np.lexsort(sweep.points.T)], "no point is lost"
    )


@pytest.mark.parametrize(("first", "last"), [(-0.4, 0.9), (2.9, 3.5), (3.0, 6.1), (-3.1, -0.1)])
def test_part_holds_every_point_of_its_sector(first: float, last: float) -> None:
    points = cloud(2)
    angle = np.arctan2(points[:, 1].astype(float), points[:, 0].astype(float))
    inside = (angle - first) % (2 * np.pi) <= last - first
    part = {tuple(point) for point in Sweep.part(points, first, last).points}
    assert {tuple(point) for point in points[inside]} <= part
    near = (angle - first + 0.01) % (2 * np.pi) <= last - first + 0.02
    assert len(part) <= near.sum()


def test_angular_bins_cover_the_circle() -> None:
    assert angular_bin(np.array([-np.pi, -1e-9, 1e-9, np.pi])).tolist() == [0, 179, 180, 359]


def test_cache_loads_each_sweep_of_a_sliding_window_once() -> None:
    loaded: list[int] = []

    def load(row: int) -> np.ndarray:
        loaded.append(row)
        return cloud(row, 400)

    cache = SweepCache(load, capacity=4)
    for first in range(5):
        for row in range(first, first + 4):
            assert cache[row].points.shape == (400, 3)
    assert loaded == list(range(8))
    assert len(cache) == 4
    cache[0]
    assert loaded[-1] == 0, "a sweep that left the window is loaded again"


def test_sparse_sweeps_and_empty_caches_are_refused() -> None:
    with pytest.raises(DataError, match="too sparse for 360 directions"):
        Sweep(cloud(0, 359))
    with pytest.raises(UsageError, match="capacity must be at least 1"):
        SweepCache(cloud, capacity=0)
