"""KITTI Raw's poses: ORB-SLAM files, or the GPS and inertial unit (OXTS) that every drive comes with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vipocc.data_manifests.datasets import text
from vipocc.data_manifests.datasets.files import numbered
from vipocc.errors import DataError
from vipocc.geometry.poses import from_rotation, rotation_x, rotation_y, rotation_z

#: What a line of OXTS has: latitude, longitude (degrees), altitude (m), roll, pitch, yaw (radians), and 24 more.
OXTS_VALUES = 30
_EARTH_RADIUS = 6_378_137.0


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
    return ids, text.poses_from(table, ids, path)


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
