"""The synthetic world on disk: KITTI-360's names and formats, read by a reader of our own test's making."""

import itertools
import json

import numpy as np
import pytest
from kitti_files import Files, four

from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.data_manifests.synthetic.generate import split_lines
from vipocc.data_manifests.synthetic.layout import drives

TRAIN, TEST = "synthetic_drive_0000_sync", "synthetic_drive_0001_sync"


@pytest.fixture(params=["world", "larger_world"])
def files(request):
    root, _ = request.getfixturevalue(request.param)
    return Files(root)


def test_sizes_follow_the_scale(world, larger_world):
    small, large = Files(world[0]), Files(larger_world[0])
    assert (small.width, small.height) == (211, 56)
    assert (large.width, large.height) == (422, 113)
    assert small.k[0, 0] / small.width == pytest.approx(large.k[0, 0] / large.width, rel=1e-9)
    assert (small.k[1, 2] + 0.5) / small.height == pytest.approx((large.k[1, 2] + 0.5) / large.height, rel=1e-9)


def test_stereo_is_rectified_with_the_rigs_baseline(files):
    right_from_left = np.linalg.inv(files.pose_from["image_01"]) @ files.pose_from["image_00"]
    np.testing.assert_allclose(right_from_left[:3, :3], np.eye(3), atol=1e-8)
    np.testing.assert_allclose(right_from_left[:3, 3], [-0.594, 0, 0], atol=1e-8)
    projection = files.perspective["P_rect_01"].reshape(3, 4)
    assert projection[0, 3] == pytest.approx(-0.594 * projection[0, 0])
    # The camera looks 5 degrees down (IMU frame: x forward, z down), as the occupancy protocol assumes.
    axis = files.pose_from["image_00"][:3, 2]
    assert np.rad2deg(np.arctan2(axis[2], axis[0])) == pytest.approx(5.0, abs=1e-3)


def test_the_traps_of_the_real_files_are_kept(files):
    text = (files.root / "calibration" / "calib_cam_to_pose.txt").read_text()
    assert all(line.endswith(" ") for line in text.splitlines())
    assert files.perspective["calib_time"] is None
    assert files.perspective["K_00"][-1] == 0
    assert files.fisheye("image_02")["xi"] == pytest.approx(2.21)
    assert files.fisheye("image_03")["image_width"] == files.image(TRAIN, "image_03", 1).shape[1]


def test_every_frame_has_its_images_sweep_pose_and_times(world):
    root, config = world
    files = Files(root)
    for drive, frames in ((TRAIN, config.train_frames), (TEST, config.test_frames)):
        ids, rows = files.poses(drive)
        assert list(ids) == list(range(1, frames + 1))
        assert rows.shape == (frames, 12)
        for i in ids:
            for camera in ("image_00", "image_01"):
                assert files.image(drive, camera, i).shape == (files.height, files.width, 3)
            for camera in ("image_02", "image_03"):
                assert files.image(drive, camera, i).shape == (211, 211, 3)
            sweep = files.sweep(drive, i)
            assert 3000 < len(sweep) < 6400
            assert np.isfinite(sweep).all()
            assert np.all((sweep[:, 3] >= 0) & (sweep[:, 3] < 1))
        for folder in (f"data_2d_raw/{drive}/image_00", f"data_3d_raw/{drive}/velodyne_points"):
            assert len((root / folder / "timestamps.txt").read_text().splitlines()) == frames + 1


def test_cam0_to_world_is_pose_times_calibration(files):
    ids, rows = files.poses(TRAIN, "cam0_to_world.txt")
    for i, row in zip(ids, rows, strict=True):
        expected = files.world_from_pose(TRAIN, i) @ files.pose_from["image_00"]
        np.testing.assert_allclose(row.reshape(4, 4), expected, atol=5e-6)
        truth = ExactTruth(files.root).world_from_camera(TRAIN, i, "image_00")
        np.testing.assert_allclose(truth, expected, atol=1e-9)


def test_the_car_moves_as_configured_and_stays_upright(world):
    files = Files(world[0])
    _, rows = files.poses(TRAIN)
    poses = [four(row) for row in rows]
    steps = [np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in itertools.pairwise(poses)]
    assert np.all((np.array(steps) > 0.75) & (np.array(steps) < 1.05))
    for pose in poses:
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
        assert pose[2, 2] < -0.999


def test_split_lists_are_in_the_published_format(world):
    root, _ = world
    text = (root / "splits" / "train_files.txt").read_text()
    assert not text.endswith("\n")
    assert text.splitlines()[:3] == [f"{TRAIN} 0000000001 l", f"{TRAIN} 0000000001 r", f"{TRAIN} 0000000002 l"]
    assert len(text.splitlines()) == 2 * 3
    assert (root / "splits" / "test_files.txt").read_text() == f"{TEST} 0000000001 l\n{TEST} 0000000002 l"
    assert (root / "splits" / "val_files.txt").read_text() == ""


def test_keys_of_long_drives_have_all_their_neighbours(world):
    config = world[1].model_copy(update={"train_frames": 40})
    lines = split_lines(config, "train")
    assert lines[-1] == f"{TRAIN} {40 - 11:010d} r"


def test_the_world_says_what_it_is(world):
    root, config = world
    readme = (root / "README.txt").read_text()
    assert "synthetic" in readme
    assert f"seed: {config.seed}" in readme
    record = json.loads((root / "world.json").read_text())
    assert record["complete"] is True
    assert record["config"]["scale"] == config.scale


def test_drives_differ_in_layout_palette_and_light(world):
    truth = ExactTruth(world[0])
    a, b = truth.scene(TRAIN), truth.scene(TEST)
    assert a.look["sun"] != b.look["sun"]
    assert a.look["asphalt"] != b.look["asphalt"]
    assert a.street.half_width != b.street.half_width
    assert len(a.shape) != len(b.shape)


def test_the_adapter_lists_the_drives_and_keys_of_the_world(files):
    from vipocc.data_manifests.config import DataConfig
    from vipocc.data_manifests.datasets import adapter

    reader = adapter("synthetic")
    truth = ExactTruth(files.root)
    tables = reader.index(files.root)
    assert list(tables) == [name for name, _, _ in drives(truth.config)]
    lists = reader.lists(files.root, DataConfig())
    for split in ("train", "test"):
        lines = [line.split() for line in split_lines(truth.config, split)]
        listed = {(name, side): [int(f) for n, f, s in lines if (n, s) == (name, side)] for name, _, side in lines}
        assert {drive: list(frames) for drive, frames in lists.frames.get(split, {}).items()} == listed
    before = reader.state(files.root)
    assert before == reader.state(files.root)
    for name, _, frames in drives(truth.config):
        sizes = tables[name].cameras["image_02"].file_size
        assert len(sizes) == frames
        assert np.all(sizes > 0)


def test_the_kitti_360_adapter_reads_it(files):
    from vipocc.data_manifests.datasets import kitti_360
    from vipocc.geometry.cameras import Mei

    truth = ExactTruth(files.root)
    tables = kitti_360.ADAPTER.index(files.root)
    assert set(tables) >= {TRAIN}
    table = tables[TRAIN]
    assert table.frame_ids[0] == 1
    assert np.all(np.diff(table.timestamp) > 0)
    for camera in ("image_00", "image_01"):
        model = table.cameras[camera].model
        np.testing.assert_allclose(model.matrix, truth.rig.stereo.matrix, atol=1e-9)
        assert model.size == truth.rig.stereo.size
        expected = truth.world_from_camera(TRAIN, 2, camera)
        np.testing.assert_allclose(table.cameras[camera].world_from_camera[1], expected, atol=1e-9)
    for camera in ("image_02", "image_03"):
        model, expected_model = table.cameras[camera].model, truth.rig.fisheyes[camera]
        assert isinstance(model, Mei)
        rays = np.random.default_rng(0).normal((0, 0, 3), size=(50, 3))
        np.testing.assert_allclose(model.project(rays), expected_model.project(rays), atol=1e-6)
        expected = truth.world_from_camera(TRAIN, 2, camera)
        np.testing.assert_allclose(table.cameras[camera].world_from_camera[1], expected, atol=1e-9)
    lidar = truth.scene(TRAIN).world_from_imu[0] @ truth.rig.imu_from_lidar
    np.testing.assert_allclose(table.world_from_lidar[0], lidar, atol=1e-9)
    assert all(np.all(table.cameras[c].file_size > 0) for c in table.cameras)
