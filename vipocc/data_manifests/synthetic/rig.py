"""The recording car of the synthetic world: a rig like KITTI-360's, and its calibration files.

Figures are of KITTI-360's kind (stereo 1408x376 with a 0.594 m baseline looking 5 degrees down, two side fisheyes of
the Mei model, a LiDAR above the cameras) but the rig is our own. Everything is rounded as its files print it before it
is used, so that what a reader of the files computes is what the pictures were taken with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.poses import from_rotation, invert, rotation_x, rotation_y
from vipocc.geometry.shapes import Float64

STEREO = ("image_00", "image_01")
FISHEYES = ("image_02", "image_03")
BASELINE = 0.594
IMU_HEIGHT = 0.93
CAMERA_HEIGHT = 1.55
VIRTUAL_PITCH = -15.0

_NATIVE = Pinhole(552.5, 552.5, 682.0, 238.8, 1408, 376)
_NATIVE_FISHEYES = {
    "image_02": Mei(2.21, 0.0168, 1.65, 4.2e-4, 4.2e-4, 1344.0, 1343.5, 721.0, 709.8, 1408, 1408),
    "image_03": Mei(2.55, 0.0494, 4.50, 1.3e-3, -7.0e-4, 1493.5, 1493.0, 702.9, 702.1, 1408, 1408),
}


@dataclass(frozen=True)
class Rig:
    """Cameras and LiDAR of the car; the IMU frame is x forward, y right, z down, as in KITTI-360's poses."""

    stereo: Pinhole
    fisheyes: dict[str, Mei]
    imu_from_camera: dict[str, Float64]
    """4x4 of the rectified stereo cameras and the raw fisheyes."""
    imu_from_lidar: Float64
    """4x4; the LiDAR frame is x forward, y left, z up."""
    files: dict[str, str]
    """The calibration files: name and text."""


def rig(scale: float) -> Rig:
    """Return the rig with images `scale` times the native size."""
    native = _NATIVE
    stereo = native.resized((round(native.height * scale), round(native.width * scale)))
    stereo = Pinhole.from_matrix(np.round(stereo.matrix, 10), stereo.size)
    side = round(1408 * scale)
    fisheyes = {}
    for name, camera in _NATIVE_FISHEYES.items():
        small = camera.resized((side, side))
        figures = {key: float(f"{getattr(small, key):.10e}") for key in ("gamma1", "gamma2", "u0", "v0")}
        fisheyes[name] = Mei(small.xi, small.k1, small.k2, small.p1, small.p2, **figures, width=side, height=side)

    # Columns are the camera's x, y, z axes in the IMU frame (x forward, y right, z down).
    ahead = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    left = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    right = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    rectified = ahead @ rotation_y(np.deg2rad(0.3)) @ rotation_x(np.deg2rad(-5.0))
    camera_0 = _pose(rectified, (1.57, 0.0, IMU_HEIGHT - CAMERA_HEIGHT))
    camera_1 = camera_0.copy()
    camera_1[:3, 3] += rectified[:, 0] * BASELINE
    rectification = {
        "00": _rounded(_small_rotation(-0.19, 0.0, 0.41)),
        "01": _rounded(_small_rotation(0.19, 0.98, 0.69)),
    }
    camera_from = {
        "image_00": camera_0 @ from_rotation(rectification["00"]),
        "image_01": camera_1 @ from_rotation(rectification["01"]),
        "image_02": _pose(left @ _small_rotation(0.6, -1.7, 0.2), (0.73, -0.15, -1.07)),
        "image_03": _pose(right @ _small_rotation(0.1, 1.4, 0.0), (0.70, 0.75, -1.07)),
    }
    camera_from = {name: _rounded(matrix) for name, matrix in camera_from.items()}
    lidar = _pose(np.diag([1.0, -1.0, -1.0]) @ _small_rotation(0.3, -0.2, 0.4), (0.77, 0.30, -0.80))
    lidar_from_camera = _rounded(invert(lidar) @ camera_from["image_00"])

    imu_from_camera = dict(camera_from)
    for name, key in zip(STEREO, rectification, strict=True):
        imu_from_camera[name] = camera_from[name] @ from_rotation(np.linalg.inv(rectification[key]))
    files = {
        "perspective.txt": _perspective(stereo, rectification),
        "calib_cam_to_pose.txt": "".join(f"{name}: {_numbers(m[:3])} \n" for name, m in camera_from.items()),
        "calib_cam_to_velo.txt": _numbers(lidar_from_camera[:3]) + "\n",
        **{f"{name}.yaml": _yaml(name, camera) for name, camera in fisheyes.items()},
    }
    return Rig(stereo, fisheyes, imu_from_camera, camera_from["image_00"] @ invert(lidar_from_camera), files)


def _small_rotation(x_deg: float, y_deg: float, z_deg: float) -> Float64:
    c, s = np.cos(np.deg2rad(z_deg)), np.sin(np.deg2rad(z_deg))
    about_z = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(rotation_x(np.deg2rad(x_deg)) @ rotation_y(np.deg2rad(y_deg)) @ about_z)


def _pose(rotation: Float64, position: tuple[float, float, float]) -> Float64:
    pose = from_rotation(rotation)
    pose[:3, 3] = position
    return pose


def _rounded(matrix: Float64) -> Float64:
    return np.asarray(np.round(matrix, 10) + 0.0)


def _numbers(matrix: Float64) -> str:
    return " ".join(f"{value:.10f}" for value in np.ravel(matrix))


def _perspective(camera: Pinhole, rectification: dict[str, Float64]) -> str:
    lines = ["calib_time: 01-Jan-2026 12:00:00", "corner_dist: 0.100000"]
    for index, (key, rotation) in enumerate(rectification.items()):
        projection = np.concatenate([camera.matrix, [[-camera.fx * BASELINE * index], [0.0], [0.0]]], axis=1)
        raw = camera.matrix * [[1.42, 0.0, 1.0], [0.0, 1.42, 1.33], [0.0, 0.0, 0.0]]
        lines += [
            f"S_{key}: {camera.width:.6f} {camera.height:.6f}",
            f"K_{key}: {_numbers(raw)}",
            f"D_{key}: -0.344000 0.142000 0.000400 -0.000200 -0.030000",
            f"R_{key}: {_numbers(np.eye(3) if index == 0 else rectification['01'].T @ rectification['00'])}",
            f"T_{key}: {-BASELINE * index:.6f} 0.000000 0.000000",
            f"S_rect_{key}: {camera.width:.6f} {camera.height:.6f}",
            f"R_rect_{key}: {_numbers(rotation)}",
            f"P_rect_{key}: {_numbers(projection)}",
        ]
    return "\n".join(lines) + "\n"


def _yaml(name: str, camera: Mei) -> str:
    def figure(value: float) -> str:
        return re.sub(r"e([+-])0*(\d\d)$", r"e\1\2", f"{value:.16e}")

    return (
        f"%YAML:1.0\nmodel_type: MEI\ncamera_name: {name}\nimage_width: {camera.width}\nimage_height: {camera.height}\n"
        f"mirror_parameters:\n   xi: {figure(camera.xi)}\n"
        f"distortion_parameters:\n   k1: {figure(camera.k1)}\n   k2: {figure(camera.k2)}\n"
        f"   p1: {figure(camera.p1)}\n   p2: {figure(camera.p2)}\n"
        f"projection_parameters:\n   gamma1: {figure(camera.gamma1)}\n   gamma2: {figure(camera.gamma2)}\n"
        f"   u0: {figure(camera.u0)}\n   v0: {figure(camera.v0)}\n"
    )
