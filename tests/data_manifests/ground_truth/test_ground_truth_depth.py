from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vipocc.data_manifests.ground_truth.depth_raster import (
    eigen_mask,
    last_write_then_minimum,
    last_write_then_minimum_reference,
    pixel_hits,
    sparse_depth,
    sparse_depth_eigen,
    sparse_depth_official,
    sparse_depth_reference,
)
from vipocc.data_manifests.ground_truth.sweeps import read_velodyne
from vipocc.errors import UsageError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import intrinsics_to_ndc, resize_intrinsics
from vipocc.geometry.poses import from_rotation, invert, transform_points

SIZE = (6, 10)
CAMERA_FROM_LIDAR = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
K = np.array([[5.0, 0, 4.5], [0, 5.0, 2.5], [0, 0, 1]])


def at_pixel(u: float, v: float, z: float) -> list[float]:
    """LiDAR point that projects to pixel (u, v) at depth z; z may be negative."""
    x, y = (u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z
    return [z, -x, -y]


def read_calibration(path: Path) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for line in path.read_text().splitlines():
        key, _, rest = line.partition(":")
        try:
            values[key] = np.array(rest.split(), dtype=np.float64)
        except ValueError:
            continue
    return values


def test_nearest_point_in_front_wins_and_pixels_reach_half_a_pixel_out() -> None:
    points = np.array(
        [
            at_pixel(3, 2, 9.0),
            at_pixel(3.4, 1.6, 4.0),
            at_pixel(3, 2, 6.0),
            at_pixel(3, 2, -2.0),
            at_pixel(-0.49, -0.49, 5.0),
            at_pixel(9.49, 5.49, 7.0),
            at_pixel(-0.51, 3, 5.0),
            at_pixel(9.51, 3, 5.0),
        ]
    )
    depth = sparse_depth(points, CAMERA_FROM_LIDAR, K, SIZE)
    expected = np.full(SIZE, np.nan, dtype=np.float32)
    expected[2, 3], expected[0, 0], expected[5, 9] = 4.0, 5.0, 7.0
    np.testing.assert_allclose(depth, expected)
    assert depth.dtype == np.float32


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 400))
def test_raster_is_the_plain_loop(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).uniform([-5, -6, -4], [12, 6, 4], (count, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        sparse_depth(points, CAMERA_FROM_LIDAR, K, SIZE),
        sparse_depth_reference(points, CAMERA_FROM_LIDAR, K, SIZE),
    )


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 300))
def test_released_collision_rule_is_the_plain_loop(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, SIZE[0], count), rng.integers(0, SIZE[1], count)
    z = rng.uniform(-5, 60, count)
    np.testing.assert_array_equal(
        last_write_then_minimum(rows, columns, z, SIZE), last_write_then_minimum_reference(rows, columns, z, SIZE)
    )


def official(*points: list[float]) -> np.ndarray:
    ndc = intrinsics_to_ndc(K, SIZE, "official")
    return sparse_depth_official(np.array(points), CAMERA_FROM_LIDAR, ndc, SIZE)


def test_official_raster_lets_a_mirrored_point_erase_a_real_one() -> None:
    assert official(at_pixel(3, 2, 6.0))[2, 3] == pytest.approx(6.0)
    assert np.isnan(official(at_pixel(3, 2, 6.0), at_pixel(3, 2, -4.0))).all()
    assert np.isfinite(
        sparse_depth(np.array([at_pixel(3, 2, 6.0), at_pixel(3, 2, -4.0)]), CAMERA_FROM_LIDAR, K, SIZE)
    ).any()


def test_official_raster_confuses_the_last_column_with_the_next_first() -> None:
    depth = official(at_pixel(9, 2, 8.0), at_pixel(0, 3, 5.0))
    assert depth[2, 9] == pytest.approx(5.0), "the minimum of both lands in the first point's pixel"
    assert depth[3, 0] == pytest.approx(5.0)


def test_official_raster_rounds_half_to_even() -> None:
    depth = official(at_pixel(4.5, 2.5, 8.0))
    assert depth[2, 4] == pytest.approx(8.0)
    ours = sparse_depth(np.array([at_pixel(4.5, 2.5, 8.0)]), CAMERA_FROM_LIDAR, K, SIZE)
    assert ours[3, 5] == pytest.approx(8.0)


def test_points_in_the_camera_plane_and_empty_sweeps_are_harmless() -> None:
    plane = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    for depth in (
        sparse_depth(plane, CAMERA_FROM_LIDAR, K, SIZE),
        sparse_depth(plane[:0], CAMERA_FROM_LIDAR, K, SIZE),
        official(*plane.tolist()),
        sparse_depth_eigen(plane, K @ CAMERA_FROM_LIDAR[:3], SIZE),
        sparse_depth_eigen(plane[:0], K @ CAMERA_FROM_LIDAR[:3], SIZE),
    ):
        assert depth.shape == SIZE
        assert np.isnan(depth).all()


def test_shapes_are_told() -> None:
    with pytest.raises(UsageError, match=r"points must have shape \[any, 3\], not \[5, 4\]"):
        sparse_depth(np.zeros((5, 4)), CAMERA_FROM_LIDAR, K, SIZE)
    with pytest.raises(UsageError, match=r"image_from_lidar must have shape \[3, 4\], not \[4, 4\]"):
        sparse_depth_eigen(np.ones((5, 3)), CAMERA_FROM_LIDAR, SIZE)


def test_kitti_raw_known_numbers(sample_data: Path) -> None:
    day = sample_data / "KITTI-raw/2011_09_26"
    cameras, velo = read_calibration(day / "calib_cam_to_cam.txt"), read_calibration(day / "calib_velo_to_cam.txt")
    camera_from_velo = from_rotation(velo["R"].reshape(3, 3))
    camera_from_velo[:3, 3] = velo["T"]
    rectified = from_rotation(cameras["R_rect_00"].reshape(3, 3)) @ camera_from_velo
    points = read_velodyne(day / "2011_09_26_drive_0002_sync/velodyne_points/data/0000000000.bin")
    depth = sparse_depth_eigen(points, cameras["P_rect_02"].reshape(3, 4) @ rectified, (375, 1242))
    assert int(np.isfinite(depth).sum()) == 19_137
    assert float(np.nanmedian(depth)) == pytest.approx(13.0167, abs=5e-5)
    assert int(eigen_mask(depth).sum()) == 17_197


@pytest.fixture
def kitti_360_frame_250(sample_data: Path) -> tuple[np.ndarray, np.ndarray, Pinhole]:
    root = sample_data / "KITTI-360"
    perspective = read_calibration(root / "calibration/perspective.txt")
    velo_from_camera = np.eye(4)
    velo_from_camera[:3] = np.loadtxt(root / "calibration/calib_cam_to_velo.txt").reshape(3, 4)
    camera_from_velo = from_rotation(perspective["R_rect_00"].reshape(3, 3)) @ invert(velo_from_camera)
    k = perspective["P_rect_00"].reshape(3, 4)[:, :3]
    points = read_velodyne(root / "data_3d_raw/2013_05_28_drive_0000_sync/velodyne_points/data/0000000250.bin")
    return points, camera_from_velo, Pinhole.from_matrix(k, (376, 1408))


def test_kitti_360_known_numbers(kitti_360_frame_250: tuple[np.ndarray, np.ndarray, Pinhole]) -> None:
    points, camera_from_velo, camera = kitti_360_frame_250
    assert len(points) == 119_901
    u, v = camera.project(transform_points(camera_from_velo, points.astype(np.float64))).T
    with np.errstate(invalid="ignore"):
        inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    assert int(inside.sum()) == 27_523
    # Pixel centres at integers move the image's edge by half a pixel, and 35 points with it.
    hits = pixel_hits(points, camera_from_velo, camera.matrix, camera.size)
    assert len(hits.depth) == 27_488


def test_real_depth_at_the_training_size(kitti_360_frame_250: tuple[np.ndarray, np.ndarray, Pinhole]) -> None:
    points, camera_from_velo, camera = kitti_360_frame_250
    size = (192, 640)
    k = resize_intrinsics(camera.matrix, camera.size, size, "centre")
    depth = sparse_depth(points, camera_from_velo, k, size)
    np.testing.assert_array_equal(depth, sparse_depth_reference(points, camera_from_velo, k, size))
    valid = np.isfinite(depth)
    assert 0.05 < valid.mean() < 0.25
    assert 2.0 < np.nanmin(depth) < np.nanmax(depth) < 130.0
    # Nothing above the scanner's +2 degrees, and the road grows nearer towards the bottom.
    assert not valid[:40].any()
    assert np.nanmedian(depth[180:]) < np.nanmedian(depth[130:140]) < np.nanmedian(depth[90:100])

    released = sparse_depth_official(
        points, camera_from_velo, intrinsics_to_ndc(camera.matrix, camera.size, "official"), size
    )
    both = valid & np.isfinite(released)
    assert both.sum() > 0.5 * valid.sum()
    # Mirrored points cost the released raster valid pixels.
    assert np.isfinite(released).sum() < valid.sum()
    assert np.median(np.abs(depth - released)[both]) < 0.3
