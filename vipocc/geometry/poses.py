"""Rigid transforms as 4x4 float64 matrices, named `target_from_source`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vipocc.errors import DataError
from vipocc.geometry.shapes import Float64, expect_shape

ORTHONORMAL_TOLERANCE = 1e-3
"""Published calibration and pose files are rounded text, so R Rᵀ differs from the identity by up to about 1e-5;
a wrong column order, a scale or a mirrored axis differs by far more than this."""


def rotation_x(angle: float) -> Float64:
    """Rotation about x by `angle` radians, [3, 3]; a positive angle turns y towards z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_y(angle: float) -> Float64:
    """Rotation about y by `angle` radians, [3, 3]; a positive angle turns z towards x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_z(angle: float) -> Float64:
    """Rotation about z by `angle` radians, [3, 3]; a positive angle turns x towards y."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def virtual_rotation(pitch_deg: float, yaw_deg: float = 0.0) -> Float64:
    """fisheye_from_virtual rotation, [3, 3]: pitch about x first, then yaw about the fixed y axis, in degrees.

    Pitch -15 sends the virtual optical axis to (0, 0.2588, 0.9659) in the fisheye's frame: 15 degrees down
    (published_system.md 1.2). The right fisheye takes the negated yaw.
    """
    return np.asarray(rotation_y(np.deg2rad(yaw_deg)) @ rotation_x(np.deg2rad(pitch_deg)))


def from_rotation(rotation: ArrayLike) -> Float64:
    """A rotation [..., 3, 3] as a transform [..., 4, 4] without translation."""
    matrix = np.asarray(rotation, dtype=np.float64)
    expect_shape("rotation", matrix, 3, 3)
    transform = np.zeros((*matrix.shape[:-2], 4, 4))
    transform[..., :3, :3] = matrix
    transform[..., 3, 3] = 1.0
    return transform


def invert(transform: ArrayLike) -> Float64:
    """source_from_target of target_from_source, [..., 4, 4].

    The general inverse, not the transposed rotation: calibration files hold rotations rounded to text, and
    `invert(T) @ T` should be the identity for the matrix that was read.
    """
    matrix = np.asarray(transform, dtype=np.float64)
    expect_shape("transform", matrix, 4, 4)
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def relative(world_from_a: ArrayLike, world_from_b: ArrayLike) -> Float64:
    """a_from_b = inv(world_from_a) @ world_from_b in float64, [..., 4, 4]; leading axes broadcast.

    World coordinates of KITTI-360 are thousands of metres, where float32 resolves half a millimetre: subtract first,
    round afterwards.
    """
    other = np.asarray(world_from_b, dtype=np.float64)
    expect_shape("world_from_b", other, 4, 4)
    return np.asarray(invert(world_from_a) @ other)


def transform_points(target_from_source: ArrayLike, points: NDArray[Any]) -> NDArray[Any]:
    """Points [..., N, 3] moved by target_from_source [..., 4, 4]; the dtype of the points is kept."""
    matrix = np.asarray(target_from_source, dtype=np.float64)
    expect_shape("target_from_source", matrix, 4, 4)
    expect_shape("points", points, None, 3)
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2).astype(points.dtype, copy=False)
    return np.asarray(points @ rotation + matrix[..., None, :3, 3].astype(points.dtype, copy=False))


def check_rigid(transform: ArrayLike, where: object, fix: str = "the file is damaged: download it again") -> Float64:
    """Return `transform` [..., 4, 4] as float64, or raise DataError naming `where`, the first that is wrong and `fix`.

    Refused: NaN or infinity, a last row other than (0, 0, 0, 1), a rotation that is not orthonormal or is mirrored.
    """
    matrix = np.asarray(transform, dtype=np.float64)
    expect_shape("transform", matrix, 4, 4)
    flat = matrix.reshape(-1, 4, 4)

    def refuse(bad: Any, fault: str) -> None:
        if bad.any():
            index = int(np.argmax(bad))
            place = where if len(flat) == 1 else f"{where}, pose {index}"
            raise DataError(f"pose {fault}", where=place, fix=fix)

    finite = np.isfinite(flat).all(axis=(1, 2))
    refuse(~finite, "holds NaN or infinity")
    refuse(np.abs(flat[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(axis=1) > 1e-6, "has a last row other than 0 0 0 1")
    rotation = flat[:, :3, :3]
    deviation = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    refuse(deviation > ORTHONORMAL_TOLERANCE, "is not a rotation and a translation")
    refuse(np.linalg.det(rotation) < 0.0, "mirrors the axes (left-handed)")
    return matrix
