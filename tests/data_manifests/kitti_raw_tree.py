"""Writes small KITTI Raw folders for tests: real geometry, tiny images, ORB-SLAM and OXTS poses of the same drive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vipocc.geometry.poses import from_rotation, rotation_x, rotation_y

DAY, SECOND_DAY = "2011_09_26", "2011_09_28"
DRIVE, SECOND = f"{DAY}_drive_0001_sync", f"{SECOND_DAY}_drive_0002_sync"
SIZE, FRAMES = (48, 160), 12
CAMERAS = ("image_02", "image_03")
#: Where the cameras sit in the rectified frame of camera 0, metres.
PLACES = {"image_02": (-0.06, 0.0004, -0.003), "image_03": (0.48, -0.0024, -0.003)}
STEP = 0.9

_K = np.array([[92.0, 0.0, 78.5], [0.0, 92.0, 22.5], [0.0, 0.0, 1.0]])
_LIDAR_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
_EARTH = 6_378_137.0
_LATITUDE, _LONGITUDE = 49.01, 8.43


@dataclass(frozen=True)
class RawTree:
    """A KITTI Raw folder of tiny images."""

    root: Path

    def drive(self, drive: str = DRIVE) -> Path:
        return self.root / drive[:10] / drive

    def image(self, camera: str, frame: int, drive: str = DRIVE, ending: str = ".png") -> Path:
        return self.drive(drive) / camera / "data" / f"{frame:010d}{ending}"

    def scan(self, frame: int, drive: str = DRIVE) -> Path:
        return self.drive(drive) / "velodyne_points/data" / f"{frame:010d}.bin"

    def oxts(self, frame: int, drive: str = DRIVE) -> Path:
        return self.drive(drive) / "oxts/data" / f"{frame:010d}.txt"

    def orb_slam(self, drive: str = DRIVE) -> Path:
        return self.root / "orb-slam_poses" / drive[:10] / f"{drive}.txt"

    def calibration(self, name: str, day: str = DAY) -> Path:
        return self.root / day / name

    def to_jpeg(self, camera: str, drive: str = DRIVE) -> None:
        """Convert a camera's images, as many users have done."""
        for path in sorted((self.drive(drive) / camera / "data").glob("*.png")):
            assert cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)))
            path.unlink()


def world_from_rect0(frames: int = FRAMES) -> np.ndarray:
    """The drive in the first camera's frame, float64 [N, 4, 4]: a slow curve to the right."""
    poses = from_rotation(np.stack([rotation_y(0.01 * k) for k in range(frames)]))
    for k in range(1, frames):
        poses[k, :3, 3] = poses[k - 1, :3, 3] + STEP * poses[k - 1, :3, 2]
    return poses


def rect0_from_lidar() -> np.ndarray:
    """Where the tree's LiDAR sits, float64 [4, 4]."""
    rectify = from_rotation(rotation_x(0.004))
    return np.asarray(rectify @ _rigid(_LIDAR_AXES, (0.0, -0.08, -0.27)))


def lidar_from_imu() -> np.ndarray:
    """Where the tree's inertial unit sits, float64 [4, 4]."""
    return _rigid(np.eye(3), (-0.81, 0.32, -0.8))


def make_raw_tree(root: Path, drives: tuple[str, ...] = (DRIVE, SECOND), frames: int = FRAMES) -> RawTree:
    """Write a tree in which everything that vipocc reads is there."""
    tree = RawTree(root)
    rng = np.random.default_rng(0)
    for day in {drive[:10] for drive in drives}:
        _write_calibration(tree, day)
    for drive in drives:
        tree.orb_slam(drive).parent.mkdir(parents=True, exist_ok=True)
        poses = world_from_rect0(frames)
        tree.orb_slam(drive).write_text("".join(_line(pose[:3]) for pose in poses))
        for folder in (tree.oxts(0, drive), tree.scan(0, drive), *(tree.image(name, 0, drive) for name in CAMERAS)):
            folder.parent.mkdir(parents=True)
        for camera in CAMERAS:
            stamps = "".join(f"2011-09-26 13:02:{k // 10:02d}.{k % 10}00000000\n" for k in range(frames))
            (tree.drive(drive) / camera / "timestamps.txt").write_text(stamps)
        for frame, row in enumerate(_oxts_rows(poses)):
            tree.oxts(frame, drive).write_text(" ".join(repr(float(value)) for value in row) + " " + "0 " * 24 + "\n")
            for camera in CAMERAS:
                image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
                assert cv2.imwrite(str(tree.image(camera, frame, drive)), image)
            angle = np.linspace(-np.pi, np.pi, 1440, endpoint=False) + 0.001
            reach = 8 + 3 * np.sin(3 * angle)
            points = np.stack([reach * np.cos(angle), reach * np.sin(angle), np.full_like(angle, -0.5), angle], 1)
            points.astype("<f4").tofile(tree.scan(frame, drive))
    return tree


def _write_calibration(tree: RawTree, day: str) -> None:
    lines = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.95e-02"]
    for camera, place in PLACES.items():
        number = camera[-2:]
        projection = np.column_stack([_K, -_K @ place])
        lines += [
            f"S_{number}: 1.392e+03 5.12e+02",
            f"S_rect_{number}: {SIZE[1]:.6e} {SIZE[0]:.6e}",
            f"P_rect_{number}: {_line(projection)}".rstrip(),
        ]
    lines.insert(2, f"R_rect_00: {_line(rotation_x(0.004))}".rstrip())
    tree.calibration("calib_cam_to_cam.txt", day).parent.mkdir(parents=True, exist_ok=True)
    tree.calibration("calib_cam_to_cam.txt", day).write_text("\n".join(lines) + "\n")
    camera0_from_lidar = _rigid(_LIDAR_AXES, (0.0, -0.08, -0.27))
    for name, transform in (("velo_to_cam", camera0_from_lidar), ("imu_to_velo", lidar_from_imu())):
        text = f"calib_time: 15-Mar-2012 11:37:16\nR: {_line(transform[:3, :3])}T: {_line(transform[:3, 3])}"
        tree.calibration(f"calib_{name}.txt", day).write_text(text)


def _oxts_rows(poses: np.ndarray) -> np.ndarray:
    """Return latitude, longitude, altitude, roll, pitch, yaw of a world with x east, y north, z up, [N, 6]."""
    east_from_rect0 = _rigid(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), (0.0, 0.0, 0.0))
    imu = east_from_rect0 @ poses @ rect0_from_lidar() @ lidar_from_imu()
    turn, place = imu[:, :3, :3], imu[:, :3, 3] - imu[0, :3, 3]
    yaw = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
    pitch = np.arcsin(-turn[:, 2, 0])
    roll = np.arctan2(turn[:, 2, 1], turn[:, 2, 2])
    scale = np.cos(np.deg2rad(_LATITUDE)) * _EARTH
    longitude = _LONGITUDE + np.rad2deg(place[:, 0] / scale)
    north = np.log(np.tan(np.pi / 4 + np.deg2rad(_LATITUDE) / 2)) + place[:, 1] / scale
    latitude = np.rad2deg(2 * np.arctan(np.exp(north)) - np.pi / 2)
    return np.stack([latitude, longitude, 112.0 + place[:, 2], roll, pitch, yaw], axis=1)


def _rigid(rotation: np.ndarray, place: tuple[float, float, float]) -> np.ndarray:
    transform = from_rotation(rotation)
    transform[:3, 3] = place
    return np.asarray(transform)


def _line(values: np.ndarray) -> str:
    return " ".join(f"{value:.12e}" for value in values.ravel()) + "\n"
