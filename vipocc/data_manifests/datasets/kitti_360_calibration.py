"""KITTI-360's calibration files and pose tables, read in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vipocc.data_manifests.datasets import text
from vipocc.errors import DataError
from vipocc.geometry.cameras import Mei, Pinhole

PERSPECTIVE = ("image_00", "image_01")
FISHEYE = ("image_02", "image_03")
CALIBRATIONS = 'download "Calibrations (28K)" of KITTI-360 again'
VEHICLE_POSES = 'download "Vehicle Poses (8.9M)" of KITTI-360 again'


@dataclass(frozen=True)
class Calibration:
    """How the sensors of the KITTI-360 rig see and where they sit."""

    models: Mapping[str, Pinhole | Mei]
    """Per camera; `image_00`, `image_01` rectified, `image_02`, `image_03` raw fisheyes."""
    imu_from_camera: Mapping[str, np.ndarray]
    """float64 [4, 4] per camera, of the rectified camera where images are rectified."""
    imu_from_lidar: np.ndarray
    """float64 [4, 4]."""


def read_calibration(folder: Path) -> Calibration:
    """Read the five files of `calibration/` (published_system.md 1.2).

    Intrinsics of the stereo pair come from P_rect and its image size from S_rect, for both belong to the rectified
    images; imu_from_camera = cam_to_pose · inv(R_rect), imu_from_lidar = cam_to_pose · inv(cam_to_velo).

    Raises:
        DataError: a file is absent or unreadable, a key is missing, or a transform is not rigid.
    """
    perspective = text.Pairs.read(folder / "perspective.txt", CALIBRATIONS)
    to_pose = text.Pairs.read(folder / "calib_cam_to_pose.txt", CALIBRATIONS)
    models: dict[str, Pinhole | Mei] = {}
    imu_from_camera: dict[str, np.ndarray] = {}
    for camera in (*PERSPECTIVE, *FISHEYE):
        raw = to_pose.rigid(camera)
        if camera in PERSPECTIVE:
            models[camera] = _pinhole(perspective, camera[-2:])
            imu_from_camera[camera] = raw @ np.linalg.inv(perspective.rotation(f"R_rect_{camera[-2:]}"))
        else:
            models[camera] = _read_mei(folder / f"{camera}.yaml")
            imu_from_camera[camera] = raw
    path = folder / "calib_cam_to_velo.txt"
    words = text.read_text(path, CALIBRATIONS).split()
    lidar_from_camera = text.transform(
        text.numbers(words, 12, "the transform", path, CALIBRATIONS).reshape(3, 4), path, CALIBRATIONS
    )
    return Calibration(models, imu_from_camera, to_pose.rigid("image_00") @ np.linalg.inv(lidar_from_camera))


def read_poses(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a `poses.txt`: a line per posed frame, its number and the 3x4 world_from_imu.

    Returns:
        frame ids int64 [N], increasing, and world_from_imu float64 [N, 4, 4].

    Raises:
        DataError: the file is absent, empty or malformed, or a pose is not rigid (the frame is named).
    """
    table = text.read_numbers(path, 13, "pose", VEHICLE_POSES)
    ids = table[:, 0]
    whole = np.isfinite(ids) & (ids == np.round(ids)) & (ids >= 0)
    if not whole.all():
        line = int(np.argmin(whole)) + 1
        raise DataError(f"line {line} does not start with a frame number", where=path, fix=VEHICLE_POSES)
    if np.any(np.diff(ids) <= 0):
        line = int(np.argmax(np.diff(ids) <= 0)) + 2
        raise DataError(f"frame {int(ids[line - 1])} is out of order or repeated", where=path, fix=VEHICLE_POSES)
    return ids.astype(np.int64), text.poses_from(table[:, 1:], ids, path, VEHICLE_POSES)


def _pinhole(pairs: text.Pairs, number: str) -> Pinhole:
    width, height = pairs.numbers(f"S_rect_{number}", 2)
    p = pairs.numbers(f"P_rect_{number}", 12).reshape(3, 4)
    fx, fy, cx, cy = (float(p[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return text.build(lambda: Pinhole(fx, fy, cx, cy, text.whole(width), text.whole(height)), pairs.path, CALIBRATIONS)


def _read_mei(path: Path) -> Mei:
    # OpenCV's FileStorage wrote these: its version directive is no YAML, and there is no document marker after it.
    lines = [line for line in text.read_text(path, CALIBRATIONS).splitlines() if not line.startswith(("%", "---"))]
    try:
        values: Any = yaml.safe_load("\n".join(lines))
    except yaml.YAMLError as error:
        raise DataError(f"not YAML ({text.first_line(error)})", where=path, fix=CALIBRATIONS) from None

    def get(*keys: str) -> float:
        found: Any = values
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                raise DataError(f"the calibration has no {'.'.join(keys)}", where=path, fix=CALIBRATIONS)
            found = found[key]
        return float(text.numbers([str(found)], 1, keys[-1], path, CALIBRATIONS)[0])

    return text.build(
        lambda: Mei(
            xi=get("mirror_parameters", "xi"),
            **{name: get("distortion_parameters", name) for name in ("k1", "k2", "p1", "p2")},
            **{name: get("projection_parameters", name) for name in ("gamma1", "gamma2", "u0", "v0")},
            width=text.whole(get("image_width")),
            height=text.whole(get("image_height")),
        ),
        path,
        CALIBRATIONS,
    )
