"""The KITTI Raw adapter on real samples and on small trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kitti_raw_tree import (
    CAMERAS,
    DRIVE,
    FRAMES,
    PLACES,
    SECOND,
    SECOND_DAY,
    SIZE,
    STEP,
    RawTree,
    make_raw_tree,
    rect0_from_lidar,
    world_from_rect0,
)

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import kitti_raw
from vipocc.data_manifests.datasets.kitti_raw_calibration import read_calibration
from vipocc.data_manifests.datasets.kitti_raw_poses import world_from_imu
from vipocc.data_manifests.ground_truth.depth_raster import eigen_mask, sparse_depth_eigen
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.roles import assign_roles
from vipocc.data_manifests.splits import SplitLists
from vipocc.data_manifests.tables import SequenceTable
from vipocc.errors import ConfigError, DataError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import relative

REAL = "2011_09_26_drive_0002_sync"
ADAPTER = kitti_raw.ADAPTER


@pytest.fixture(scope="session")
def pristine_raw(tmp_path_factory: pytest.TempPathFactory) -> RawTree:
    """A tree that no test may change."""
    return make_raw_tree(tmp_path_factory.mktemp("kitti_raw") / "root")


@pytest.fixture
def raw(tmp_path: Path) -> RawTree:
    """A small tree of one drive that a test may spoil."""
    return make_raw_tree(tmp_path / "root", (DRIVE,), 6)


@pytest.fixture(scope="module")
def real_root(sample_data: Path) -> Path:
    return sample_data / "KITTI-raw"


@pytest.fixture(scope="module")
def real(real_root: Path) -> Manifest:
    return Manifest("kitti-raw", real_root, ADAPTER.index(real_root))


def motion(table: SequenceTable, camera: str = "image_02") -> np.ndarray:
    """Poses of a camera in the frame of its first one, [N, 4, 4]."""
    poses = table.cameras[camera].world_from_camera
    return relative(poses[:1], poses)


# Real samples.


def test_posed_frames_of_the_real_drive(real: Manifest) -> None:
    assert real.sequences == [REAL]
    assert (real.rows(REAL), real.row_of(REAL, 76)) == (77, 76)
    assert real.cameras(REAL) == ["image_02", "image_03"]
    for camera in CAMERAS:
        assert np.flatnonzero(real.has_image(REAL, camera)).tolist() == [0, 1, 2, 3]
        assert real.image_path(REAL, camera, 2).is_file()
    assert np.flatnonzero(real.has_lidar(REAL)).tolist() == [0, 3]
    assert np.diff(real.timestamps(REAL)) == pytest.approx(0.1036, abs=2e-3)


def test_real_cameras(real: Manifest) -> None:
    for camera in CAMERAS:
        assert real.camera_model(REAL, camera) == Pinhole(721.5377, 721.5377, 609.5593, 172.854, 1242, 375)
    left, right = (real.world_from_camera(REAL, camera)[0] for camera in CAMERAS)
    np.testing.assert_allclose(left[:3, 3], [-0.059849, 0.000358, -0.002746], atol=1e-6)
    apart = relative(left, right)[:3, 3]
    assert apart == pytest.approx([0.53271, -0.00275, 0.00002], abs=1e-5)
    # The released code takes x alone and leaves c_x t_z in it.
    assert apart[0] == pytest.approx((339.5242 + 44.85728) / 721.5377, abs=5e-5)
    np.testing.assert_array_equal(left[:3, :3], right[:3, :3])


def test_real_scan_falls_on_the_known_pixels(real: Manifest, real_root: Path) -> None:
    """19,137 pixels, median 13.0167 m and 17,197 inside the Garg crop (README of the samples), by what is indexed."""
    camera_from_lidar = relative(real.world_from_camera(REAL, "image_02")[0], real.world_from_lidar(REAL)[0])
    model = real.camera_model(REAL, "image_02")
    path = real.lidar_path(REAL, 0)
    assert path is not None
    points = ADAPTER.read_scan(path)
    depth = sparse_depth_eigen(points, model.matrix @ camera_from_lidar[:3], (model.height, model.width))
    assert int(np.isfinite(depth).sum()) == 19_137
    assert float(np.nanmedian(depth)) == pytest.approx(13.0167, abs=5e-5)
    assert int(eigen_mask(depth).sum()) == 17_197


def test_orb_slam_and_oxts_agree_on_the_real_drive(real: Manifest, real_root: Path) -> None:
    """Two independent measurements: 2.7 m of road, to 6 cm along it, 1.5 cm across and .11 degrees."""
    oxts = ADAPTER.configured(DataConfig(poses="oxts")).index(real_root)[REAL]
    assert oxts.frame_ids.tolist() == list(range(10))
    measured, seen = motion(oxts)[:4], motion(real.table(REAL))[:4]
    off = relative(seen, measured)
    angles = np.rad2deg(np.arccos(np.clip((np.trace(off[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angles.max() < 0.11
    assert np.abs(measured[:, :3, 3] - seen[:, :3, 3]).max(axis=0) == pytest.approx([0.0116, 0.008, 0.054], abs=5e-3)
    assert measured[3, 2, 3] == pytest.approx(2.7078, abs=2e-3)
    assert seen[3, 2, 3] == pytest.approx(2.7561, abs=2e-3)
    # The world of OXTS has z up: the camera's y axis points down in it.
    np.testing.assert_allclose(oxts.cameras["image_02"].world_from_camera[0, :3, 1], [0, 0, -1], atol=0.02)


# Calibration and poses of the tree.


def test_orb_slam_and_oxts_are_the_same_drive(pristine_raw: RawTree) -> None:
    orb_slam = ADAPTER.index(pristine_raw.root)
    oxts = ADAPTER.configured(DataConfig(poses="oxts")).index(pristine_raw.root)
    assert list(orb_slam) == list(oxts) == [DRIVE, SECOND]
    for camera in CAMERAS:
        np.testing.assert_allclose(motion(orb_slam[DRIVE], camera), motion(oxts[DRIVE], camera), atol=1e-7)


def test_poses_are_those_of_the_file(pristine_raw: RawTree) -> None:
    table = ADAPTER.index(pristine_raw.root)[DRIVE]
    expected = world_from_rect0()
    np.testing.assert_allclose(table.world_from_lidar, expected @ rect0_from_lidar(), atol=1e-9)
    for camera, place in PLACES.items():
        at = expected @ np.array([*place, 1.0])
        np.testing.assert_allclose(table.cameras[camera].world_from_camera[:, :3, 3], at[:, :3], atol=1e-9)
        np.testing.assert_allclose(table.cameras[camera].world_from_camera[:, :3, :3], expected[:, :3, :3], atol=1e-9)
    assert table.timestamp[3] - table.timestamp[0] == pytest.approx(0.3)


def test_a_point_of_rect0_falls_where_the_projection_says(pristine_raw: RawTree) -> None:
    calibration = read_calibration(pristine_raw.root, SECOND_DAY)
    text = pristine_raw.calibration("calib_cam_to_cam.txt").read_text().splitlines()
    for camera in CAMERAS:
        line = next(line for line in text if line.startswith(f"P_rect_{camera[-2:]}"))
        projection = np.array(line.split()[1:], float).reshape(3, 4)
        point = np.array([1.3, -0.4, 7.0, 1.0])
        expected = projection @ point
        local = np.linalg.inv(calibration.rect0_from_camera[camera]) @ point
        np.testing.assert_allclose(calibration.models[camera].project(local[:3]), expected[:2] / expected[2])


def test_oxts_projection() -> None:
    """True scale at the first latitude, where a degree of longitude is cos(latitude) degrees of the equator."""
    start = np.array([60.0, 8.0, 100.0, 0.0, 0.0, 0.0])
    degree = np.deg2rad(1.0) * 6_378_137.0
    rows = start + np.array([np.zeros(6), [0, 1e-4, 0, 0, 0, 0], [1e-4, 0, 2, 0, 0, 0], [0, 0, 0, 0.1, 0.2, np.pi / 2]])
    poses = world_from_imu(rows)
    np.testing.assert_allclose(poses[1, :3, 3], [1e-4 * degree / 2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(poses[2, :3, 3], [0, 1e-4 * degree, 2], atol=1e-4)
    # Yaw is counter-clockwise from east; a positive pitch turns the front down and a positive roll the left side up.
    forward, left = poses[3, :3, 0], poses[3, :3, 1]
    np.testing.assert_allclose(forward, [0, np.cos(0.2), -np.sin(0.2)], atol=1e-12)
    assert left[0] < -0.99
    assert left[2] == pytest.approx(np.sin(0.1) * np.cos(0.2))


def test_poses_from_elsewhere(raw: RawTree, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (raw.root / "orb-slam_poses").rename(elsewhere)
    assert "poses: GPS and inertial unit (OXTS)" in ADAPTER.facts(raw.root, DRIVE)
    named = ADAPTER.configured(DataConfig(poses_folder=str(elsewhere)))
    assert "poses: ORB-SLAM" in named.facts(raw.root, DRIVE)
    np.testing.assert_allclose(named.index(raw.root)[DRIVE].world_from_lidar[0], rect0_from_lidar(), atol=1e-9)
    assert named.state(raw.root) != ADAPTER.state(raw.root)
    flat = tmp_path / "flat"
    flat.mkdir()
    (elsewhere / DRIVE[:10] / f"{DRIVE}.txt").rename(flat / f"{DRIVE}.txt")
    with pytest.raises(
        DataError, match=r"no drive has its poses in data.poses_folder, such as .*0001_sync.txt: .*flat"
    ):
        ADAPTER.configured(DataConfig(poses_folder=str(flat))).index(raw.root)
    assert DRIVE in ADAPTER.configured(DataConfig(poses_folder=str(flat), poses="oxts")).index(raw.root)
    with pytest.raises(ConfigError, match=r"data\.poses_folder is not a folder"):
        ADAPTER.configured(DataConfig(poses_folder=str(tmp_path / "nowhere")))


def test_oxts_frames_may_be_missing(raw: RawTree) -> None:
    raw.oxts(2).unlink()
    table = ADAPTER.configured(DataConfig(poses="oxts")).index(raw.root)[DRIVE]
    assert table.frame_ids.tolist() == [0, 1, 3, 4, 5]
    assert {camera.unposed for camera in table.cameras.values()} == {1}
    assert [path.as_py()[-14:] for path in table.cameras["image_03"].paths][2] == "0000000003.png"
    assert np.linalg.norm(motion(table)[2, :3, 3]) == pytest.approx(3 * STEP, rel=0.02)


def test_a_drive_without_poses(raw: RawTree) -> None:
    """Refused by name where the split lists it, passed over elsewhere."""
    unlisted = make_raw_tree(raw.root.parent / "other", (f"{SECOND_DAY}_drive_0034_sync",), 2)
    (unlisted.drive(f"{SECOND_DAY}_drive_0034_sync")).rename(raw.root / f"{SECOND_DAY}_drive_0034_sync")
    (raw.root / SECOND_DAY).mkdir()
    (raw.root / f"{SECOND_DAY}_drive_0034_sync").rename(raw.root / SECOND_DAY / f"{SECOND_DAY}_drive_0034_sync")
    only = ADAPTER.configured(DataConfig(poses="orb-slam"))
    assert list(only.index(raw.root)) == [DRIVE]
    raw.orb_slam().unlink()
    with pytest.raises(DataError, match=r"no poses.*orb-slam_poses.*0001_sync.txt; put the ORB-SLAM poses.*poses=oxts"):
        only.index(raw.root)
    (raw.root / DRIVE[:10] / DRIVE / "oxts").rename(raw.root / "oxts")
    with pytest.raises(DataError, match=r"no poses.*synced\+rectified data.*drive_0001.*or put the ORB-SLAM poses"):
        ADAPTER.configured(DataConfig(poses="auto")).index(raw.root)
    with pytest.raises(DataError, match=r"no poses: .*0001_sync/oxts/data; download \"\[synced"):
        ADAPTER.configured(DataConfig(poses="oxts")).index(raw.root)


# Images, scans, state.


def test_png_or_jpeg_whichever_is_there(raw: RawTree) -> None:
    raw.to_jpeg("image_03")
    table = ADAPTER.index(raw.root)[DRIVE]
    manifest = Manifest("kitti-raw", raw.root, {DRIVE: table})
    assert manifest.image_path(DRIVE, "image_03", 1) == raw.image("image_03", 1, ending=".jpg")
    assert manifest.image_path(DRIVE, "image_02", 1) == raw.image("image_02", 1)
    assert manifest.has_image(DRIVE, "image_03").all()
    raw.image("image_03", 4, ending=".jpg").unlink()
    absent = ADAPTER.index(raw.root)[DRIVE].cameras["image_03"]
    assert absent.file_size[4] == -1
    assert str(absent.paths[4]).endswith("0000000004.jpg")


def test_png_wins_over_jpeg_and_both_are_said(raw: RawTree) -> None:
    content = raw.image("image_02", 1).read_bytes()
    raw.to_jpeg("image_02")
    assert "images are" not in " ".join(ADAPTER.facts(raw.root, DRIVE))
    raw.image("image_02", 1).write_bytes(content)
    table = ADAPTER.index(raw.root)[DRIVE].cameras["image_02"]
    assert [str(path)[-4:] for path in table.paths] == [".jpg", ".png", *[".jpg"] * 4]
    assert table.file_size[1] == len(content)
    assert table.unposed == 0
    assert "image_02: 1 images are there as .png and .jpg, of which .png is read" in ADAPTER.facts(raw.root, DRIVE)
    raw.image("image_02", 1, ending=".jpg").unlink()
    assert "image_02: 1 images are .png and 5 are .jpg" in ADAPTER.facts(raw.root, DRIVE)


def test_images_without_pose_are_counted(raw: RawTree) -> None:
    lines = raw.orb_slam().read_text().splitlines(keepends=True)
    raw.orb_slam().write_text("".join(lines[:4]))
    table = ADAPTER.index(raw.root)[DRIVE]
    assert len(table.frame_ids) == 4
    assert {camera.unposed for camera in table.cameras.values()} == {2}


def test_missing_scans(raw: RawTree) -> None:
    raw.scan(3).unlink()
    assert ADAPTER.index(raw.root)[DRIVE].lidar_paths.is_valid().to_pylist() == [True] * 3 + [False] + [True] * 2
    quirk = next(quirk for quirk in ADAPTER.quirks if quirk.drive == "2011_09_26_drive_0009_sync")
    assert quirk.unpublished == {"scans": "177-180"}
    assert quirk.source


def test_days_have_their_own_calibration(raw: RawTree, tmp_path: Path) -> None:
    second = make_raw_tree(tmp_path / "second", (SECOND,), 3)
    path = second.calibration("calib_cam_to_cam.txt", SECOND_DAY)
    path.write_text(path.read_text().replace(f"{SIZE[1]:.6e} {SIZE[0]:.6e}", "1.58e+02 4.6e+01"))
    (second.root / SECOND_DAY).rename(raw.root / SECOND_DAY)
    tables = ADAPTER.index(raw.root)
    assert {name: table.cameras["image_03"].model.width for name, table in tables.items()} == {DRIVE: 160, SECOND: 158}


def test_state_sees_new_files_changed_poses_and_options(raw: RawTree) -> None:
    states = [ADAPTER.state(raw.root)]
    assert ADAPTER.state(raw.root) == states[0]
    states.append(ADAPTER.configured(DataConfig(poses="oxts")).state(raw.root))
    raw.image("image_03", 3).unlink()
    states.append(ADAPTER.state(raw.root))
    raw.oxts(3).unlink()
    states.append(ADAPTER.state(raw.root))
    raw.orb_slam().write_text(raw.orb_slam().read_text().replace("9.0", "9.1"))
    states.append(ADAPTER.state(raw.root))
    path = raw.calibration("calib_velo_to_cam.txt")
    path.write_text(path.read_text() + "delta_f: 0 0\n")
    states.append(ADAPTER.state(raw.root))
    assert len(set(states)) == len(states)


def test_only_synced_drives_of_their_day_are_read(raw: RawTree) -> None:
    for name in ("2011_09_26_drive_0001_extract", "2011_09_28_drive_0001_sync", "notes"):
        (raw.root / "2011_09_26" / name / "image_02").mkdir(parents=True)
    assert kitti_raw.drives(raw.root) == [DRIVE]


def test_wrong_root(raw: RawTree, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        ADAPTER.index(tmp_path / "nothing")
    for wrong in (raw.root / "2011_09_26", raw.drive()):
        with pytest.raises(DataError, match=r"no KITTI Raw here.*correct root: in vipocc.yaml"):
            ADAPTER.index(wrong)


@pytest.mark.parametrize(
    ("path", "download"),
    [
        (f"2011_09_26/{REAL}/image_02/data/0000000001.png", '"[synced+rectified data]" of 2011_09_26_drive_0002 '),
        (f"2011_09_26/{REAL}/velodyne_points/data/0000000001.bin", f"({REAL}.zip)"),
        (f"2011_09_26/{REAL}/oxts/data/0000000001.txt", '"[synced+rectified data]"'),
        ("2011_09_26/calib_cam_to_cam.txt", '"[calibration]" of a drive of 2011_09_26 (2011_09_26_calib.zip)'),
        (f"orb-slam_poses/2011_09_26/{REAL}.txt", "ORB-SLAM poses that BehindTheScenes ships"),
    ],
)
def test_every_file_has_a_way_out(path: str, download: str) -> None:
    if "/oxts/" in path or "orb-slam" not in path:
        assert download in ADAPTER.way_out(path)
    else:
        assert "get the" in ADAPTER.way_out(path)
        assert download in ADAPTER.way_out(path)


def test_every_kind_has_a_download() -> None:
    assert "[calibration]" in ADAPTER.download("calibration", REAL)
    assert "[tracklets]" in ADAPTER.download("boxes", REAL)
    for kind in ("images", "scans", "poses"):
        assert f"{REAL}.zip" in ADAPTER.download(kind, REAL)  # type: ignore[arg-type]


# Samples.


def test_a_training_sample_has_four_views(pristine_raw: RawTree) -> None:
    lists = SplitLists("mine", {"train": {(DRIVE, "r"): np.array([3, FRAMES - 1])}, "val": {}, "test": {}})
    manifest = Manifest("kitti-raw", pristine_raw.root, ADAPTER.index(pristine_raw.root))
    manifest = assign_roles(manifest, lists, DataConfig())
    assert [tuple(key) for key in manifest.keys("train")] == [(DRIVE, "image_03", 3)]
    needed = {camera: rows.tolist() for (_, camera), rows in manifest.needed("train", "all").items()}
    assert needed == {"image_02": [3, 4], "image_03": [3, 4]}
    assert manifest.left_out["train"] == {"the drive ends within the sample": 1}
