"""A minimal reader of KITTI-360's files, written from the dataset's layout alone, to check ours against."""

import re

import cv2
import numpy as np


def keyed(path):
    result = {}
    for line in path.read_text().splitlines():
        key, _, rest = line.partition(":")
        try:
            result[key] = np.array([float(v) for v in rest.split()])
        except ValueError:
            result[key] = None
    return result


def four(values):
    matrix = np.eye(4)
    values = np.asarray(values)
    if values.size == 12:
        matrix[:3] = values.reshape(3, 4)
    else:
        matrix[:3, :3] = values.reshape(3, 3)
    return matrix


class Files:
    def __init__(self, root):
        self.root = root
        calibration = root / "calibration"
        self.perspective = keyed(calibration / "perspective.txt")
        to_pose = keyed(calibration / "calib_cam_to_pose.txt")
        velo = four([float(v) for v in (calibration / "calib_cam_to_velo.txt").read_text().split()])
        self.k = self.perspective["P_rect_00"].reshape(3, 4)[:, :3]
        self.width, self.height = (int(v) for v in self.perspective["S_rect_00"])
        self.pose_from = {
            f"image_{n}": four(to_pose[f"image_{n}"]) @ np.linalg.inv(four(self.perspective[f"R_rect_{n}"]))
            for n in ("00", "01")
        }
        self.pose_from |= {f"image_{n}": four(to_pose[f"image_{n}"]) for n in ("02", "03")}
        self.pose_from_velo = four(to_pose["image_00"]) @ np.linalg.inv(velo)

    def fisheye(self, camera):
        lines = (self.root / "calibration" / f"{camera}.yaml").read_text().splitlines()
        assert lines[0] == "%YAML:1.0"
        found = re.findall(r"^\s*(\w+): ([-+.\de]+)$", "\n".join(lines[1:]), re.MULTILINE)
        return {key: float(value) for key, value in found}

    def poses(self, drive, name="poses.txt"):
        rows = np.loadtxt(self.root / "data_poses" / drive / name)
        return rows[:, 0].astype(int), rows[:, 1:]

    def world_from_pose(self, drive, frame_id):
        ids, rows = self.poses(drive)
        return four(rows[list(ids).index(frame_id)])

    def image(self, drive, camera, frame_id):
        kind = "data_rect" if camera in ("image_00", "image_01") else "data_rgb"
        path = self.root / "data_2d_raw" / drive / camera / kind / f"{frame_id:010d}.png"
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]

    def sweep(self, drive, frame_id):
        path = self.root / "data_3d_raw" / drive / "velodyne_points" / "data" / f"{frame_id:010d}.bin"
        return np.fromfile(path, np.float32).reshape(-1, 4)
