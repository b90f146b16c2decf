"""KITTI-360's calibration files and pose tables, read in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from vipocc.errors import DataError, UsageError
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.poses import ORTHONORMAL_TOLERANCE, check_rigid

_T = TypeVar("_T")

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
    perspective = _read_pairs(folder / "perspective.txt")
    to_pose = _read_pairs(folder / "calib_cam_to_pose.txt")
    models: dict[str, Pinhole | Mei] = {}
    imu_from_camera: dict[str, np.ndarray] = {}
    for camera in (*PERSPECTIVE, *FISHEYE):
        raw = _rigid(to_pose, camera, folder / "calib_cam_to_pose.txt")
        if camera in PERSPECTIVE:
            number, path = camera[-2:], folder / "perspective.txt"
            models[camera] = _pinhole(perspective, number, path)
            imu_from_camera[camera] = raw @ np.linalg.inv(_rotation(perspective, f"R_rect_{number}", path))
        else:
            models[camera] = _read_mei(folder / f"{camera}.yaml")
            imu_from_camera[camera] = raw
    path = folder / "calib_cam_to_velo.txt"
    lidar_from_camera = _matrix(_numbers(_read_text(path, CALIBRATIONS).split(), 12, "the transform", path), path)
    imu_from_lidar = _rigid(to_pose, "image_00", folder / "calib_cam_to_pose.txt") @ np.linalg.inv(lidar_from_camera)
    return Calibration(models, imu_from_camera, imu_from_lidar)


def read_poses(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a `poses.txt`: a line per posed frame, its number and the 3x4 world_from_imu.

    Returns:
        frame ids int64 [N], increasing, and world_from_imu float64 [N, 4, 4].

    Raises:
        DataError: the file is absent, empty or malformed, or a pose is not rigid (the frame is named).
    """
    text = _read_text(path, VEHICLE_POSES)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    try:
        table = np.loadtxt(lines, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise DataError(f"not a table of poses ({_first_line(error)})", where=path, fix=VEHICLE_POSES) from None
    if table.shape[1] != 13:
        raise DataError(f"a pose has 13 numbers, not {table.shape[1]}", where=path, fix=VEHICLE_POSES)
    ids = table[:, 0]
    if not np.all(np.isfinite(ids) & (ids == np.round(ids)) & (ids >= 0)):
        line = int(np.argmin(np.isfinite(ids) & (ids == np.round(ids)) & (ids >= 0))) + 1
        raise DataError(f"line {line} does not start with a frame number", where=path, fix=VEHICLE_POSES)
    if np.any(np.diff(ids) <= 0):
        line = int(np.argmax(np.diff(ids) <= 0)) + 2
        raise DataError(f"frame {int(ids[line - 1])} is out of order or repeated", where=path, fix=VEHICLE_POSES)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3] = table[:, 1:].reshape(-1, 3, 4)
    rotation = poses[:, :3, :3]
    with np.errstate(invalid="ignore"):
        off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        good = np.isfinite(poses).all(axis=(1, 2)) & (off <= ORTHONORMAL_TOLERANCE) & (np.linalg.det(rotation) > 0)
    if not good.all():
        first = int(np.argmin(good))
        check_rigid(poses[first], f"frame {int(ids[first])} of {path}")
    return ids.astype(np.int64), poses


def read_timestamps(path: Path) -> np.ndarray | None:
    """Return seconds since 1970 by frame number, float64 [M], or None where the optional file is absent.

    Raises:
        DataError: a line is no date and time.
    """
    if not path.is_file():
        return None
    lines = _read_text(path, "delete the file, or download it again").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    try:
        moments = np.array([line.strip() for line in lines], dtype="datetime64[ns]")
    except ValueError as error:
        raise DataError(
            f"not a list of timestamps ({_first_line(error)})", where=path, fix="delete the file, or download it again"
        ) from None
    seconds = moments.astype(np.int64) / 1e9
    return np.where(np.isnat(moments), np.nan, seconds)


def _read_text(path: Path, fix: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError("a file of the dataset is missing", where=path, fix=fix) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"a file of the dataset cannot be read ({_first_line(error)})", where=path, fix=fix) from None
    if not text.strip():
        raise DataError("a file of the dataset is empty", where=path, fix=fix)
    return text


def _read_pairs(path: Path) -> dict[str, list[str]]:
    pairs = {}
    for line in _read_text(path, CALIBRATIONS).splitlines():
        key, found, values = line.partition(":")
        if found:
            pairs[key.strip()] = values.split()
    return pairs


def _values(pairs: Mapping[str, list[str]], key: str, count: int, path: Path) -> np.ndarray:
    if key not in pairs:
        raise DataError(f"the calibration has no {key}", where=path, fix=CALIBRATIONS)
    return _numbers(pairs[key], count, key, path)


def _numbers(words: list[str], count: int, what: str, path: Path) -> np.ndarray:
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise DataError(f"{what} of the calibration is not {count} numbers", where=path, fix=CALIBRATIONS)
    return values


def _matrix(numbers: np.ndarray, path: Path) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3] = numbers.reshape(3, 4)
    return np.asarray(check_rigid(matrix, path))


def _rigid(pairs: Mapping[str, list[str]], key: str, path: Path) -> np.ndarray:
    return _matrix(_values(pairs, key, 12, path), path)


def _rotation(pairs: Mapping[str, list[str]], key: str, path: Path) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = _values(pairs, key, 9, path).reshape(3, 3)
    return np.asarray(check_rigid(matrix, path))


def _pinhole(pairs: Mapping[str, list[str]], number: str, path: Path) -> Pinhole:
    width, height = _values(pairs, f"S_rect_{number}", 2, path)
    p = _values(pairs, f"P_rect_{number}", 12, path).reshape(3, 4)
    fx, fy, cx, cy = (float(p[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return _build(lambda: Pinhole(fx, fy, cx, cy, _whole(width), _whole(height)), path)


def _read_mei(path: Path) -> Mei:
    # OpenCV's FileStorage wrote these: its version directive is no YAML, and there is no document marker after it.
    lines = [line for line in _read_text(path, CALIBRATIONS).splitlines() if not line.startswith(("%", "---"))]
    try:
        values: Any = yaml.safe_load("\n".join(lines))
    except yaml.YAMLError as error:
        raise DataError(f"not YAML ({_first_line(error)})", where=path, fix=CALIBRATIONS) from None

    def get(*keys: str) -> float:
        found: Any = values
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                raise DataError(f"the calibration has no {'.'.join(keys)}", where=path, fix=CALIBRATIONS)
            found = found[key]
        return float(_numbers([str(found)], 1, keys[-1], path)[0])

    return _build(
        lambda: Mei(
            xi=get("mirror_parameters", "xi"),
            **{name: get("distortion_parameters", name) for name in ("k1", "k2", "p1", "p2")},
            **{name: get("projection_parameters", name) for name in ("gamma1", "gamma2", "u0", "v0")},
            width=_whole(get("image_width")),
            height=_whole(get("image_height")),
        ),
        path,
    )


def _build(make: Callable[[], _T], path: Path) -> _T:
    try:
        return make()
    except UsageError as error:
        raise DataError(f"the calibration is impossible ({error.what})", where=path, fix=CALIBRATIONS) from None


def _whole(value: float) -> int:
    if value != round(value):
        raise UsageError(f"an image size must be a whole number, not {value}")
    return int(value)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]
