"""KITTI-360 as it is published: which drives and frames a folder holds. Nothing is written into it.

The synthetic world is written in the same layout, so this reads it too.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from vipocc.data_manifests.calibration import (
    PERSPECTIVE,
    VEHICLE_POSES,
    Calibration,
    read_calibration,
    read_poses,
    read_timestamps,
)
from vipocc.data_manifests.manifest import CameraTable, SequenceTable
from vipocc.errors import DataError

#: Where each camera's images lie below `data_2d_raw/<drive>`.
IMAGE_FOLDERS: Mapping[str, str] = {
    "image_00": "image_00/data_rect",
    "image_01": "image_01/data_rect",
    "image_02": "image_02/data_rgb",
    "image_03": "image_03/data_rgb",
}

#: What fills a gap: kind of file -> the dataset's own name of the download that has it.
DOWNLOADS: Mapping[str, str] = {
    "perspective": '"Perspective Images for Train & Val (128G)"',
    "fisheye": '"Fisheye Images (355G)"',
    "scans": '"Raw Velodyne Scans (119G)"',
    "poses": '"Vehicle Poses (8.9M)"',
    "calibration": '"Calibrations (28K)"',
}

_DRIVE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Quirk:
    """Something about a drive that looks like a fault of the copy and is none."""

    drive: str
    fact: str
    source: str
    same_as: str | None = None
    """A drive that this one is part of: a frame number means the same moment in both."""


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        "2013_05_28_drive_0002_sync",
        "frames before 4391 have poses, but their images and scans are published as drive 0018 (held-out test data)",
        "autonomousvision/kitti360Scripts issues 92 and 138",
    ),
    Quirk(
        "2013_05_28_drive_0018_sync",
        "its poses repeat drive 0002's, of which it is the beginning; frames from 4391 on are published as drive 0002",
        "autonomousvision/kitti360Scripts issues 92 and 138",
        same_as="2013_05_28_drive_0002_sync",
    ),
)


def same_drive(drive: str) -> str:
    """Return the drive whose frames a drive shares, or itself."""
    return next((quirk.same_as for quirk in QUIRKS if quirk.drive == drive and quirk.same_as), drive)


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
    posed = {name for name in _folders(root / "data_poses") if (root / "data_poses" / name / "poses.txt").is_file()}
    imaged = {
        name
        for name in _folders(root / "data_2d_raw")
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


def index(root: Path) -> dict[str, SequenceTable]:
    """Return the tables of all drives, images and scans that are absent included as such.

    Raises:
        DataError: calibration or poses are absent or wrong; the file is named.
    """
    names = drives(root)
    calibration = read_calibration(root / "calibration")
    return {name: index_drive(root, name, calibration) for name in names}


def index_drive(root: Path, drive: str, calibration: Calibration) -> SequenceTable:
    """Return the table of one drive: its posed frames, their images, scans and poses."""
    ids, world_from_imu = read_poses(root / "data_poses" / drive / "poses.txt")
    scans = file_sizes(root / scan_folder(drive), ".bin", ids) >= 0
    cameras = {}
    for camera, model in calibration.models.items():
        folder = image_folder(drive, camera)
        cameras[camera] = CameraTable(
            model=model,
            paths=_paths(folder, ".png", ids),
            file_size=file_sizes(root / folder, ".png", ids),
            world_from_camera=world_from_imu @ calibration.imu_from_camera[camera],
            roles=np.zeros(len(ids), np.uint16),
        )
    return SequenceTable(
        frame_ids=ids,
        timestamp=_timestamps(root / "data_2d_raw" / drive / PERSPECTIVE[0] / "timestamps.txt", ids),
        world_from_lidar=world_from_imu @ calibration.imu_from_lidar,
        lidar_paths=_paths(scan_folder(drive), ".bin", ids, present=scans),
        cameras=cameras,
    )


def file_sizes(folder: Path, ending: str, ids: np.ndarray) -> np.ndarray:
    """Return int64 [N], the size in bytes of `<10-digit id><ending>` in a folder, -1 where there is none."""
    sizes = np.full(len(ids), -1, np.int64)
    found = list(_numbered(folder, ending))
    if not found:
        return sizes
    numbers, held = np.array(found, np.int64).T
    rows = np.searchsorted(ids, numbers)
    rows[rows == len(ids)] = 0
    posed = ids[rows] == numbers
    sizes[rows[posed]] = held[posed]
    return sizes


def count_files(folder: Path, ending: str) -> int:
    """Return how many frames a folder holds, posed or not."""
    return sum(1 for _ in _numbered(folder, ending))


def state(root: Path) -> str:
    """Return a digest of what an index depends on: calibration and poses by content, the other folders by their date.

    A folder's date changes when a file is added to or removed from it, so this sees a new download without listing it.
    """
    digest = hashlib.sha256()
    for path in sorted((root / "calibration").glob("*.*")):
        digest.update(f"{path.name}:".encode() + path.read_bytes())
    for drive in sorted(_folders(root / "data_poses") | _folders(root / "data_2d_raw")):
        poses = root / "data_poses" / drive / "poses.txt"
        digest.update(f"{drive}:".encode() + (poses.read_bytes() if poses.is_file() else b""))
        for folder in (*(image_folder(drive, camera) for camera in IMAGE_FOLDERS), scan_folder(drive)):
            path = root / folder
            digest.update(f"{folder}:{path.stat().st_mtime_ns if path.is_dir() else None}".encode())
    return digest.hexdigest()


def download_for(relative_path: str) -> str:
    """Return the sentence that says which download has a file of the dataset."""
    first, *rest = Path(relative_path).parts
    if first == "data_2d_raw":
        kind = "fisheye" if any(part in ("image_02", "image_03") for part in rest) else "perspective"
    else:
        kind = {"data_3d_raw": "scans", "data_poses": "poses"}.get(first, "calibration")
    return f"download {DOWNLOADS[kind]} of KITTI-360 again"


def _folders(path: Path) -> set[str]:
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in entries if entry.is_dir() and _DRIVE.fullmatch(entry.name)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _numbered(folder: Path, ending: str) -> Iterator[tuple[int, int]]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            stem = entry.name[: -len(ending)]
            if entry.name.endswith(ending) and len(stem) == 10 and stem.isascii() and stem.isdigit():
                try:
                    yield int(stem), entry.stat().st_size
                except FileNotFoundError:
                    continue  # a dangling link is an absent file


def _paths(folder: str, ending: str, ids: np.ndarray, present: np.ndarray | None = None) -> pa.StringArray:
    names = (f"{folder}/{number:010d}{ending}" for number in ids.tolist())
    if present is None:
        return pa.array(names, pa.string())
    return pa.array((name if there else None for name, there in zip(names, present, strict=True)), pa.string())


def _timestamps(path: Path, ids: np.ndarray) -> np.ndarray:
    seconds = read_timestamps(path)
    found = np.full(len(ids), np.nan)
    if seconds is not None:
        inside = ids < len(seconds)
        found[inside] = seconds[ids[inside]]
    return found
