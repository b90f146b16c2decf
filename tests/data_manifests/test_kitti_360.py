"""The KITTI-360 adapter on real samples and on small trees."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from kitti_tree import DRIVE, SECOND, Tree, make_tree

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import kitti_360
from vipocc.data_manifests.datasets.kitti_360_calibration import read_calibration, read_poses
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import prepared_intrinsics, prepared_poses
from vipocc.errors import DataError
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.poses import relative

REAL = "2013_05_28_drive_0000_sync"


@pytest.fixture(scope="module")
def real(sample_data: Path) -> Manifest:
    root = sample_data / "KITTI-360"
    return Manifest("kitti-360", root, kitti_360.ADAPTER.index(root))


def test_posed_frames_of_drive_0000(real: Manifest) -> None:
    assert real.rows(REAL) == 10_514
    assert real.frame_ids(REAL)[-1] == 11_501
    assert real.row_of(REAL, 700) == 609
    assert real.cameras(REAL) == ["image_00", "image_01", "image_02", "image_03"]
    assert np.flatnonzero(real.has_image(REAL, "image_01")).tolist() == [
        real.row_of(REAL, k) for k in (250, 700, 701, 702)
    ]
    assert np.flatnonzero(real.has_lidar(REAL)).tolist() == [real.row_of(REAL, 250)]
    assert np.isnan(real.timestamps(REAL)).all()


def test_intrinsics_are_those_of_the_rectified_images(real: Manifest) -> None:
    model = real.camera_model(REAL, "image_00")
    assert model == Pinhole(552.554261, 552.554261, 682.049453, 238.769549, 1408, 376)
    fisheye = real.camera_model(REAL, "image_03")
    assert isinstance(fisheye, Mei)
    assert (fisheye.xi, fisheye.v0, fisheye.width) == (2.5535139132482758, 698.14541887723055, 1400)


def test_left_camera_pose_is_the_published_chain(real: Manifest, sample_data: Path) -> None:
    """cam0 = poses x cam_to_pose x inv(R_rect_00), written out here from the raw files."""
    folder = sample_data / "KITTI-360"
    text = (folder / "calibration/perspective.txt").read_text().splitlines()
    rectify = np.eye(4)
    numbers = next(line for line in text if line.startswith("R_rect_00:")).split()[1:]
    rectify[:3, :3] = np.array(numbers, float).reshape(3, 3)
    to_pose = np.eye(4)
    first = (folder / "calibration/calib_cam_to_pose.txt").read_text().splitlines()[0].split()
    to_pose[:3] = np.array(first[1:], float).reshape(3, 4)
    line = (folder / "data_poses" / REAL / "poses.txt").read_text().splitlines()[609].split()
    pose = np.eye(4)
    pose[:3] = np.array(line[1:], float).reshape(3, 4)
    assert line[0] == "700"
    expected = pose @ to_pose @ np.linalg.inv(rectify)
    np.testing.assert_allclose(real.world_from_camera(REAL, "image_00")[609], expected, rtol=0, atol=1e-9)


def test_stereo_baseline(real: Manifest) -> None:
    left_from_right = relative(
        real.world_from_camera(REAL, "image_00")[100], real.world_from_camera(REAL, "image_01")[100]
    )
    assert left_from_right[0, 3] == pytest.approx(0.5942, abs=5e-5)
    np.testing.assert_allclose(left_from_right[1:3, 3], 0, atol=2e-3)
    np.testing.assert_allclose(left_from_right[:3, :3], np.eye(3), atol=2e-3)


def test_lidar_sees_what_the_camera_sees(real: Manifest) -> None:
    row = real.row_of(REAL, 250)
    camera_from_lidar = relative(real.world_from_camera(REAL, "image_00")[row], real.world_from_lidar(REAL)[row])
    path = real.lidar_path(REAL, row)
    assert path is not None
    points = np.fromfile(path, np.float32).reshape(-1, 4)
    assert len(points) == 119_901
    local = points[:, :3] @ camera_from_lidar[:3, :3].T + camera_from_lidar[:3, 3]
    model = real.camera_model(REAL, "image_00")
    with np.errstate(invalid="ignore"):
        u, v = model.project(local).T
    inside = (local[:, 2] > 0) & (u >= 0) & (u < model.width) & (v >= 0) & (v < model.height)
    assert int(inside.sum()) == pytest.approx(27_523, abs=150)


def test_virtual_camera_looks_fifteen_degrees_down(real: Manifest) -> None:
    config = DataConfig()
    raw = real.world_from_camera(REAL, "image_02")[5]
    virtual = prepared_poses(real, REAL, "image_02", config)[5]
    axis = raw[:3, :3].T @ virtual[:3, 2]
    np.testing.assert_allclose(axis, [0, 0.258819, 0.965926], atol=1e-5)
    np.testing.assert_array_equal(raw[:3, 3], virtual[:3, 3])
    np.testing.assert_array_equal(
        prepared_intrinsics(real, REAL, "image_02", config), prepared_intrinsics(real, REAL, "image_00", config)
    )
    scaled = prepared_intrinsics(real, REAL, "image_00", config)
    assert scaled[0, 0] == pytest.approx(552.554261 * 640 / 1408)
    assert scaled[1, 2] == pytest.approx((238.769549 + 0.5) * 192 / 376 - 0.5)
    official = prepared_intrinsics(real, REAL, "image_00", DataConfig(convention="official"))
    assert official[1, 2] == pytest.approx(238.769549 * 192 / 376)


def test_drive_0008_has_scans_and_left_images(real: Manifest) -> None:
    drive = "2013_05_28_drive_0008_sync"
    assert real.frame_ids(drive)[np.flatnonzero(real.has_lidar(drive))].tolist() == [3000, 3001, 3002, 3003, 3004]
    assert real.has_image(drive, "image_00").sum() == 3
    assert not real.has_image(drive, "image_01").any()


def test_timestamps_are_read_by_frame_number(tree: Tree) -> None:
    path = tree.root / "data_2d_raw" / DRIVE / "image_00/timestamps.txt"
    path.write_text("".join(f"2013-05-28 08:46:{k:02d}.500000000\n" for k in range(10)))
    table = kitti_360.ADAPTER.index(tree.root)[DRIVE]
    assert table.timestamp[0] == np.datetime64("2013-05-28T08:46:01.5").astype("datetime64[ns]").astype(float) / 1e9
    assert np.isnan(table.timestamp[9:]).all()
    assert np.isfinite(table.timestamp[:9]).all()


def test_sizes_come_from_the_calibration(tree: Tree) -> None:
    path = tree.calibration("perspective.txt")
    path.write_text(path.read_text().replace("160.0 48.0", "320.0 96.0"))
    model = read_calibration(tree.root / "calibration").models["image_01"]
    assert (model.width, model.height) == (320, 96)


def test_drive_of_ten_thousand_frames_is_indexed_quickly(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "root", (DRIVE,), 1)
    count = 10_000
    poses = "".join(f"{k} 1 0 0 {k} 0 1 0 0 0 0 1 0\n" for k in range(1, count + 1))
    tree.poses(DRIVE).write_text(poses)
    for k in range(1, count + 1):
        for camera in ("image_00", "image_01"):
            tree.image(DRIVE, camera, k).touch()
    start = time.perf_counter()
    manifest = Manifest("kitti-360", tree.root, kitti_360.ADAPTER.index(tree.root))
    manifest.save(tmp_path / "manifests/kitti-360.parquet")
    took = time.perf_counter() - start
    assert manifest.has_image(DRIVE, "image_01").all()
    assert took < 10


def test_quirks_name_drives_and_sources() -> None:
    assert kitti_360.ADAPTER.same_drive("2013_05_28_drive_0018_sync") == "2013_05_28_drive_0002_sync"
    assert kitti_360.ADAPTER.same_drive(DRIVE) == DRIVE
    assert all(quirk.fact and quirk.source for quirk in kitti_360.QUIRKS)


@pytest.mark.parametrize(
    ("path", "download"),
    [
        ("data_2d_raw/d/image_00/data_rect/0000000001.png", "Perspective Images for Train & Val (128G)"),
        ("data_2d_raw/d/image_03/data_rgb/0000000001.png", "Fisheye Images"),
        ("data_3d_raw/d/velodyne_points/data/0000000001.bin", "Raw Velodyne Scans (119G)"),
        ("data_poses/d/poses.txt", "Vehicle Poses (8.9M)"),
        ("calibration/perspective.txt", "Calibrations (28K)"),
    ],
)
def test_every_file_has_a_download(path: str, download: str) -> None:
    assert download in kitti_360.ADAPTER.way_out(path)


CALIBRATION_FAULTS = [
    ("perspective.txt", "P_rect_00:", "P_rect_09:", "no P_rect_00"),
    ("perspective.txt", "R_rect_01:", "R_rect_09:", "no R_rect_01"),
    ("perspective.txt", "S_rect_00:", "S_rect_09:", "no S_rect_00"),
    ("perspective.txt", "160.0 48.0", "160.5 48.0", "whole number"),
    ("perspective.txt", "62.4 0 78.5 0 0", "-62.4 0 78.5 0 0", "fx"),
    ("perspective.txt", "62.4 0 78.5", "62.4 zero 78.5", "not 12 numbers"),
    ("calib_cam_to_pose.txt", "image_02:", "image_09:", "no image_02"),
    ("calib_cam_to_pose.txt", "0 0 1 1.5", "0 0 2 1.5", "not a rotation"),
    ("calib_cam_to_velo.txt", "0.8", "nan", "not 12 numbers"),
    ("calib_cam_to_velo.txt", "0.8 ", "", "not 12 numbers"),
    ("image_02.yaml", "xi:", "psi:", "no mirror_parameters.xi"),
    ("image_03.yaml", "image_width: 96", "image_height: 96", "no image_width"),
    ("image_03.yaml", "u0: 4.8e+01", "u0: left", "not 1 numbers"),
    ("image_02.yaml", "mirror_parameters:", "mirror_parameters: [", "not YAML"),
]


@pytest.mark.parametrize(("name", "old", "new", "says"), CALIBRATION_FAULTS)
def test_wrong_calibration_is_one_sentence(tree: Tree, name: str, old: str, new: str, says: str) -> None:
    path = tree.calibration(name)
    changed = path.read_text().replace(old, new)
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(DataError, match=r"Calibrations|download it again") as caught:
        kitti_360.ADAPTER.index(tree.root)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", ["absent", "empty"])
@pytest.mark.parametrize(
    "name", ["perspective.txt", "calib_cam_to_pose.txt", "calib_cam_to_velo.txt", "image_02.yaml", "image_03.yaml"]
)
def test_absent_or_empty_calibration(tree: Tree, name: str, state: str) -> None:
    path = tree.calibration(name)
    path.unlink() if state == "absent" else path.write_text("")
    with pytest.raises(DataError, match="missing" if state == "absent" else "empty") as caught:
        kitti_360.ADAPTER.index(tree.root)
    assert str(path) in str(caught.value)
    assert "Calibrations (28K)" in str(caught.value)


POSE_FAULTS = {
    "a NaN": ("1 1 0 0 1001", "1 nan 0 0 1001", "frame 1 "),
    "a scaled rotation": ("2 1 0 0 1002", "2 1.1 0 0 1002", "frame 2 "),
    "a mirrored rotation": ("3 1 0 0 1003", "3 -1 0 0 1003", "frame 3 "),
    "a repeated frame": ("4 1 0 0 1004", "3 1 0 0 1004", "frame 3 is out of order or repeated"),
    "a short line": ("5 1 0 0 1005", "5 1 0 0", "not a table of poses"),
    "a word": ("6 1 0 0 1006", "6 one 0 0 1006", "not a table of poses"),
    "a broken number": ("7 1 0 0 1007", "7.5 1 0 0 1007", "line 7 does not start with a frame number"),
}


@pytest.mark.parametrize("fault", POSE_FAULTS)
def test_wrong_poses_name_the_frame(tree: Tree, fault: str) -> None:
    old, new, says = POSE_FAULTS[fault]
    path = tree.poses(DRIVE)
    lines = path.read_text().split("\n")
    at = next(k for k, line in enumerate(lines) if line.startswith(old))
    lines[at] = lines[at].replace(old, new)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        kitti_360.ADAPTER.index(tree.root)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_empty_and_absent_poses(tree: Tree) -> None:
    tree.poses(DRIVE).write_text("\n")
    with pytest.raises(DataError, match=r"empty.*Vehicle Poses"):
        kitti_360.ADAPTER.index(tree.root)
    tree.poses(DRIVE).unlink()
    with pytest.raises(DataError, match=r"images and no poses.*Vehicle Poses"):
        kitti_360.ADAPTER.index(tree.root)


def test_wrong_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        kitti_360.ADAPTER.index(tmp_path / "nothing")
    with pytest.raises(DataError, match="no KITTI-360 here"):
        kitti_360.ADAPTER.index(tmp_path)


def test_poses_keep_double_precision(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("3 1 0 0 3725.0756251 0 1 0 0 0 0 1 0 \n")
    ids, poses = read_poses(path)
    assert ids.tolist() == [3]
    assert poses[0, 0, 3] == 3725.0756251


def test_two_drives_are_two_sequences(pristine: Tree) -> None:
    tables = kitti_360.ADAPTER.index(pristine.root)
    assert list(tables) == [DRIVE, SECOND]


def test_state_sees_new_files_and_changed_poses(tree: Tree) -> None:
    before = kitti_360.ADAPTER.state(tree.root)
    assert kitti_360.ADAPTER.state(tree.root) == before
    tree.image(DRIVE, "image_00", 3).unlink()
    removed = kitti_360.ADAPTER.state(tree.root)
    assert removed != before
    path = tree.poses(DRIVE)
    path.write_text(path.read_text().replace("2000", "2001"))
    assert kitti_360.ADAPTER.state(tree.root) != removed
