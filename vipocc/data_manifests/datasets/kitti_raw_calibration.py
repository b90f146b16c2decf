"""KITTI Raw's calibration of one recording day, read in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vipocc.data_manifests.datasets import text
from vipocc.data_manifests.datasets.kitti_raw_downloads import again, calibration
from vipocc.geometry.cameras import Pinhole

#: The colour cameras, left and right.
CAMERAS = ("image_02", "image_03")
#: The files of a day; the last is needed for OXTS poses alone.
CAM_TO_CAM, VELO_TO_CAM, IMU_TO_VELO = FILES = (
    "calib_cam_to_cam.txt",
    "calib_velo_to_cam.txt",
    "calib_imu_to_velo.txt",
)


@dataclass(frozen=True)
class Calibration:
    """How the sensors of one day see and where they sit.

    All transforms meet in `rect0`, the rectified frame of camera 0 (the left grey one), which poses are given for.
    """

    models: Mapping[str, Pinhole]
    """Per camera, of the rectified images."""
    rect0_from_camera: Mapping[str, np.ndarray]
    """float64 [4, 4] per camera; translations, for rectified cameras share their orientation."""
    rect0_from_lidar: np.ndarray
    """float64 [4, 4]."""


def read_calibration(root: Path, day: str) -> Calibration:
    """Read the calibration of a day's rectified colour images and of its LiDAR (KITTI raw data devkit, readme).

    A point of rect0 falls on camera k's image at P_rect_0k (x, y, z, 1). With P = [K | p] the camera sits at
    -inv(K) p in rect0. The released code takes -p_x / f_x alone for x, and nothing for y and z; that leaves c_x t_z
    within x, 2.3 mm on 2011_09_26, and the 2.7 mm by which the two optical centres differ in y.

    Raises:
        DataError: a file is absent or unreadable, a key is missing, or a transform is not rigid.
    """
    fix = again(calibration(day))
    cameras = _read(root / day / CAM_TO_CAM, fix)
    models, rect0_from_camera = {}, {}
    for camera in CAMERAS:
        projection = cameras.numbers(f"P_rect_{camera[-2:]}", 12).reshape(3, 4)
        models[camera] = _pinhole(projection[:, :3], cameras, camera[-2:])
        rect0_from_camera[camera] = np.eye(4)
        rect0_from_camera[camera][:3, 3] = -np.linalg.inv(projection[:, :3]) @ projection[:, 3]
    camera0_from_lidar = _read_rigid(root / day / VELO_TO_CAM, fix)
    return Calibration(models, rect0_from_camera, cameras.rotation("R_rect_00") @ camera0_from_lidar)


def read_lidar_from_imu(root: Path, day: str) -> np.ndarray:
    """Read where the inertial unit sits, float64 [4, 4]; raises `DataError`."""
    return _read_rigid(root / day / IMU_TO_VELO, again(calibration(day)))


def _read(path: Path, fix: str) -> text.Pairs:
    # The published files end in a number that matters and a line break; without that its exponent may be gone.
    text.refuse_cut(path, fix)
    return text.Pairs.read(path, fix)


def _pinhole(matrix: np.ndarray, pairs: text.Pairs, number: str) -> Pinhole:
    width, height = pairs.numbers(f"S_rect_{number}", 2)
    return text.build(
        lambda: Pinhole.from_matrix(matrix, (text.whole(height), text.whole(width))), pairs.path, pairs.fix
    )


def _read_rigid(path: Path, fix: str) -> np.ndarray:
    pairs = _read(path, fix)
    rotation, translation = pairs.numbers("R", 9).reshape(3, 3), pairs.numbers("T", 3)
    return text.transform(np.column_stack([rotation, translation]), path, fix)
