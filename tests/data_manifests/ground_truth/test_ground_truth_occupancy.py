from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vipocc.data_manifests.ground_truth.occupancy import (
    Rule,
    angular_profile,
    angular_profile_reference,
    level_from_world,
    occupancy_ground_truth,
    occupancy_ground_truth_reference,
    slice_grid,
)
from vipocc.data_manifests.ground_truth.sweeps import Sweep, SweepCache, read_velodyne
from vipocc.errors import DataError, UsageError
from vipocc.geometry.poses import check_rigid, from_rotation, invert, rotation_x, rotation_y, transform_points

LEVEL_FROM_VELO = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.1], [1, 0, 0, 0], [0, 0, 0, 1]])


def drive(seed: int, sweeps: int, count: int, spacing: float) -> tuple[list[np.ndarray], np.ndarray]:
    """A crowded street: posts that stay where they are, and points anywhere, seen from a swaying sensor."""
    rng = np.random.default_rng(seed)
    posts = rng.uniform([-6, 0, 2], [6, 0.75, 26], (40, 3))
    clouds, transforms = [], []
    for index in range(sweeps):
        wobble = from_rotation(rotation_x(rng.normal(0, 0.02)) @ rotation_y(rng.normal(0, 0.3)))
        step = np.eye(4)
        step[:3, 3] = rng.normal(0, 0.2), rng.normal(0, 0.05), index * spacing
        level_from_velo = step @ wobble @ LEVEL_FROM_VELO
        on_posts = posts[rng.integers(0, 40, count - 100)] + rng.normal(0, [0.4, 0.2, 0.4], (count - 100, 3))
        anywhere = rng.uniform([-12, -3, -40], [12, 2, 40], (100, 3))
        clouds.append(transform_points(invert(level_from_velo), np.concatenate([on_posts, anywhere])))
        transforms.append(level_from_velo)
    return [cloud.astype(np.float32) for cloud in clouds], np.array(transforms)


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 10_000),
    st.integers(3, 12),
    st.sampled_from([400, 700, 3000]),
    st.sampled_from([0.0, 1.0, 6.0]),
    st.sampled_from(["official", "paper"]),
)
def test_fast_gives_the_cells_of_the_plain_loop(seed: int, count: int, points: int, spacing: float, rule: Rule) -> None:
    """Sparse sweeps leave bins empty, distant ones look at the slice from in front, from behind and across the seam."""
    sweeps, transforms = drive(seed, count, points, spacing)
    expected = occupancy_ground_truth_reference(sweeps, transforms, rule=rule)
    from_points = occupancy_ground_truth(sweeps, transforms, rule=rule)
    from_prepared = occupancy_ground_truth((Sweep(sweep) for sweep in sweeps), transforms, rule=rule)
    for got in (from_points, from_prepared):
        np.testing.assert_array_equal(got.occupied, expected.occupied)
        np.testing.assert_array_equal(got.visible, expected.visible)


def test_the_random_drives_are_neither_full_nor_empty() -> None:
    sweeps, transforms = drive(1, 12, 3000, 1.0)
    for rule in ("official", "paper"):
        truth = occupancy_ground_truth(sweeps, transforms, rule=rule)
        assert 0.02 < truth.occupied.mean() < 0.98
        assert 0.02 < truth.visible.mean() < 0.98


@pytest.mark.parametrize("rule", ["official", "paper"])
@pytest.mark.parametrize("points", [400, 1500])
def test_fast_profile_is_the_plain_one(rule: Rule, points: int) -> None:
    sweeps, transforms = drive(3, 4, points, 2.0)
    for sweep, transform in zip(sweeps, transforms, strict=True):
        fast = angular_profile(Sweep(sweep), transform, rule=rule)
        plain = angular_profile_reference(sweep, transform, rule=rule)
        np.testing.assert_array_equal(fast[:, 1], plain[:, 1])
        np.testing.assert_allclose(fast[:, 0], plain[:, 0], atol=1e-12)


def wall_scene(distance: float, sweeps: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The same wall across the road seen from one place, again and again."""
    angle = np.linspace(-np.pi, np.pi, 7200, endpoint=False)
    planar = np.where(np.abs(angle) < 1.2, distance / np.cos(angle), 30.0)
    points = np.stack([planar * np.cos(angle), planar * np.sin(angle), np.full(7200, -0.5)], axis=-1)
    return [points] * sweeps, np.repeat(LEVEL_FROM_VELO[None], sweeps, axis=0)


def test_rules_by_hand_on_a_wall() -> None:
    sweeps, transforms = wall_scene(10.0, 5)
    z = slice_grid().reshape(160, 80, 3)[..., 2]
    paper = occupancy_ground_truth(sweeps, transforms, rule="paper")
    np.testing.assert_array_equal(paper.occupied, ~paper.visible)
    # One-degree bins take their nearest point, so the surface lies up to 1.5 degrees of wall before it.
    assert paper.occupied[z > 10.0].all()
    assert not paper.occupied[z < 9.85].any()
    # The released rule compares sqrt(range^2 + height^2 + 1) with the range: the wall stands 7 cm nearer.
    official = occupancy_ground_truth(sweeps, transforms)
    ahead = np.abs(slice_grid().reshape(160, 80, 3)[..., 0]) < 0.1
    first_free = z[ahead & ~official.occupied].max()
    assert 9.8 < first_free < 9.97


def test_official_rule_lets_two_sweeps_see_through() -> None:
    blocked, transforms = wall_scene(6.0, 5)
    seeing = wall_scene(25.0, 1)[0][0]
    far = slice_grid().reshape(160, 80, 3)[..., 2] > 7.0
    for see_through, expected in ((2, True), (3, False)):
        sweeps = [seeing] * see_through + blocked[see_through:]
        assert (occupancy_ground_truth(sweeps, transforms).occupied[far] == expected).all()
        assert not occupancy_ground_truth(sweeps, transforms, rule="paper").occupied[far].any()
        assert occupancy_ground_truth(sweeps, transforms).visible[far].all()


def test_cells_within_three_metres_of_the_sensor_are_not_seen() -> None:
    sweeps, transforms = wall_scene(25.0, 3)
    transforms[:, 2, 3] = 6.0
    cells = slice_grid().reshape(160, 80, 3)
    planar = np.hypot(cells[..., 0], cells[..., 2] - 6.0)
    visible = occupancy_ground_truth(sweeps, transforms, rule="paper").visible
    assert not visible[planar < 3.0].any()
    assert visible[(planar > 3.0) & (cells[..., 2] > 6.0)].all()


def test_a_direction_without_returns_sees_nothing_or_what_its_neighbour_sees() -> None:
    sweeps, transforms = wall_scene(25.0, 3)
    angle = np.rad2deg(np.arctan2(sweeps[0][:, 1], sweeps[0][:, 0]))
    gap = [sweep[(angle < -10) | (angle > 10)] for sweep in sweeps]
    cells = slice_grid().reshape(160, 80, 3)
    ahead = np.abs(cells[..., 0]) < 0.1 * cells[..., 2]
    assert not occupancy_ground_truth(gap, transforms, rule="official").occupied[ahead].any()
    assert occupancy_ground_truth(gap, transforms, rule="paper").occupied[ahead].all()


def test_points_out_of_the_slice_height_do_not_hide() -> None:
    sweeps, transforms = wall_scene(25.0, 3)
    ground = wall_scene(6.0, 1)[0][0] - [0, 0, 1.2]
    bumpy = [np.concatenate([sweep, ground]) for sweep in sweeps]
    assert not occupancy_ground_truth(bumpy, transforms).occupied.any()
    # Past the reach of the grid points of any height count: the released rule, seen from 28 m down the road.
    transforms[:, 2, 3] = 28.0
    behind = [sweep * [-1, -1, 1] for sweep in bumpy]
    assert occupancy_ground_truth(behind, transforms).occupied.all()


def test_level_frame_is_the_camera_tilted_five_degrees() -> None:
    pose = from_rotation(rotation_y(0.7))
    pose[:3, 3] = 1000.0, 2000.0, 3.0
    level = level_from_world(pose)
    check_rigid(level, "level")
    np.testing.assert_allclose(level @ pose[:, 3], [0, 0, 0, 1], atol=1e-9)
    tilt = (level @ pose)[:3, :3]
    np.testing.assert_allclose(tilt, [[1, 0, 0], [0, 0.9961947, 0.0871557], [0, -0.0871557, 0.9961947]], atol=1e-7)
    # The optical axis looks below the level plane: y is down.
    assert (tilt @ [0, 0, 1])[1] > 0


@pytest.mark.parametrize("compute", [occupancy_ground_truth, occupancy_ground_truth_reference])
def test_too_little_data_is_refused(compute) -> None:
    sweeps, transforms = wall_scene(10.0, 5)
    with pytest.raises(DataError, match="2 LiDAR sweeps are too few: with less than 3"):
        compute(sweeps[:2], transforms[:2])
    with pytest.raises(DataError, match="0 LiDAR sweeps are too few"):
        compute([], transforms[:0], rule="paper")
    with pytest.raises(DataError, match="sweep of 359 points is too sparse"):
        compute([sweeps[0][:359], *sweeps[1:]], transforms)
    with pytest.raises(DataError, match="no point at the height of the slice"):
        compute([sweep * [0.1, 0.1, 1] + [0, 0, 5.0] for sweep in sweeps], transforms)
    with pytest.raises(UsageError, match="there are 4 sweeps for 5 transforms"):
        compute(sweeps[:4], transforms)
    with pytest.raises(UsageError, match="more sweeps than the 4 transforms"):
        compute(sweeps, transforms[:4])
    with pytest.raises(UsageError, match="rule must be 'official' or 'paper', not 'median'"):
        compute(sweeps, transforms, rule="median")
    with pytest.raises(UsageError, match=r"points must have shape \[any, 3\], not \[7200, 2\]"):
        compute([sweep[:, :2] for sweep in sweeps], transforms)


def test_sweeps_are_consumed_one_at_a_time() -> None:
    sweeps, transforms = wall_scene(10.0, 5)
    alive: list[int] = []

    def stream():
        for index, sweep in enumerate(sweeps):
            alive.append(index)
            yield sweep

    truth = occupancy_ground_truth(stream(), transforms)
    assert alive == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(truth.occupied, occupancy_ground_truth(sweeps, transforms).occupied)


def test_real_sweeps_of_drive_0008(sample_data: Path) -> None:
    root = sample_data / "KITTI-360"
    sequence = "2013_05_28_drive_0008_sync"
    velo_from_camera = np.eye(4)
    velo_from_camera[:3] = np.loadtxt(root / "calibration/calib_cam_to_velo.txt").reshape(3, 4)
    lines = (line.split(":") for line in (root / "calibration/calib_cam_to_pose.txt").read_text().splitlines())
    calibration = {key: np.array(values.split(), dtype=np.float64) for key, values in lines}
    imu_from_camera = np.eye(4)
    imu_from_camera[:3] = calibration["image_00"].reshape(3, 4)
    rows = np.loadtxt(root / f"data_poses/{sequence}/poses.txt")
    world_from_imu = {int(row[0]): np.vstack([row[1:].reshape(3, 4), [0, 0, 0, 1]]) for row in rows}
    level = level_from_world(world_from_imu[3000] @ imu_from_camera)

    frames = [frame for frame in range(3000, 3005) if frame in world_from_imu]
    cache = SweepCache(
        lambda frame: read_velodyne(root / f"data_3d_raw/{sequence}/velodyne_points/data/{frame:010d}.bin")
    )
    transforms = np.array(
        [level @ world_from_imu[frame] @ imu_from_camera @ invert(velo_from_camera) for frame in frames]
    )
    check_rigid(transforms, "level_from_velo")
    assert len(frames) >= 3
    # The scanner sits 0.8 m behind the left camera, to the right of it and above.
    np.testing.assert_allclose(transforms[0, :3, 3], [0.26, -0.18, -0.82], atol=0.02)
    for rule in ("official", "paper"):
        truth = occupancy_ground_truth((cache[frame] for frame in frames), transforms, rule=rule)
        expected = occupancy_ground_truth_reference((cache[frame].points for frame in frames), transforms, rule=rule)
        np.testing.assert_array_equal(truth.occupied, expected.occupied)
        np.testing.assert_array_equal(truth.visible, expected.visible)
        # The car drives through the middle column next: the nearest 4 m of it are free.
        assert not truth.occupied[-40:, 36:44].any()
        assert truth.visible[-40:, 36:44].all()
        assert truth.occupied.any()


@pytest.mark.slow
def test_benchmark_shows_the_fast_path_at_least_four_times_faster() -> None:
    script = Path(__file__).parents[3] / "benchmarks/occupancy_ground_truth.py"
    done = subprocess.run(
        [sys.executable, str(script), "--sweeps", "60", "--device", "cpu"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    result = json.loads(done.stdout)
    assert result["same_cells"]
    assert result["device_same_cells"]
    assert result["occupied_cells"] > 0
    assert result["ratio_warm"] >= 4.0
    assert result["ratio_cold"] >= 4.0
