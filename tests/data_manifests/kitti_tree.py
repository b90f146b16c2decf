"""Writes small KITTI-360 folders for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

DRIVE = "2013_05_28_drive_0003_sync"
SECOND = "2013_05_28_drive_0004_sync"
STEREO, FISHEYE, FRAMES = (48, 160), (96, 96), 20
FOLDERS = {"image_00": "data_rect", "image_01": "data_rect", "image_02": "data_rgb", "image_03": "data_rgb"}

_POSE_AXES = "0 0 1 {} 1 0 0 {} 0 1 0 {} "
_YAML = """%YAML:1.0
model_type: MEI
camera_name: {name}
image_width: 96
image_height: 96
mirror_parameters:
   xi: 2.2
distortion_parameters:
   k1: 1.6e-02
   k2: 1.6
   p1: 4.0e-04
   p2: 4.0e-04
projection_parameters:
   gamma1: 9.0e+01
   gamma2: 9.0e+01
   u0: 4.8e+01
   v0: 4.8e+01
"""


@dataclass(frozen=True)
class Tree:
    """A KITTI-360 folder of tiny images."""

    root: Path

    def image(self, drive: str, camera: str, frame: int) -> Path:
        return self.root / "data_2d_raw" / drive / camera / FOLDERS[camera] / f"{frame:010d}.png"

    def scan(self, drive: str, frame: int) -> Path:
        return self.root / "data_3d_raw" / drive / "velodyne_points/data" / f"{frame:010d}.bin"

    def poses(self, drive: str) -> Path:
        return self.root / "data_poses" / drive / "poses.txt"

    def calibration(self, name: str) -> Path:
        return self.root / "calibration" / name

    def write_lists(self, folder: Path, **lines: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for split, text in lines.items():
            (folder / f"{split}_files.txt").write_text(text)
        return folder


def make_tree(root: Path, drives: tuple[str, ...] = (DRIVE, SECOND), frames: int = FRAMES) -> Tree:
    tree = Tree(root)
    tree.calibration("x").parent.mkdir(parents=True)
    rotation = "1 0 0 0 1 0 0 0 1"
    lines = []
    for number, offset in (("00", "0"), ("01", "-31.2")):
        lines += [
            f"S_rect_{number}: 160.0 48.0",
            f"R_rect_{number}: {rotation}",
            f"P_rect_{number}: 62.4 0 78.5 {offset} 0 62.4 30.5 0 0 0 1 0",
            f"K_{number}: 1 0 0 0 1 0 0 0 0",
        ]
    tree.calibration("perspective.txt").write_text("calib_time: 17-Feb-2016 14:23:48\n" + "\n".join(lines) + "\n")
    places = {"image_00": (1.5, 0.0, -0.6), "image_01": (1.5, 0.5, -0.6)}
    rows = [f"{name}: {_POSE_AXES.format(*place)}" for name, place in places.items()]
    rows.append("image_02: 1 0 0 0.7 0 0 -1 -0.1 0 1 0 -1.0 ")
    rows.append("image_03: -1 0 0 0.7 0 0 1 0.7 0 1 0 -1.0 ")
    tree.calibration("calib_cam_to_pose.txt").write_text("\n".join(rows) + "\n")
    tree.calibration("calib_cam_to_velo.txt").write_text("0 0 1 0.8 -1 0 0 0.3 0 -1 0 -0.2")
    for name in ("image_02", "image_03"):
        tree.calibration(f"{name}.yaml").write_text(_YAML.format(name=name))
    rng = np.random.default_rng(0)
    for drive in drives:
        tree.poses(drive).parent.mkdir(parents=True)
        text = [f"{k} 1 0 0 {1000 + k} 0 -1 0 2000 0 0 -1 100 " for k in range(1, frames + 1)]
        tree.poses(drive).write_text("\n".join(text) + "\n")
        tree.scan(drive, 0).parent.mkdir(parents=True)
        for camera in FOLDERS:
            tree.image(drive, camera, 0).parent.mkdir(parents=True)
        for frame in range(1, frames + 1):
            for camera in FOLDERS:
                size = STEREO if camera in ("image_00", "image_01") else FISHEYE
                image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                assert cv2.imwrite(str(tree.image(drive, camera, frame)), image)
            angle = np.linspace(-np.pi, np.pi, 1440, endpoint=False) + 0.001
            reach = 8 + 3 * np.sin(3 * angle)
            points = np.stack([reach * np.cos(angle), reach * np.sin(angle), np.full_like(angle, -0.5), angle], 1)
            points.astype("<f4").tofile(tree.scan(drive, frame))
    return tree
