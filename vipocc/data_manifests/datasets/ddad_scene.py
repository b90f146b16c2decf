"""DDAD's index files, in the layout of TRI's Dataset Governance Policy (DGP): scenes, samples, sensors, calibration.

`ddad.json` lists a file `<scene>/scene_<digest>.json` for each scene. That file has `samples`, each with the keys of
its `data` (one of each sensor: where its file is, when it was taken, its pose), and the key of its calibration, a file
`<scene>/calibration/<key>.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.datasets import text
from vipocc.errors import DataError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import ORTHONORMAL_TOLERANCE

CAMERAS = ("CAMERA_01", "CAMERA_05", "CAMERA_06", "CAMERA_07", "CAMERA_08", "CAMERA_09")
LIDAR = "LIDAR"
SENSORS = (*CAMERAS, LIDAR)
ARCHIVE = '"DDAD.tar" (train+val, 257 GB)'
AGAIN = f"unpack {ARCHIVE} of DDAD again"

#: DGP's numbers of the splits that have poses and LiDAR: train and val.
_SPLITS = ("0", "1")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCENE = re.compile(rf"({_NAME})/({_NAME}\.json)")
_FILE = re.compile(rf"(?:{_NAME}/)*{_NAME}")
#: A file's moment in microseconds, read as 0.1 microseconds from here on: seconds of the year 2286.
_TOO_LATE = 1e10


@dataclass(frozen=True)
class Track:
    """What one sensor recorded in a scene of N samples."""

    files: tuple[str, ...]
    """[N] relative to the scene's folder."""
    world_from_sensor: np.ndarray
    """float64 [N, 4, 4]."""
    size: tuple[int, int] | None
    """(height, width) of its images, None for the LiDAR."""


@dataclass(frozen=True)
class Scene:
    """What a scene's file says of its N samples."""

    seconds: np.ndarray
    """float64 [N], when the front camera's images were taken, seconds since 1970, increasing."""
    calibration: str
    """Path of the calibration relative to the scene's folder."""
    tracks: Mapping[str, Track]
    """By sensor: the six cameras and the LiDAR."""


def scene_files(path: Path) -> dict[str, str]:
    """Read `ddad.json`: the scenes of train and val and, of each, the name of its file in its folder.

    Raises:
        DataError: the file is absent, no JSON, lists no scene, or a path in it is not `<scene>/<name>.json`.
    """
    values = _read_json(path)
    found: dict[str, str] = {}
    try:
        splits = values["scene_splits"]
        listed = [name for split in _SPLITS if split in splits for name in splits[split]["filenames"]]
        for name in listed:
            match = _SCENE.fullmatch(name)
            if match is None or match[1] in found:
                fault = "is not <scene>/<name>.json" if match is None else "is of a scene that is listed before"
                raise DataError(f"{name[:80]!r} among the scenes {fault}", where=path, fix=AGAIN)
            found[match[1]] = match[2]
    except KeyError as error:
        raise DataError(f"the list of scenes has no {error}", where=path, fix=AGAIN) from None
    except TypeError:
        raise DataError("not a list of scenes in DGP's form", where=path, fix=AGAIN) from None
    if not found:
        raise DataError("it lists no scene of train or val", where=path, fix=AGAIN)
    return found


def read_scene(path: Path) -> Scene:
    """Read a scene's file; an unchanged one is parsed once in a process.

    Raises:
        DataError: the file is absent, no JSON, or a sample of it lacks a sensor, holds an impossible pose, comes before
            the sample before it, or names a file outside the scene.
    """
    try:
        state = path.stat()
    except OSError:
        return _read_scene(path, 0, 0)
    return _read_scene(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _read_scene(path: Path, mtime_ns: int, size: int) -> Scene:
    values = _read_json(path)
    try:
        data = {one["key"]: one for one in values["data"]}
        samples = [(sample["calibration_key"], sample["datum_keys"]) for sample in values["samples"]]
    except KeyError as error:
        raise DataError(f"the scene has no {error}", where=path, fix=AGAIN) from None
    except TypeError:
        raise DataError("not a scene in DGP's form", where=path, fix=AGAIN) from None
    if not samples:
        raise DataError("the scene has no samples", where=path, fix=AGAIN)
    collected: dict[str, list[_Datum]] = {name: [] for name in SENSORS}
    for number, (_, keys) in enumerate(samples):
        sensors = _sample(data, keys, number, path)
        for name, found in collected.items():
            if name not in sensors:
                raise DataError(f"sample {number} has no {name}", where=path, fix=AGAIN)
            found.append(sensors[name])
    return Scene(
        seconds=_seconds([datum.moment for datum in collected[CAMERAS[0]]], path),
        calibration=f"calibration/{_only_calibration([key for key, _ in samples], path)}.json",
        tracks={name: _track(name, found, path) for name, found in collected.items()},
    )


def read_calibration(path: Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Pinhole]:
    """Read a calibration's intrinsics of the cameras whose (height, width) are given.

    Its extrinsics are not needed: each datum's pose has them in it (see `Track.world_from_sensor`).

    Raises:
        DataError: the file is absent, no JSON, or lacks a camera, or the camera is impossible.
    """
    values = _read_json(path)
    try:
        by_name = {name.upper(): one for name, one in zip(values["names"], values["intrinsics"], strict=True)}
    except KeyError as error:
        raise DataError(f"the calibration has no {error}", where=path, fix=AGAIN) from None
    except (TypeError, ValueError, AttributeError):
        raise DataError("not a calibration in DGP's form", where=path, fix=AGAIN) from None
    models = {}
    for name, (height, width) in sizes.items():
        if name not in by_name:
            raise DataError(f"the calibration has no {name}", where=path, fix=AGAIN)
        try:
            words = [str(by_name[name][key]) for key in ("fx", "fy", "cx", "cy", "skew")]
        except KeyError as error:
            raise DataError(f"the calibration of {name} has no {error}", where=path, fix=AGAIN) from None
        except TypeError:
            raise DataError(f"the calibration of {name} is not in DGP's form", where=path, fix=AGAIN) from None
        fx, fy, cx, cy, skew = text.numbers(words, 5, name, path, AGAIN).tolist()
        if skew:
            raise DataError(f"{name} is skewed ({skew}), which no camera of DDAD is", where=path, fix=AGAIN)
        models[name] = _pinhole((fx, fy, cx, cy), width, height, path)
    return models


def _pinhole(intrinsics: tuple[float, float, float, float], width: int, height: int, path: Path) -> Pinhole:
    return text.build(lambda: Pinhole(*intrinsics, width, height), path, AGAIN)


@dataclass(frozen=True, slots=True)
class _Datum:
    file: str
    moment: str
    pose: tuple[float, ...]
    """Translation x, y, z and quaternion w, x, y, z."""
    size: tuple[int, int] | None


def _sample(data: Mapping[str, Any], keys: Sequence[str], number: int, path: Path) -> dict[str, _Datum]:
    sensors: dict[str, _Datum] = {}
    name = "a sensor"
    try:
        for key in keys:
            name = "a sensor"
            one = data[key]
            # DGP compares names of sensors without case.
            named = one["id"]["name"].upper()
            if named not in SENSORS:
                continue
            name = named
            kind, content = next(iter(one["datum"].items()))
            at, turn = content["pose"]["translation"], content["pose"]["rotation"]
            numbers = (at["x"], at["y"], at["z"], turn["qw"], turn["qx"], turn["qy"], turn["qz"])
            size = (int(content["height"]), int(content["width"])) if kind == "image" else None
            moment = one["id"]["timestamp"].removesuffix("Z")
            sensors[name] = _Datum(content["filename"], moment, numbers, size)
    except KeyError as error:
        raise DataError(f"{name} in sample {number} has no {error}", where=path, fix=AGAIN) from None
    except (TypeError, ValueError, AttributeError, StopIteration):
        raise DataError(f"{name} in sample {number} is not in DGP's form", where=path, fix=AGAIN) from None
    return sensors


def _track(name: str, found: Sequence[_Datum], path: Path) -> Track:
    sizes = {datum.size for datum in found}
    size = sizes.pop()
    if sizes or (size is None) != (name == LIDAR):
        raise DataError(f"the samples of {name} are not of one kind and size", where=path, fix=AGAIN)
    files = tuple(datum.file for datum in found)
    for number, file in enumerate(files):
        if not isinstance(file, str) or _FILE.fullmatch(file) is None:
            fault = f"{str(file)[:80]!r}, the file of {name} in sample {number}, is no path within the scene"
            raise DataError(fault, where=path, fix=AGAIN)
    return Track(files, _poses(name, [datum.pose for datum in found], path), size)


def _poses(name: str, rows: Sequence[tuple[float, ...]], path: Path) -> np.ndarray:
    """Return float64 [N, 4, 4]: world_from_sensor, the sensor's place on the car included.

    In the real files inv(pose of CAMERA_01) · pose of another camera equals inv(extrinsics of CAMERA_01) · extrinsics
    of the other within .01 m, which the car's way between their moments explains, so a datum's pose is of its sensor
    and not of the car; moved by their poses, sweeps of consecutive samples fall on each other.
    """
    try:
        numbers = np.array(rows, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"a pose of {name} does not consist of numbers", where=path, fix=AGAIN) from None
    length = np.linalg.norm(numbers[:, 3:], axis=1)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(numbers).all(axis=1) & (np.abs(length - 1) <= ORTHONORMAL_TOLERANCE)
    if not good.all():
        first = int(np.argmin(good))
        finite = np.isfinite(numbers[first]).all()
        fault = f"has a quaternion of length {length[first]:.4g}, not 1" if finite else "holds NaN or infinity"
        raise DataError(f"the pose of {name} in sample {first} {fault}", where=path, fix=AGAIN)
    poses = np.tile(np.eye(4), (len(numbers), 1, 1))
    poses[:, :3, :3] = _rotations(numbers[:, 3:])
    poses[:, :3, 3] = numbers[:, :3]
    return poses


def _rotations(quaternions: np.ndarray) -> np.ndarray:
    """Return float64 [N, 3, 3], the rotations of quaternions w, x, y, z [N, 4] of about unit length."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _seconds(moments: Sequence[str], path: Path) -> np.ndarray:
    """Return seconds since 1970 of ISO dates, float64 [N].

    Many scenes count 0.1 microseconds where a date takes them for microseconds, so that their dates lie in the
    25th century and a tenth of a second looks like one. All of DDAD was recorded at 10 Hz before 2021.
    """
    try:
        ticks = np.array(moments, "datetime64[us]")
    except (TypeError, ValueError) as error:
        raise DataError(f"not a date and time ({text.first_line(error)})", where=path, fix=AGAIN) from None
    seconds = ticks.astype(np.int64) / 1e6
    seconds = np.where(seconds > _TOO_LATE, seconds / 10, seconds)
    good = ~np.isnat(ticks)
    good[1:] &= np.diff(seconds) > 0
    if not good.all():
        first = int(np.argmin(good))
        raise DataError(f"sample {first} has no moment or is not later than the one before", where=path, fix=AGAIN)
    return seconds


def _only_calibration(keys: Sequence[Any], path: Path) -> str:
    first = keys[0]
    if not isinstance(first, str) or _KEY.fullmatch(first) is None:
        raise DataError(f"{str(first)[:80]!r} is no key of a calibration", where=path, fix=AGAIN)
    if any(key != first for key in keys):
        raise DataError("the calibration changes within the scene", where=path, fix=AGAIN)
    return first


def _read_json(path: Path) -> Any:
    try:
        return json.loads(text.read_text(path, AGAIN))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"not JSON, or cut off ({text.first_line(error)})", where=path, fix=AGAIN) from None
