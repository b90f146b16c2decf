"""Calibration files of other people's cameras: KITTI's two layouts, JSON, and OpenCV's YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vipocc.data_manifests.datasets.text import Pairs, read_text
from vipocc.errors import DataError
from vipocc.geometry.shapes import Float64, Size

FIX = "give --calibration a KITTI calib_cam_to_cam.txt, calib.txt or perspective.txt, a JSON or an OpenCV YAML file"
_MATRIX_NAMES = ("camera_matrix", "K", "intrinsics", "matrix", "cameraMatrix", "intrinsic_matrix")
_DISTORTION_NAMES = ("distortion_coefficients", "distortion", "D", "dist_coeffs", "distCoeffs")
_DISTORTION_LENGTHS = (4, 5, 8, 12, 14)
_KITTI_KEY = re.compile(r"P_rect_(\d\d)|P(\d)")


@dataclass(frozen=True)
class Calibration:
    """One camera of a file."""

    matrix: Float64
    """[3, 3] in pixels, (0, 0) the centre of the top-left one."""
    size: Size | None
    """(height, width) that the calibration is of; None where the file does not say."""
    distortion: tuple[float, ...]
    """OpenCV's coefficients, empty for a rectified camera."""
    camera: str


def read_calibration(path: Path, camera: str | None = None) -> Calibration:
    """Read one camera of a calibration file.

    Args:
        path: `.json`, `.yaml`, `.yml`, or a KITTI text file (rectified: `P_rect_NN` with `S_rect_NN`, or `PN`).
        camera: which one, such as `02`; by default the left colour camera of the file, or its only one.

    Raises:
        DataError: the file is absent, of no known layout, lacks that camera, or holds what no camera can be.
    """
    if not path.is_file():
        raise DataError("there is no calibration file", where=path, fix="correct the path")
    readers: dict[str, Callable[[Path, str | None], Calibration]] = {".json": _json, ".yaml": _yaml, ".yml": _yaml}
    found = readers.get(path.suffix.lower(), _kitti)(path, camera)
    _check(found, path)
    return found


def _kitti(path: Path, camera: str | None) -> Calibration:
    pairs = Pairs.read(path, FIX)
    keys = {match[1] or f"{int(match[2]):02d}": key for key in pairs.values if (match := _KITTI_KEY.fullmatch(key))}
    if not keys:
        raise DataError("the calibration has no rectified camera (P_rect_00, P2, ...)", where=path, fix=FIX)
    # KITTI's colour cameras are 02 and 03 beside grey ones; KITTI-360's are 00 and 01.
    chosen = (camera or "").removeprefix("image_").zfill(2) if camera else ("02" if "02" in keys else min(keys))
    if chosen not in keys:
        raise _no_camera(path, camera or chosen, keys)
    matrix = pairs.numbers(keys[chosen], 12).reshape(3, 4)[:, :3]
    size = None
    if f"S_rect_{chosen}" in pairs.values:
        width, height = pairs.numbers(f"S_rect_{chosen}", 2)
        size = (int(height), int(width))
    return Calibration(matrix, size, (), chosen)


def _json(path: Path, camera: str | None) -> Calibration:
    try:
        values = json.loads(read_text(path, FIX))
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON ({error})", where=path, fix=FIX) from None
    return _mapping(values, path, camera)


def _yaml(path: Path, camera: str | None) -> Calibration:
    text = read_text(path, FIX)
    # OpenCV writes "%YAML:1.0", which no YAML reader takes for a directive, and tags that only it knows.
    text = re.sub(r"\A%YAML[: ][^\n]*\n", "", text).replace("!!opencv-matrix", "")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"not valid YAML ({str(error).splitlines()[0]})", where=path, fix=FIX) from None
    return _mapping(values, path, camera)


def _mapping(values: Any, path: Path, camera: str | None) -> Calibration:
    if not isinstance(values, Mapping):
        raise DataError("the calibration is no mapping of names to values", where=path, fix=FIX)
    cameras = {str(name): part for name, part in values.items() if isinstance(part, Mapping) and _is_camera(part)}
    name, chosen = "0", values
    if cameras and not _is_camera(values):
        name = camera or (next(iter(cameras)) if len(cameras) == 1 else "")
        if name not in cameras:
            raise _no_camera(path, camera, cameras)
        chosen = cameras[name]
    elif camera is not None:
        raise DataError("the calibration is of one camera only", where=path, fix="leave out --camera")
    if not _is_camera(chosen):
        raise DataError(f"the calibration has neither fx nor one of {', '.join(_MATRIX_NAMES)}", where=path, fix=FIX)
    distortion = next((chosen[key] for key in _DISTORTION_NAMES if key in chosen), ())
    return Calibration(_matrix(chosen, path), _size(chosen, path), tuple(_numbers(distortion, path)), name)


def _is_camera(values: Mapping[str, Any]) -> bool:
    return any(key in values for key in (*_MATRIX_NAMES, "fx", "focal_length"))


def _matrix(values: Mapping[str, Any], path: Path) -> Float64:
    found = next((values[key] for key in _MATRIX_NAMES if key in values), None)
    if isinstance(found, Mapping) and "fx" in found:
        values, found = found, None
    if found is None:
        fx = _numbers(values.get("fx", values.get("focal_length")), path)
        rest = [_numbers(values.get(key), path) for key in ("fy", "cx", "cy")]
        fy, cx, cy = (part[0] if part else None for part in rest)
        if len(fx) != 1 or cx is None or cy is None:
            raise DataError("the calibration lacks one of fx, cx, cy", where=path, fix="write all of them, in pixels")
        return np.array([[fx[0], 0.0, cx], [0.0, fx[0] if fy is None else fy, cy], [0.0, 0.0, 1.0]])
    numbers = _numbers(found, path)
    if len(numbers) == 4:
        fx_, fy_, cx_, cy_ = numbers
        return np.array([[fx_, 0.0, cx_], [0.0, fy_, cy_], [0.0, 0.0, 1.0]])
    if len(numbers) not in (9, 12):
        raise DataError(f"the camera matrix has {len(numbers)} numbers, not 9", where=path, fix="write it as 3x3")
    return np.array(numbers).reshape(3, -1)[:, :3]


def _size(values: Mapping[str, Any], path: Path) -> Size | None:
    for width, height in (("image_width", "image_height"), ("width", "height")):
        if width in values and height in values:
            found = _numbers([values[height], values[width]], path)
            return int(found[0]), int(found[1])
    return None


def _numbers(value: Any, path: Path) -> list[float]:
    """Return the numbers of a value: one, a list, a list of lists, or OpenCV's {rows, cols, dt, data}."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return _numbers(value.get("data"), path)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for part in value for number in _numbers(part, path)]
    try:
        return [float(value)]
    except (TypeError, ValueError):
        raise DataError(f"the calibration has {value!r} where a number should be", where=path, fix=FIX) from None


def _check(found: Calibration, path: Path) -> None:
    if not np.isfinite(found.matrix).all():
        raise DataError("the camera matrix holds numbers that are not finite", where=path, fix=FIX)
    if np.abs(found.matrix[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - [0.0, 0.0, 0.0, 0.0, 1.0]).max() > 1e-6:
        raise DataError(
            f"the camera matrix {found.matrix.tolist()} is none of a pinhole camera without skew",
            where=path,
            fix="give [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels",
        )
    if min(found.matrix[0, 0], found.matrix[1, 1]) <= 0:
        raise DataError("the focal length is not positive", where=path, fix=FIX)
    if found.size is not None and min(found.size) < 1:
        raise DataError(f"the calibration states an image size of {found.size}", where=path, fix=FIX)
    if found.distortion and len(found.distortion) not in _DISTORTION_LENGTHS:
        raise DataError(
            f"the calibration has {len(found.distortion)} distortion coefficients",
            where=path,
            fix="OpenCV's pinhole model has 4, 5, 8, 12 or 14: k1, k2, p1, p2, k3, ...",
        )


def _no_camera(path: Path, camera: str | None, known: Mapping[str, Any]) -> DataError:
    what = "the calibration has several cameras" if camera is None else f"the calibration has no camera '{camera}'"
    return DataError(what, where=path, fix=f"use --camera with one of {', '.join(sorted(known))}")
