"""DDAD as it is published, in DGP's layout: a folder for each scene, and JSON files. Nothing is written into it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile, is_zipfile
from zlib import error as ZlibError

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets.adapter import EVERY_DRIVE, Adapter, FileKind, Quirk, Rig
from vipocc.data_manifests.datasets.ddad_scene import (
    AGAIN,
    ARCHIVE,
    CAMERAS,
    LIDAR,
    Scene,
    Track,
    read_calibration,
    read_scene,
    scene_files,
)
from vipocc.data_manifests.datasets.files import folders, state_of
from vipocc.data_manifests.datasets.text import first_line
from vipocc.data_manifests.splits import SplitLists, expand, is_packaged
from vipocc.data_manifests.tables import SPLITS, CameraTable, SequenceTable
from vipocc.errors import DataError

#: The folder that the archive unpacks to; the root may hold it or be it.
TRAIN_VAL = "ddad_train_val"
#: Scenes are published with 50 or 100 samples each, five or ten seconds.
SCENE_LENGTHS = (50, 100)


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        EVERY_DRIVE,
        "some scenes begin with the samples that another scene ends with",
        "weiyithu/SurroundDepth issue 18",
    ),
    Quirk(
        EVERY_DRIVE,
        "dates of many scenes lie in the 25th century, for they count 0.1 microseconds; they are read as such",
        "scene 000150 itself: ten samples a second, and a way that fits a street at that rate only",
    ),
)


class Ddad(Adapter):
    """DDAD: six cameras all around and several LiDARs, whose points come as one cloud; no stereo pair."""

    dataset = "ddad"
    licence = "CC BY-NC-SA 4.0, not for commercial use"
    rig = Rig((CAMERAS[0],))
    splits: ClassVar[Mapping[str, str]] = {"val": "ddad_val.json"}
    quirks: ClassVar[tuple[Quirk, ...]] = QUIRKS
    notes = (
        "The depth of DDAD's test split is not public: figures are of its 50 validation scenes (3,950 front images).",
    )
    # A cloud is put together from several scanners and its origin is none of them, so that what a scan passed through
    # on its way, which occupancy ground truth rests on, cannot be told from it.
    products = ("frames", "lidar")

    def index(self, root: Path) -> dict[str, SequenceTable]:
        """See `Adapter.index`; scenes that `ddad.json` lists and that have no folder here are left out."""
        base = base_folder(root)
        tables = {
            name: index_scene(root, base / name, file)
            for name, file in scene_files(base / "ddad.json").items()
            if (base / name).is_dir()
        }
        if not tables:
            raise DataError("none of the scenes that ddad.json lists is here", where=base, fix=AGAIN)
        return tables

    def state(self, root: Path) -> str:
        """See `Adapter.state`."""
        base = base_folder(root)
        scenes = [base / name for name in sorted(folders(base))]
        listed = [folder.relative_to(base).as_posix() for scene in scenes for folder in _two_levels(scene)]
        digest = sha256(state_of(base, ["ddad.json"], listed).encode())
        for scene in scenes:
            # Their size and date: the files of all scenes are 140 MB, too much to read for every command.
            for path in (*sorted(scene.glob("*.json")), *sorted(scene.glob("calibration/*.json"))):
                found = path.stat()
                digest.update(f"{path.relative_to(base)}:{found.st_size}:{found.st_mtime_ns};".encode())
        return digest.hexdigest()

    def lists(self, root: Path, config: DataConfig) -> SplitLists:
        """See `Adapter.lists`; the packaged split lists all samples of the validation scenes, whichever are here."""
        name = config.split or next(iter(self.splits))
        if not is_packaged(self.splits, name):
            return super().lists(root, config)
        return _packaged(root, name, self.splits[name])

    def download(self, kind: FileKind, sequence: str) -> str:
        """See `Adapter.download`: everything comes in one archive."""
        return ARCHIVE

    def way_out(self, relative_path: str) -> str:
        """See `Adapter.way_out`."""
        return AGAIN

    def calibration_files(self, root: Path, sequence: str, camera: str) -> tuple[str, ...]:
        """See `Adapter.calibration_files`: a row says all of a pinhole camera."""
        return ()

    def lidar_files(self, root: Path, sequence: str) -> tuple[str, ...]:
        """See `Adapter.lidar_files`: the scene's file has the poses, its calibration the intrinsics."""
        base = base_folder(root)
        path = base / sequence / scene_files(base / "ddad.json")[sequence]
        found = (path, path.parent / read_scene(path).calibration)
        return tuple(file.relative_to(root).as_posix() for file in found)

    def mask(self, root: Path, sequence: str, camera: str) -> Path | None:
        """See `Adapter.mask`: `masks/<number of the camera>.png` in the root, one for all scenes."""
        path = root / "masks" / f"{camera.removeprefix('CAMERA_')}.png"
        return path if path.is_file() else None

    def read_scan(self, path: Path) -> NDArray[np.float32]:
        """Return the points float32 [n, 3] of a cloud, in the car's frame: the origin of the datum's pose.

        That is x forward, y left, z up, on the ground below the middle of the rear axle.

        Raises:
            DataError: the file is absent, empty, damaged, or holds no points of finite numbers.
        """
        try:
            # Opened here: np.load leaves a broken archive's file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                points = np.asarray(archive["data"])
        except FileNotFoundError:
            raise DataError("a LiDAR scan is missing", where=path, fix=AGAIN) from None
        except KeyError:
            raise DataError("a LiDAR scan has no array 'data'", where=path, fix=AGAIN) from None
        except (OSError, EOFError, ValueError, TypeError, AttributeError, BadZipFile, ZlibError) as error:
            fault = f"a LiDAR scan cannot be read ({first_line(error) or type(error).__name__})"
            raise DataError(fault, where=path, fix=AGAIN) from None
        if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != "f":
            fault = f"a LiDAR scan is not [n, 3 or more] numbers but {list(points.shape)} of {points.dtype}"
            raise DataError(fault, where=path, fix=AGAIN)
        with np.errstate(over="ignore"):
            points = points[:, :3].astype(np.float32)
        if not np.isfinite(points).all():
            raise DataError("a LiDAR scan holds values that are not finite numbers", where=path, fix=AGAIN)
        return np.ascontiguousarray(points)

    def scan_fault(self, path: Path, size: int) -> str | None:
        """See `Adapter.scan_fault`: an archive's directory is at its end, so that a cut one has none."""
        if not size:
            return "a LiDAR scan is empty"
        return None if is_zipfile(path) else "a LiDAR scan is truncated, or no .npz file"


ADAPTER = Ddad()


def base_folder(root: Path) -> Path:
    """Return the folder of the scenes: the root, or `ddad_train_val` in it; raises `DataError` if it is neither."""
    if not root.is_dir():
        raise DataError("the dataset's root is not a folder", where=root, fix="correct root: in vipocc.yaml")
    if (root / TRAIN_VAL).is_dir():
        return root / TRAIN_VAL
    if root.name == TRAIN_VAL or (root / "ddad.json").exists():
        return root
    raise DataError(
        f"no DDAD here: neither {TRAIN_VAL} nor ddad.json",
        where=root,
        fix=f"correct root: in vipocc.yaml, the folder that holds {TRAIN_VAL}",
    )


def index_scene(root: Path, folder: Path, file: str) -> SequenceTable:
    """Return the table of one scene; a frame's id is the position of its sample in the scene.

    Raises:
        DataError: the scene's file or its calibration is absent or wrong.
    """
    scene = read_scene(folder / file)
    sizes = {name: track.size for name, track in scene.tracks.items() if track.size is not None}
    models = read_calibration(folder / scene.calibration, sizes)
    prefix = folder.relative_to(root).as_posix()
    count = len(scene.seconds)
    cameras = {}
    for name, model in models.items():
        track = scene.tracks[name]
        held, others = _sizes(folder, track)
        cameras[name] = CameraTable(
            model=model,
            paths=pa.array([f"{prefix}/{path}" for path in track.files], pa.string()),
            file_size=held,
            # A copy, for the scene is kept and given out again.
            world_from_camera=track.world_from_sensor.copy(),
            roles=np.zeros(count, np.uint16),
            unposed=others,
        )
    lidar = scene.tracks[LIDAR]
    there = _sizes(folder, lidar)[0] >= 0
    scans = [f"{prefix}/{path}" if found else None for path, found in zip(lidar.files, there, strict=True)]
    return SequenceTable(
        frame_ids=np.arange(count),
        timestamp=scene.seconds.copy(),
        world_from_lidar=lidar.world_from_sensor.copy(),
        lidar_paths=pa.array(scans, pa.string()),
        cameras=cameras,
    )


def _sizes(folder: Path, track: Track) -> tuple[np.ndarray, int]:
    """Return int64 [N], bytes of a sensor's files, -1 where absent, and how many other files lie beside them."""
    held: dict[str, int] = {}
    for parent in {file.rpartition("/")[0] for file in track.files}:
        try:
            with os.scandir(folder / parent) as entries:
                for entry in entries:
                    if entry.is_file():
                        held[f"{parent}/{entry.name}" if parent else entry.name] = entry.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    sizes = np.array([held.get(file, -1) for file in track.files], np.int64)
    return sizes, len(held.keys() - set(track.files))


def _two_levels(scene: Path) -> Iterator[Path]:
    for name in sorted(folders(scene)):
        yield scene / name
        yield from (scene / name / inner for inner in sorted(folders(scene / name)))


def _packaged(root: Path, name: str, file: str) -> SplitLists:
    """Return the lists of a packaged split, which names whole scenes and how many samples they have together.

    How many samples each has is in its own file alone. A scene that lacks the end of its 50 or 100 samples is listed
    with all of them; what is then left of the published number is of scenes that are not here, in whatever shares.

    Raises:
        DataError: all scenes are here and have another number of samples together.
    """
    text = files("vipocc.data_manifests").joinpath("splits", file).read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    base = base_folder(root)
    known = scene_files(base / "ddad.json")
    frames: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for split in SPLITS:
        names = [values["sequence"].format(number) for number in expand(values[split]["scenes"])]
        counts = {
            scene: _published_length(read_scene(base / scene / known[scene]))
            for scene in names
            if scene in known and (base / scene).is_dir()
        }
        absent = [scene for scene in names if scene not in counts]
        left = values[split]["samples"] - sum(counts.values())
        if left < 0 or (left and not absent):
            raise DataError(
                f"the scenes of {split} hold {sum(counts.values()):,} samples, where DDAD's hold "
                f"{values[split]['samples']:,}",
                where=base,
                fix=f"{AGAIN}, or set data.split to a folder with lists of your own",
            )
        counts |= dict(zip(absent, _shares(left, len(absent)), strict=True))
        frames[split] = {(scene, "l"): np.arange(count) for scene, count in counts.items() if count}
    return SplitLists(name, frames)


def _published_length(scene: Scene) -> int:
    count = len(scene.seconds)
    return next((length for length in SCENE_LENGTHS if count <= length), count)


def _shares(total: int, parts: int) -> Sequence[int]:
    return [total // parts + (at < total % parts) for at in range(parts)] if parts else []
