"""KITTI Raw's poses: ORB-SLAM files, or the GPS and inertial unit (OXTS) that every drive comes with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import text
from vipocc.data_manifests.datasets.files import numbered
from vipocc.data_manifests.datasets.kitti_raw_downloads import ORB_SLAM, again, synced
from vipocc.errors import DataError
from vipocc.geometry.poses import from_rotation, rotation_x, rotation_y, rotation_z

#: What a line of OXTS has: latitude, longitude (degrees), altitude (m), roll, pitch, yaw (radians), and 24 more.
OXTS_VALUES = 30
_EARTH_RADIUS = 6_378_137.0
_ORB_SLAM_FOLDER = "orb-slam_poses"


class PoseSource(NamedTuple):
    """Where the poses of a drive are read from."""

    kind: Literal["orb-slam", "oxts"]
    path: Path
    """The ORB-SLAM file, or the folder with a file per frame."""


def find_poses(root: Path, drive: str, config: DataConfig) -> PoseSource | None:
    """Return where the poses of a drive come from, by `data.poses` and `data.poses_folder`; None if nowhere."""
    file, measured = _orb_slam_file(root, drive, config), _oxts_folder(root, drive)
    if config.poses != "oxts" and file.is_file():
        return PoseSource("orb-slam", file)
    if config.poses != "orb-slam" and measured.is_dir():
        return PoseSource("oxts", measured)
    return None


def refuse_unposed(root: Path, sources: Mapping[str, PoseSource | None], listed: set[str], config: DataConfig) -> None:
    """Raise `DataError` naming a drive that the split lists and that has no poses.

    Also if a folder of poses was named that has none of any drive, so that OXTS would stand in unasked, or if there
    are no poses at all.
    """
    seen = any(source is not None and source.kind == "orb-slam" for source in sources.values())
    if config.poses_folder is not None and config.poses != "oxts" and not seen:
        drive = min(sources)
        raise DataError(
            f"no drive has its poses in data.poses_folder, such as {drive[:10]}/{drive}.txt",
            where=config.poses_folder,
            fix="correct it, or set data.poses=oxts",
        )
    unposed = {drive for drive, source in sources.items() if source is None}
    missed = unposed & listed or (unposed if len(unposed) == len(sources) else set())
    if missed:
        drive = min(missed)
        where = _oxts_folder(root, drive) if config.poses == "oxts" else _orb_slam_file(root, drive, config)
        raise DataError("a drive has no poses", where=where, fix=_way_to_poses(drive, config))


def _orb_slam_file(root: Path, drive: str, config: DataConfig) -> Path:
    named = config.poses_folder
    folder = root / _ORB_SLAM_FOLDER if named is None else Path(named).expanduser().absolute()
    return folder / drive[:10] / f"{drive}.txt"


def _oxts_folder(root: Path, drive: str) -> Path:
    return root / drive[:10] / drive / "oxts/data"


def _way_to_poses(drive: str, config: DataConfig) -> str:
    oxts = f"{again(synced(drive))}, which has them in oxts"
    orb_slam = f"put the {ORB_SLAM} there, or name their folder in data.poses_folder"
    if config.poses == "oxts":
        return oxts
    return f"{oxts}, or {orb_slam}" if config.poses == "auto" else f"{orb_slam}, or set data.poses=oxts"


def read_orb_slam(path: Path, fix: str) -> tuple[np.ndarray, np.ndarray]:
    """Read an ORB-SLAM file: a line of twelve numbers per frame, from frame 0 on, the 3x4 world_from_rect0.

    Returns:
        frame ids int64 [N] and world_from_rect0 float64 [N, 4, 4]; the world is the first frame's camera.

    Raises:
        DataError: the file is absent, empty or malformed, or a pose is not rigid (the frame is named).
    """
    text.refuse_cut(path, fix)
    table = text.read_numbers(path, 12, "pose", fix)
    ids = np.arange(len(table), dtype=np.int64)
    # A line that the reader passes over would give every later frame its neighbour's pose.
    lines = text.read_text(path, fix).rstrip().splitlines()
    if len(lines) != len(table):
        raise DataError("a line is blank or a comment, where each stands for a frame", where=path, fix=fix)
    return ids, text.poses_from(table, ids, path, fix)


def read_oxts(folder: Path, fix: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a drive's `oxts/data`: a file per frame, of which the place and the three angles are used.

    Returns:
        frame ids int64 [N], increasing, and world_from_imu float64 [N, 4, 4], see `world_from_imu`.

    Raises:
        DataError: there is no file, or one is unreadable, of another number of values, or impossible.
    """
    ids = np.array(sorted(number for number, _ in numbered(folder, ".txt")), np.int64)
    if not len(ids):
        raise DataError("there are no OXTS files", where=folder, fix=fix)
    rows = np.empty((len(ids), 6))
    for row, frame in enumerate(ids.tolist()):
        path = folder / f"{frame:010d}.txt"
        words = text.read_text(path, fix).split()
        try:
            values = [float(word) for word in words[:6]]
        except ValueError:
            values = []
        if len(words) != OXTS_VALUES or len(values) != 6:
            raise DataError(f"an OXTS file is not {OXTS_VALUES} numbers", where=path, fix=fix)
        rows[row] = values
        if not np.isfinite(rows[row]).all() or abs(values[0]) >= 90:
            raise DataError("an OXTS file has no possible place or attitude", where=path, fix=fix)
    return ids, world_from_imu(rows)


def world_from_imu(rows: np.ndarray) -> np.ndarray:
    """Return float64 [N, 4, 4] of latitude, longitude (degrees), altitude (m), roll, pitch, yaw (radians) [N, 6].

    As KITTI's devkit documents: x east and y north by a Mercator projection that has true scale at the first frame's
    latitude, z up; the rotation is Rz(yaw) Ry(pitch) Rx(roll), of an inertial unit with x forward and y left. The
    first frame's place is the origin, which keeps the numbers small.
    """
    latitude, longitude = np.deg2rad(rows[:, 0]), np.deg2rad(rows[:, 1])
    scale = np.cos(latitude[0]) * _EARTH_RADIUS
    place = np.stack([scale * longitude, scale * np.log(np.tan(np.pi / 4 + latitude / 2)), rows[:, 2]], axis=1)
    turns = np.stack([rotation_z(yaw) @ rotation_y(pitch) @ rotation_x(roll) for roll, pitch, yaw in rows[:, 3:]])
    poses = from_rotation(turns)
    poses[:, :3, 3] = place - place[0]
    return poses
