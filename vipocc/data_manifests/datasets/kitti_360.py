"""KITTI-360 as it is published: which drives and frames a folder holds. Nothing is written into it.

The synthetic world is written in the same layout, so this reads it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from vipocc.data_manifests.datasets.adapter import EVERY_DRIVE, Adapter, FileKind, Quirk, Rig
from vipocc.data_manifests.datasets.files import file_sizes, find_files, folders, numbered_paths, state_of
from vipocc.data_manifests.datasets.kitti_360_boxes import box_file, read_boxes
from vipocc.data_manifests.datasets.kitti_360_calibration import (
    FISHEYE,
    PERSPECTIVE,
    VEHICLE_POSES,
    Calibration,
    read_calibration,
    read_poses,
)
from vipocc.data_manifests.datasets.text import timestamps_of
from vipocc.data_manifests.ground_truth.boxes import BoxesAt
from vipocc.data_manifests.tables import CameraTable, SequenceTable
from vipocc.errors import DataError

#: Where each camera's images lie below `data_2d_raw/<drive>`.
IMAGE_FOLDERS: Mapping[str, str] = {
    "image_00": "image_00/data_rect",
    "image_01": "image_01/data_rect",
    "image_02": "image_02/data_rgb",
    "image_03": "image_03/data_rgb",
}

#: What fills a gap: kind of file -> the dataset's own name of the download that has it.
DOWNLOADS: Mapping[FileKind, str] = {
    "images": '"Perspective Images for Train & Val (128G)"',
    "fisheyes": '"Fisheye Images (355G)"',
    "scans": '"Raw Velodyne Scans (119G)"',
    "poses": '"Vehicle Poses (8.9M)"',
    "calibration": '"Calibrations (28K)"',
    "boxes": '"3D Bounding Boxes (30M)"',
}

CALIBRATION_FILES = (
    "perspective.txt",
    "calib_cam_to_pose.txt",
    "calib_cam_to_velo.txt",
    "image_02.yaml",
    "image_03.yaml",
)

QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        EVERY_DRIVE,
        "frames taken while the car hardly moved have images and scans and no pose",
        "autonomousvision/kitti360Scripts issues 96 and 102",
    ),
    Quirk(
        "2013_05_28_drive_0000_sync",
        "the labels begin at frame 250, so 3D boxes of things that move are missing before it",
        "autonomousvision/kitti360Scripts issue 40",
        unpublished={"boxes": "0-249"},
    ),
    Quirk(
        "2013_05_28_drive_0002_sync",
        "frames before 4391 have poses, but their images and scans are published as drive 0018 (held-out test data)",
        "autonomousvision/kitti360Scripts issues 92 and 138",
        unpublished={"images": "0-4390", "fisheyes": "0-4390", "scans": "0-4390"},
    ),
    Quirk(
        "2013_05_28_drive_0018_sync",
        "its poses repeat drive 0002's, of which it is the beginning; frames from 4391 on are published as drive 0002",
        "autonomousvision/kitti360Scripts issues 92 and 138",
        same_as="2013_05_28_drive_0002_sync",
        unpublished={"images": "4391-19999", "fisheyes": "4391-19999", "scans": "4391-19999"},
    ),
)


class Kitti360(Adapter):
    """KITTI-360: stereo, two side fisheyes and a LiDAR on one car."""

    dataset = "kitti-360"
    licence = "CC BY-NC-SA 3.0, not for commercial use"
    rig = Rig(PERSPECTIVE, dict(zip(PERSPECTIVE, FISHEYE, strict=True)))
    splits: ClassVar[Mapping[str, str]] = {"seg": "kitti_360_seg.json"}
    quirks: ClassVar[tuple[Quirk, ...]] = QUIRKS

    def index(self, root: Path) -> dict[str, SequenceTable]:
        """See `Adapter.index`."""
        names = drives(root)
        calibration = read_calibration(root / "calibration")
        return {name: index_drive(root, name, calibration) for name in names}

    def state(self, root: Path) -> str:
        """See `Adapter.state`."""
        names = sorted(folders(root / "data_poses") | folders(root / "data_2d_raw"))
        read = [
            *(f"calibration/{name}" for name in CALIBRATION_FILES),
            *(f"data_poses/{drive}/poses.txt" for drive in names),
        ]
        listed = [
            folder
            for drive in names
            for folder in (*(image_folder(drive, camera) for camera in IMAGE_FOLDERS), scan_folder(drive))
        ]
        return state_of(root, read, listed)

    def download(self, kind: FileKind, sequence: str) -> str:
        """See `Adapter.download`."""
        return DOWNLOADS[kind]

    def way_out(self, relative_path: str) -> str:
        """See `Adapter.way_out`."""
        first, *rest = Path(relative_path).parts
        kind: FileKind = "calibration"
        if first == "data_2d_raw":
            kind = "fisheyes" if any(part in FISHEYE for part in rest) else "images"
        elif first == "data_3d_raw":
            kind = "scans"
        elif first == "data_poses":
            kind = "poses"
        elif first == "data_3d_bboxes":
            kind = "boxes"
        return f"download {DOWNLOADS[kind]} of KITTI-360 again"

    def calibration_files(self, root: Path, sequence: str, camera: str) -> tuple[str, ...]:
        """See `Adapter.calibration_files`: only fisheyes are resampled through theirs."""
        return (f"calibration/{camera}.yaml", "calibration/perspective.txt") if camera in FISHEYE else ()

    def lidar_files(self, root: Path, sequence: str) -> tuple[str, ...]:
        """See `Adapter.lidar_files`."""
        return tuple(f"calibration/{name}" for name in CALIBRATION_FILES[:3])

    def box_files(self, root: Path, sequence: str) -> tuple[str, ...]:
        """See `Adapter.box_files`."""
        name = box_file(root, sequence)
        return () if name is None else (name,)

    def boxes(self, root: Path, sequence: str) -> BoxesAt | None:
        """See `Adapter.boxes`; the reader is unverified on real files."""
        name = box_file(root, sequence)
        return None if name is None else read_boxes(root / name, self.way_out(name))


ADAPTER = Kitti360()


def image_folder(drive: str, camera: str) -> str:
    """Return the folder of a camera's images relative to the root."""
    return f"data_2d_raw/{drive}/{IMAGE_FOLDERS[camera]}"


def scan_folder(drive: str) -> str:
    """Return the folder of a drive's LiDAR sweeps relative to the root."""
    return f"data_3d_raw/{drive}/velodyne_points/data"


def drives(root: Path) -> list[str]:
    """Return the drives that have poses, sorted.

    Raises:
        DataError: the root is no KITTI-360 folder, or a drive has images and no poses.
    """
    if not root.is_dir():
        raise DataError("the dataset's root is not a folder", where=root, fix="correct root: in vipocc.yaml")
    posed = {name for name in folders(root / "data_poses") if (root / "data_poses" / name / "poses.txt").is_file()}
    imaged = {
        name
        for name in folders(root / "data_2d_raw")
        if any((root / image_folder(name, camera)).is_dir() for camera in IMAGE_FOLDERS)
    }
    if not posed and not imaged:
        raise DataError(
            "no KITTI-360 here: neither data_poses nor data_2d_raw has a drive",
            where=root,
            fix="correct root: in vipocc.yaml, the folder that holds calibration, data_poses and data_2d_raw",
        )
    # Going on without a drive's poses, or with another's, would silently spoil whatever is trained on it.
    for name in sorted(imaged - posed):
        raise DataError(
            "a drive has images and no poses", where=root / "data_poses" / name / "poses.txt", fix=VEHICLE_POSES
        )
    return sorted(posed)


def index_drive(root: Path, drive: str, calibration: Calibration) -> SequenceTable:
    """Return the table of one drive: its posed frames, their images, scans and poses."""
    ids, world_from_imu = read_poses(root / "data_poses" / drive / "poses.txt")
    scans = file_sizes(root / scan_folder(drive), ".bin", ids) >= 0
    cameras = {}
    for camera, model in calibration.models.items():
        folder = image_folder(drive, camera)
        images = find_files(root / folder, ".png", ids)
        cameras[camera] = CameraTable(
            model=model,
            paths=numbered_paths(folder, ".png", ids),
            file_size=images.sizes,
            world_from_camera=world_from_imu @ calibration.imu_from_camera[camera],
            roles=np.zeros(len(ids), np.uint16),
            unposed=images.unposed,
        )
    return SequenceTable(
        frame_ids=ids,
        timestamp=timestamps_of(root / "data_2d_raw" / drive / PERSPECTIVE[0] / "timestamps.txt", ids),
        world_from_lidar=world_from_imu @ calibration.imu_from_lidar,
        lidar_paths=numbered_paths(scan_folder(drive), ".bin", ids, present=scans),
        cameras=cameras,
    )
