"""What a dataset's folder holds, what each job lacks of it, and which download fills the gap. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import Adapter, FileKind, adapter
from vipocc.data_manifests.ground_truth.sweeps import read_velodyne
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.manifest import SPLITS, Manifest
from vipocc.data_manifests.roles import assign_roles, key_camera, refuse_overlap, supervision_leaks
from vipocc.data_manifests.splits import SplitLists
from vipocc.data_manifests.views import rig, view_offsets
from vipocc.errors import DataError

#: Files of each drive and camera that are read when not all are.
SAMPLES = 4


@dataclass(frozen=True)
class CameraReport:
    """Images of one camera of a drive."""

    images: int
    """Posed frames that have an image."""
    unposed: int
    """Images of frames without pose, which are of no use."""


@dataclass(frozen=True)
class DriveReport:
    """What there is of one drive."""

    drive: str
    posed_frames: int
    first_frame: int
    last_frame: int
    gaps: int
    """Places where the next posed frame is more than `max_gap_ids` frame ids away."""
    cameras: dict[str, CameraReport]
    scans: int
    """Posed frames that have a LiDAR sweep."""
    facts: list[str]
    """What is known of this drive, such as gaps that every copy has."""


@dataclass(frozen=True)
class Lack:
    """Files that a job needs and the folder does not hold."""

    job: str
    what: str
    missing: int
    needed: int
    download: str
    drives: list[str]


@dataclass(frozen=True)
class Fault:
    """A file that is there and cannot be used."""

    path: str
    fault: str
    fix: str


@dataclass(frozen=True)
class CheckReport:
    """The result of `check`."""

    dataset: str
    root: str
    split: str
    drives: list[DriveReport]
    listed: dict[str, int]
    usable: dict[str, int]
    left_out: dict[str, dict[str, int]]
    leaks: dict[str, int]
    lacks: list[Lack]
    read: int
    """How many files were read whole."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether anything is usable and nothing that was read is damaged."""
        return not self.faults and any(camera.images for drive in self.drives for camera in drive.cameras.values())

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "sound": self.sound}


def check(root: Path, dataset: str, config: DataConfig, *, deep: bool = False, jobs: int = 1) -> CheckReport:
    """Compare a dataset's folder with what the configured split needs.

    Args:
        root: the dataset's folder.
        dataset: its id.
        config: split, cameras and gaps.
        deep: read every file that a split uses instead of a few of each drive and camera.
        jobs: threads that read.

    Raises:
        DataError: calibration or poses are absent or wrong, or the lists contradict one another.
    """
    reader = adapter(dataset).configured(config)
    lists = reader.lists(root, config)
    refuse_overlap(lists, reader.same_drive)
    manifest = assign_roles(Manifest(dataset, root, reader.index(root)), lists, config)
    chosen = list(_to_read(manifest, None if deep else SAMPLES))
    return CheckReport(
        dataset=dataset,
        root=str(root),
        split=lists.name,
        drives=[_drive(manifest, reader, drive, config) for drive in manifest.sequences],
        listed={split: lists.count(split) for split in SPLITS},
        usable={split: sum(map(len, manifest.key_rows(split).values())) for split in SPLITS},
        left_out=manifest.left_out,
        leaks=supervision_leaks(manifest),
        lacks=_lacks(manifest, lists, config),
        read=len(chosen),
        faults=[*_empty(manifest, reader), *_read_all(manifest, reader, chosen, jobs)],
    )


def _drive(manifest: Manifest, reader: Adapter, drive: str, config: DataConfig) -> DriveReport:
    ids = manifest.frame_ids(drive)
    cameras = {}
    for camera in manifest.cameras(drive):
        images = int(manifest.has_image(drive, camera).sum())
        cameras[camera] = CameraReport(images, manifest.table(drive).cameras[camera].unposed)
    return DriveReport(
        drive=drive,
        posed_frames=len(ids),
        first_frame=int(ids[0]),
        last_frame=int(ids[-1]),
        gaps=int((np.diff(ids) > config.max_gap_ids).sum()),
        cameras=cameras,
        scans=int(manifest.has_lidar(drive).sum()),
        facts=list(reader.facts(manifest.root, drive)),
    )


@dataclass
class _Tally:
    missing: int = 0
    needed: int = 0
    drives: set[str] = field(default_factory=set)

    def add(self, drive: str, missing: int, needed: int) -> None:
        self.missing += missing
        self.needed += needed
        if missing:
            self.drives.add(drive)


def _lacks(manifest: Manifest, lists: SplitLists, config: DataConfig) -> list[Lack]:
    tallies: dict[tuple[str, str, FileKind], _Tally] = {}

    def count(job: str, what: str, kind: FileKind, drive: str, missing: int, needed: int) -> None:
        tallies.setdefault((job, what, kind), _Tally()).add(drive, missing, needed)

    known, left = set(manifest.sequences), rig(manifest.dataset).left
    for split, job in (("train", "train"), ("val", "validation"), ("test", "evaluation")):
        wanted: dict[tuple[str, str], list[np.ndarray]] = {}
        for (drive, side), ids in lists.frames[split].items():
            if drive not in known:
                count(job, "poses", "poses", drive, len(ids), len(ids))
                count(job, "stereo images", "images", drive, len(ids), len(ids))
                if split == "train":
                    count("priors", "poses", "poses", drive, len(ids), len(ids))
                    count("priors", "stereo images", "images", drive, len(ids), len(ids))
                if split == "train" and config.fisheye:
                    count(job, "fisheye images", "fisheyes", drive, len(ids), len(ids))
                if split == "test":
                    count(job, "LiDAR sweeps", "scans", drive, len(ids), len(ids))
                continue
            camera = key_camera(manifest.dataset, side)
            frame_ids, total = manifest.frame_ids(drive), manifest.rows(drive)
            count(job, "poses", "poses", drive, int((~np.isin(ids, frame_ids)).sum()), len(ids))
            rows = np.flatnonzero(np.isin(frame_ids, ids))
            offsets = view_offsets(manifest.dataset, camera, config) if split == "train" else [(camera, 0)]
            for name, step in offsets:
                wanted.setdefault((drive, name), []).append(rows[rows + step < total] + step)
        for (drive, name), parts in wanted.items():
            rows = np.unique(np.concatenate(parts))
            missing = int((~manifest.has_image(drive, name)[rows]).sum())
            fisheye = name in rig(manifest.dataset).fisheye.values()
            kind: FileKind
            what, kind = ("fisheye images", "fisheyes") if fisheye else ("stereo images", "images")
            count(job, what, kind, drive, missing, len(rows))
            if not fisheye and split == "train":
                count("priors", what, kind, drive, missing, len(rows))
            if split == "test" and name == left:
                sweeps = _window(manifest, drive, rows, config.sweeps)
                lack = int((~manifest.has_lidar(drive)[sweeps]).sum())
                count(job, "LiDAR sweeps", "scans", drive, lack, len(sweeps))
    return [
        Lack(
            job,
            what,
            tally.missing,
            tally.needed,
            adapter(manifest.dataset).download(kind, min(tally.drives)),
            sorted(tally.drives),
        )
        for (job, what, kind), tally in tallies.items()
        if tally.missing
    ]


def _window(manifest: Manifest, drive: str, rows: np.ndarray, sweeps: int) -> np.ndarray:
    total = manifest.rows(drive)
    inside = np.zeros(total + 1, np.int64)
    np.add.at(inside, rows, 1)
    np.add.at(inside, np.minimum(rows + sweeps, total), -1)
    return np.flatnonzero(np.cumsum(inside[:-1]) > 0)


def _empty(manifest: Manifest, reader: Adapter) -> Iterator[Fault]:
    for drive in manifest.sequences:
        for camera in manifest.cameras(drive):
            for row in np.flatnonzero(manifest.file_sizes(drive, camera) == 0):
                relative = manifest.image_path(drive, camera, int(row)).relative_to(manifest.root).as_posix()
                yield Fault(relative, "an image is empty", reader.way_out(relative))


def _to_read(manifest: Manifest, samples: int | None) -> Iterator[tuple[str, str, int]]:
    """Yield (drive, camera or "" for a sweep, row) of files to read: all, or a few evenly spaced of each folder."""
    for drive in manifest.sequences:
        folders = {camera: manifest.file_sizes(drive, camera) > 0 for camera in manifest.cameras(drive)}
        folders[""] = manifest.has_lidar(drive)
        for camera, there in folders.items():
            rows = np.flatnonzero(there)
            if samples is not None and len(rows) > samples:
                rows = rows[np.linspace(0, len(rows) - 1, samples).astype(int)]
            for row in rows:
                yield drive, camera, int(row)


def _read_all(manifest: Manifest, reader: Adapter, chosen: Sequence[tuple[str, str, int]], jobs: int) -> list[Fault]:
    def read(file: tuple[str, str, int]) -> Fault | None:
        drive, camera, row = file
        path = manifest.image_path(drive, camera, row) if camera else manifest.lidar_path(drive, row)
        if path is None:
            return None
        relative = path.relative_to(manifest.root).as_posix()
        fix = reader.way_out(relative)
        try:
            if camera:
                model = manifest.camera_model(drive, camera)
                read_image(path, (model.height, model.width), fix)
            else:
                read_velodyne(path)
        except DataError as error:
            return Fault(relative, error.what, fix)
        return None

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return [fault for fault in pool.map(read, chosen) if fault is not None]
