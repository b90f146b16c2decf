"""Writes a synthetic world to disk: KITTI-360's folders and files, split lists, and the exact truth beside them.

Frames are made in small runs by worker processes, each file written aside and renamed, the truth of a frame last. What
a killed run finished is kept by the next; a finished world is recognised by its `world.json` and costs nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

from vipocc.data_manifests.synthetic.config import WORLD_VERSION, WorldConfig
from vipocc.errors import DataError, MissingInputError, UsageError

#: Frame ids start at 1, as KITTI-360's poses do, so that ids are never rows.
FIRST_FRAME = 1
#: Frames after a key that its sample reaches into: t+1 in stereo, t+11 in the fisheyes.
_REACH = 11
_RUN = 4
_RECORD = "world.json"


def estimate(config: WorldConfig, jobs: int = 1) -> tuple[float, int]:
    """Return the time to generate a world with `jobs` processes, in seconds on one 2020s core each, and its bytes."""
    pixels = 1408 * 376 * config.scale**2
    fisheye = 5.4 if config.full_fisheye else 1.0
    per_frame = 0.06 + pixels * (1.6e-6 + 0.75e-6 * fisheye) + config.lidar_points * 0.5e-6
    seconds = 2.0 + config.drives * 1.3 + config.frames * per_frame / max(jobs, 1)
    size = config.frames * (pixels * (6.6 + 1.4 * fisheye) + config.lidar_points * 12.8 + 40_000)
    return seconds, int(size + config.drives * 400_000)


def is_complete(root: Path, config: WorldConfig) -> bool:
    """Return whether `root` holds exactly this world, finished."""
    record = _read_record(root)
    return record is not None and record["digest"] == config.digest() and record["complete"] is True


def read_config(root: Path) -> WorldConfig:
    """Return the configuration of the synthetic world at `root`; raises MissingInputError where there is none."""
    record = _read_record(root)
    if record is None:
        raise MissingInputError(
            "there is no synthetic world", where=root, fix="run `vipocc data prepare` to generate it"
        )
    return WorldConfig.model_validate(record["config"])


def generate(root: Path, config: WorldConfig, jobs: int = 1) -> None:
    """Write the world below `root`, or what is missing of it; the bytes do not depend on `jobs`.

    Raises:
        UsageError: no drives, or `jobs` below 1.
        DataError: `root` holds another world or other files, or a worker process died.
    """
    from vipocc.data_manifests.synthetic.layout import drives
    from vipocc.progress import progress

    if config.drives == 0:
        raise UsageError("a world without drives", fix="set data.world.train_drives above 0")
    if jobs < 1:
        raise UsageError(f"cannot generate with {jobs} processes", fix="use --jobs 1 or more")
    record = _read_record(root)
    if record is None and root.is_dir() and any(root.iterdir()):
        raise DataError(
            "the folder for the synthetic world holds other files", where=root, fix="choose an empty folder"
        )
    if record is not None and record["digest"] != config.digest():
        raise DataError(
            "the folder holds a synthetic world of another configuration or version of vipocc",
            where=root,
            fix="remove it or choose another root",
        )
    if record is not None and record["complete"]:
        return
    root.mkdir(parents=True, exist_ok=True)
    write_record(root, config, complete=False)
    from vipocc.data_manifests.synthetic import drive

    drive.write_calibration(root, config)
    tasks, done = [], 0
    for index, (name, _, frames) in enumerate(drives(config)):
        left = [row for row in range(frames) if not drive.frame_path(root, name, row).is_file()]
        done += frames - len(left)
        runs = [left[k : k + _RUN] for k in range(0, len(left), _RUN)]
        tasks += [(index, run) for run in runs] or [(index, [])]
    with progress("synthetic world", config.frames, "frames", done=done) as bar:
        for count in _execute(root, config, tasks, jobs):
            bar.advance(count)
    _clear_leftovers(root)
    _write_splits(root, config)
    drive.write_atomically(root / "README.txt", _readme(config).encode())
    write_record(root, config, complete=True)


def _execute(root: Path, config: WorldConfig, tasks: list[tuple[int, list[int]]], jobs: int) -> Iterator[int]:
    if jobs == 1:
        try:
            for task in tasks:
                yield _work(str(root), config, *task)
        finally:
            _opened.cache_clear()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_follow_parent) as pool:
        waiting = {pool.submit(_work, str(root), config, *task) for task in tasks}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that generates the synthetic world died",
                where=root,
                fix="start it again: finished frames are kept",
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _follow_parent() -> None:
    """End this worker when its parent is killed, which cannot tell it to."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=1)
def _opened(root: str, config: WorldConfig, index: int) -> Any:
    from vipocc.data_manifests.synthetic.drive import DriveWriter

    return DriveWriter(Path(root), config, index)


def _work(root: str, config: WorldConfig, index: int, rows: list[int]) -> int:
    """Write some frames of a drive, in a worker process; return how many."""
    writer = _opened(root, config, index)
    writer.write_tables()
    for row in rows:
        writer.write_frame(row)
    return len(rows)


def _clear_leftovers(root: Path) -> None:
    """Remove what killed processes were still writing; another living process's files stay."""
    for path in root.rglob(".*.partial"):
        try:
            os.kill(int(path.name.split(".")[-2]), 0)
        except (ProcessLookupError, ValueError):
            path.unlink(missing_ok=True)
        except PermissionError:
            continue


def split_lines(config: WorldConfig, split: str) -> list[str]:
    """Return the lines of a split list, "<drive> <10-digit frame id> <l|r>": train keys left and right, others left."""
    from vipocc.data_manifests.synthetic.layout import drives

    lines = []
    for name, of, frames in drives(config):
        if of == split:
            keys = frames - (_REACH if frames > 2 * _REACH else 1)
            sides = ("l", "r") if split == "train" else ("l",)
            lines += [f"{name} {row + FIRST_FRAME:010d} {side}" for row in range(keys) for side in sides]
    return lines


def _write_splits(root: Path, config: WorldConfig) -> None:
    from vipocc.data_manifests.synthetic.drive import write_atomically
    from vipocc.data_manifests.synthetic.layout import SPLITS

    for split in SPLITS:
        write_atomically(root / "splits" / f"{split}_files.txt", "\n".join(split_lines(config, split)).encode())


def _read_record(root: Path) -> dict[str, Any] | None:
    path = root / _RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not {"digest", "complete"} <= set(record):
            raise ValueError("keys are missing")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            "the record of the synthetic world is unreadable", where=path, fix="remove the folder"
        ) from error
    return dict(record)


def write_record(root: Path, config: WorldConfig, *, complete: bool) -> None:
    """Write which world `root` holds, or will hold."""
    from vipocc.data_manifests.synthetic.drive import write_atomically

    record = {
        "kind": "vipocc synthetic world",
        "version": WORLD_VERSION,
        "digest": config.digest(),
        "complete": complete,
        "config": config.model_dump(mode="json"),
    }
    write_atomically(root / _RECORD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<34}{text}" for name, text in rows)


def _readme(config: WorldConfig) -> str:
    values = "\n".join(f"  {key}: {value}" for key, value in config.model_dump(mode="json").items())
    files = _table(
        [
            ("calibration/", "KITTI-360's calibration files, of a rig of our own"),
            ("data_poses/<drive>/", "poses.txt (IMU to world), cam0_to_world.txt"),
            ("data_2d_raw/<drive>/image_0[01]/", "rectified stereo, data_rect/*.png, timestamps.txt"),
            ("data_2d_raw/<drive>/image_0[23]/", "side fisheyes (Mei model), data_rgb/*.png"),
            ("data_3d_raw/<drive>/", "velodyne_points/data/*.bin, float32 x, y, z, intensity"),
            ("splits/", "<drive> <frame id> <l|r>"),
            ("exact/<drive>/", "the truth: scene.npz and image_0[01]/*.npz; evaluation only"),
        ]
    )
    return (
        "This is a synthetic world: no picture in it was ever taken.\n\n"
        f"Made by vipocc's procedural streets, version {WORLD_VERSION}, by ray casting (Embree). All follows from\n"
        f"the configuration below, the seed ({config.seed}) included, and are the same whenever they are made again.\n"
        "The layout is KITTI-360's, the images, poses and calibration are not from that dataset.\n\n"
        f"{files}\n\nConfiguration\n{values}\n"
    )
