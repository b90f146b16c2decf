"""KITTI Raw as it is published, synced and rectified: which drives and frames a folder holds, with which poses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets.adapter import Adapter, FileKind, Quirk, Rig
from vipocc.data_manifests.datasets.files import file_sizes, folders, numbered, numbered_paths, state_of
from vipocc.data_manifests.datasets.kitti_raw_calibration import (
    CAM_TO_CAM,
    CAMERAS,
    FILES,
    VELO_TO_CAM,
    Calibration,
    read_calibration,
    read_lidar_from_imu,
)
from vipocc.data_manifests.datasets.kitti_raw_downloads import ORB_SLAM, again, calibration, synced
from vipocc.data_manifests.datasets.kitti_raw_poses import (
    PoseSource,
    find_poses,
    read_orb_slam,
    read_oxts,
    refuse_unposed,
)
from vipocc.data_manifests.datasets.text import timestamps_of
from vipocc.data_manifests.tables import CameraTable, SequenceTable
from vipocc.errors import ConfigError, DataError

#: What images end in, in the order of preference: as published, and as many users have converted them.
ENDINGS = (".png", ".jpg")

_DAY = re.compile(r"\d{4}_\d{2}_\d{2}")
_DRIVE = re.compile(r"\d{4}_\d{2}_\d{2}_drive_\d{4}_sync")

QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        "2011_09_26_drive_0009_sync",
        "LiDAR sweeps 177 to 180 were never published: the recording lost them",
        "mrharicot/monodepth issue 186, tomas789/kitti2bag issue 4",
        unpublished={"scans": "177-180"},
    ),
)


class KittiRaw(Adapter):
    """KITTI Raw: a rectified colour stereo pair and a LiDAR; calibrated anew on each of five days."""

    dataset = "kitti-raw"
    licence = "CC BY-NC-SA 3.0, not for commercial use"
    rig = Rig(CAMERAS)
    splits: ClassVar[Mapping[str, str]] = {"eigen_zhou": "kitti_raw_eigen_zhou.json"}
    quirks: ClassVar[tuple[Quirk, ...]] = QUIRKS
    products: ClassVar[tuple[str, ...]] = ("frames", "lidar")

    def __init__(self, config: DataConfig | None = None) -> None:
        """Keep the options `poses`, `poses_folder` and `split`."""
        self._config = config or DataConfig()

    def configured(self, config: DataConfig) -> KittiRaw:
        """See `Adapter.configured`."""
        if config.poses_folder is not None and not Path(config.poses_folder).expanduser().is_dir():
            raise ConfigError(
                f"data.poses_folder is not a folder: {config.poses_folder}", fix="correct it, or leave it out"
            )
        return KittiRaw(config)

    def index(self, root: Path) -> dict[str, SequenceTable]:
        """See `Adapter.index`; a drive without poses is an error if the split lists it, else it is passed over."""
        sources = {drive: find_poses(root, drive, self._config) for drive in drives(root)}
        lists = self.lists(root, self._config)
        listed = {drive for frames in lists.frames.values() for drive, _ in frames}
        refuse_unposed(root, sources, listed, self._config)
        posed = {drive: source for drive, source in sources.items() if source is not None}
        days = {drive[:10] for drive in posed}
        calibrations = {day: read_calibration(root, day) for day in sorted(days)}
        return {drive: _index_drive(root, drive, source, calibrations[drive[:10]]) for drive, source in posed.items()}

    def state(self, root: Path) -> str:
        """See `Adapter.state`."""
        names = drives(root)
        days = sorted({drive[:10] for drive in names})
        sources = [find_poses(root, drive, self._config) for drive in names]
        read = [f"{day}/{name}" for day in days for name in FILES]
        read += [str(source.path) for source in sources if source is not None and source.kind == "orb-slam"]
        listed = [folder for drive in names for folder in _listed(drive)]
        kinds = ",".join("none" if source is None else source.kind for source in sources)
        return f"{kinds} {state_of(root, read, listed)}"

    def sequence_of(self, listed: str) -> str:
        """Return the drive of a list's `<day>/<drive>`; raises `DataError` if that is none."""
        day, found, drive = listed.rpartition("/")
        if not _DRIVE.fullmatch(drive) or (found and drive[:10] != day):
            raise DataError(
                f"'{listed}' is no drive of KITTI Raw such as 2011_09_26/2011_09_26_drive_0001_sync",
                fix="mend the line",
            )
        return drive

    def facts(self, root: Path, sequence: str) -> tuple[str, ...]:
        """See `Adapter.facts`: also where poses come from, and images that are there twice."""
        found = list(super().facts(root, sequence))
        source = find_poses(root, sequence, self._config)
        if source is not None:
            found.append({"orb-slam": "poses: ORB-SLAM", "oxts": "poses: GPS and inertial unit (OXTS)"}[source.kind])
        for camera in CAMERAS:
            png, jpg = (_frames(root / _image_folder(sequence, camera), ending) for ending in ENDINGS)
            if png & jpg:
                found.append(f"{camera}: {len(png & jpg):,} images are there as .png and .jpg, of which .png is read")
            elif png and jpg:
                found.append(f"{camera}: {len(png):,} images are .png and {len(jpg):,} are .jpg")
        return tuple(found)

    def download(self, kind: FileKind, sequence: str) -> str:
        """See `Adapter.download`."""
        day = sequence[:10]
        return {
            "calibration": calibration(day),
            "poses": f"{synced(sequence)}, or the {ORB_SLAM}",
            "images": synced(sequence),
            "scans": synced(sequence),
            "boxes": f'"[tracklets]" of {sequence.removesuffix("_sync")}',
            "fisheyes": "KITTI Raw has no fisheye cameras",
        }[kind]

    def way_out(self, relative_path: str) -> str:
        """See `Adapter.way_out`."""
        parts = Path(relative_path).parts
        drive = next((part for part in parts if _DRIVE.fullmatch(part)), None)
        day = next((part for part in parts if _DAY.fullmatch(part)), None)
        if drive is not None:
            return again(synced(drive))
        if day is not None and parts[-1] in FILES:
            return again(calibration(day))
        return f"get the {ORB_SLAM} again"

    def calibration_files(self, root: Path, sequence: str, camera: str) -> tuple[str, ...]:
        """See `Adapter.calibration_files`: images are rectified already."""
        return ()

    def lidar_files(self, root: Path, sequence: str) -> tuple[str, ...]:
        """See `Adapter.lidar_files`."""
        return tuple(f"{sequence[:10]}/{name}" for name in (CAM_TO_CAM, VELO_TO_CAM))


ADAPTER = KittiRaw()


def drives(root: Path) -> list[str]:
    """Return the synced drives that have images or OXTS files, sorted.

    Raises:
        DataError: the root is no KITTI Raw folder.
    """
    if not root.is_dir():
        raise DataError("the dataset's root is not a folder", where=root, fix="correct root: in vipocc.yaml")
    days = sorted(day for day in folders(root) if _DAY.fullmatch(day))
    found = [
        drive
        for day in days
        for drive in sorted(folders(root / day))
        if _DRIVE.fullmatch(drive)
        and drive[:10] == day
        and any((root / day / drive / name).is_dir() for name in (*CAMERAS, "oxts"))
    ]
    if not found:
        raise DataError(
            "no KITTI Raw here: no folder such as 2011_09_26/2011_09_26_drive_0001_sync",
            where=root,
            fix="correct root: in vipocc.yaml, the folder that holds the days of the synced and rectified data",
        )
    return found


def _image_folder(drive: str, camera: str) -> str:
    return f"{drive[:10]}/{drive}/{camera}/data"


def _scan_folder(drive: str) -> str:
    return f"{drive[:10]}/{drive}/velodyne_points/data"


def _listed(drive: str) -> tuple[str, ...]:
    images = (_image_folder(drive, camera) for camera in CAMERAS)
    return (*images, _scan_folder(drive), f"{drive[:10]}/{drive}/oxts/data")


def _frames(folder: Path, ending: str) -> set[int]:
    return {number for number, _ in numbered(folder, ending)}


def _index_drive(root: Path, drive: str, source: PoseSource, sensors: Calibration) -> SequenceTable:
    """Return the table of one drive: its posed frames, their images, scans and poses."""
    if source.kind == "orb-slam":
        ids, world_from_rect0 = read_orb_slam(source.path, f"get the {ORB_SLAM} again, or set data.poses=oxts")
    else:
        ids, world_from_imu = read_oxts(source.path, again(synced(drive)))
        lidar_from_imu = read_lidar_from_imu(root, drive[:10])
        world_from_rect0 = world_from_imu @ np.linalg.inv(sensors.rect0_from_lidar @ lidar_from_imu)
    scans = file_sizes(root / _scan_folder(drive), ".bin", ids) >= 0
    cameras = {}
    for camera, model in sensors.models.items():
        images = _images(root, _image_folder(drive, camera), ids)
        cameras[camera] = CameraTable(
            model=model,
            paths=images.paths,
            file_size=images.sizes,
            world_from_camera=world_from_rect0 @ sensors.rect0_from_camera[camera],
            roles=np.zeros(len(ids), np.uint16),
            unposed=images.unposed,
        )
    return SequenceTable(
        frame_ids=ids,
        timestamp=timestamps_of(root / drive[:10] / drive / CAMERAS[0] / "timestamps.txt", ids),
        world_from_lidar=world_from_rect0 @ sensors.rect0_from_lidar,
        lidar_paths=numbered_paths(_scan_folder(drive), ".bin", ids, present=scans),
        cameras=cameras,
    )


class _Images(NamedTuple):
    paths: pa.StringArray
    """[N] relative to the root."""
    sizes: np.ndarray
    """int64 [N], bytes, -1 where there is none."""
    unposed: int
    """Frames without pose that have an image."""


def _images(root: Path, folder: str, ids: np.ndarray) -> _Images:
    """Return a camera's images: of each frame the .png, the .jpg where there is none."""
    png, jpg = (dict(numbered(root / folder, ending)) for ending in ENDINGS)
    absent = ENDINGS[len(jpg) > len(png)]  # an image that is not there is named as most others are
    paths, sizes = [], []
    for frame in ids.tolist():
        ending = ENDINGS[0] if frame in png else ENDINGS[1] if frame in jpg else absent
        paths.append(f"{folder}/{frame:010d}{ending}")
        sizes.append(png.get(frame, jpg.get(frame, -1)))
    unposed = len((png.keys() | jpg.keys()) - set(ids.tolist()))
    return _Images(pa.array(paths, pa.string()), np.array(sizes, np.int64), unposed)
