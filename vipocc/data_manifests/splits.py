"""Splits: which frames train, val and test list, and which of them make samples."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import SPLITS, Manifest, role_bit
from vipocc.data_manifests.views import rig, view_offsets
from vipocc.errors import ConfigError, DataError

#: (sequence, side) -> frame ids int64, increasing; side is "l" or "r", the camera of the stereo pair that is the key.
Frames = Mapping[tuple[str, str], np.ndarray]

_PACKAGED = {"kitti-360": {"seg": "kitti_360_seg.json"}}
_LINE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)\s+(\d{1,18})\s+([lr])")


@dataclass(frozen=True)
class SplitLists:
    """The frames that a dataset's splits list, before it is known which of them can be used."""

    name: str
    frames: Mapping[str, Frames]
    """By split: train, val, test."""

    def count(self, split: str) -> int:
        """Number of listed samples of a split."""
        return sum(len(ids) for ids in self.frames[split].values())

    def digest(self) -> str:
        """Digest of the listed frames, whatever form they were read from."""
        state = sha256()
        for split in SPLITS:
            for (sequence, side), ids in sorted(self.frames[split].items()):
                state.update(f"{split} {sequence} {side} ".encode() + ids.astype("<i8").tobytes())
        return state.hexdigest()


def is_packaged(dataset: str, name: str) -> bool:
    """Tell whether a split of that name ships with vipocc."""
    return name in _PACKAGED.get(dataset, {})


def packaged(dataset: str, name: str) -> SplitLists:
    """Return a split that ships with vipocc, kept as ranges of frame ids.

    Raises:
        ConfigError: there is none of that name.
    """
    known = _PACKAGED.get(dataset, {})
    if name not in known:
        raise ConfigError(
            f"there is no split '{name}' of {dataset}, and no folder of that name",
            fix=f"set data.split to {' or '.join(known) or 'a folder'}, or to a folder with train_files.txt, "
            "val_files.txt and test_files.txt",
        )
    text = files("vipocc.data_manifests").joinpath("splits", known[name]).read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    frames = {
        split: {
            (values["sequence"].format(drive), side): expand(ranges)
            for drive, ranges in values[split]["frames"].items()
            for side in values[split]["sides"]
        }
        for split in SPLITS
    }
    return SplitLists(name, frames)


def read_folder(folder: Path) -> SplitLists:
    """Read lists in the published format: a line `<sequence> <frame id> <l|r>` per sample.

    A list may be gzipped, and may lack; not all three.

    Raises:
        DataError: there is no list, a line is malformed, or a frame is listed twice.
    """
    frames: dict[str, Frames] = {}
    for split in SPLITS:
        path = next((p for p in (folder / f"{split}_files.txt", folder / f"{split}_files.txt.gz") if p.is_file()), None)
        frames[split] = {} if path is None else _read_list(path)
    if not any(frames.values()):
        raise DataError(
            "no split list here",
            where=folder,
            fix="set data.split to a folder with train_files.txt, val_files.txt or test_files.txt",
        )
    return SplitLists(str(folder), frames)


def _read_list(path: Path) -> Frames:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"a split list cannot be read ({error})", where=path, fix="get the list again") from None
    collected: dict[tuple[str, str], list[int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"line {number} is '{line[:60]}', not '<sequence> <frame id> <l or r>'", where=path, fix="mend the line"
            )
        collected.setdefault((match[1], match[3]), []).append(int(match[2]))
    frames = {}
    for (sequence, side), numbers in collected.items():
        ids, counts = np.unique(np.array(numbers, np.int64), return_counts=True)
        if len(ids) != len(numbers):
            twice = int(ids[counts > 1][0])
            raise DataError(
                f"{sequence} {twice:010d} {side} is listed twice", where=path, fix="remove one of the lines"
            )
        frames[sequence, side] = ids
    return frames


def expand(ranges: str) -> np.ndarray:
    """Return the numbers of "3-5 9" as int64 [3, 4, 5, 9]."""
    parts = [part.partition("-") for part in ranges.split()]
    spans = [np.arange(int(first), int(last or first) + 1) for first, _, last in parts]
    return np.concatenate(spans).astype(np.int64) if spans else np.zeros(0, np.int64)


def compact(ids: np.ndarray) -> str:
    """Return increasing numbers as ranges, the inverse of `expand`."""
    if not len(ids):
        return ""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def refuse_overlap(lists: SplitLists, same_drive: Callable[[str], str] = lambda drive: drive) -> None:
    """Raise `DataError` if a frame that train lists is also listed by test, from whichever camera."""
    train, test = (_by_drive(lists.frames[split], same_drive) for split in ("train", "test"))
    both = {drive: np.intersect1d(train[drive], test[drive]) for drive in train.keys() & test.keys()}
    total = sum(len(ids) for ids in both.values())
    if total:
        drive = min(drive for drive, ids in both.items() if len(ids))
        raise DataError(
            f"{total} frames are in both the train and the test list, such as frame {both[drive][0]} of {drive}",
            where=lists.name,
            fix="remove them from train_files.txt: what is trained on them cannot be tested on them",
        )


def assign_roles(manifest: Manifest, lists: SplitLists, config: DataConfig) -> Manifest:
    """Return the manifest with the roles that the lists give its images.

    A val or test sample needs just its key image. A training sample needs all its views (`views.view_offsets`), and its
    t+1 within `max_gap_ids` and `max_gap_metres`. Samples that lack something are left out and counted by reason in
    `Manifest.left_out`.
    """
    roles: dict[tuple[str, str], np.ndarray] = {}
    left_out: dict[str, dict[str, int]] = {}
    known = set(manifest.sequences)
    for split in SPLITS:
        reasons: dict[str, int] = {}
        for (sequence, side), ids in sorted(lists.frames[split].items()):
            if sequence not in known:
                _add(reasons, "the drive is not there", len(ids))
                continue
            camera = rig(manifest.dataset).stereo["lr".index(side)]
            rows = _rows(manifest.frame_ids(sequence), ids, reasons)
            offsets = view_offsets(manifest.dataset, camera, config) if split == "train" else [(camera, 0)]
            rows = _usable(manifest, sequence, rows, offsets, config, reasons)
            for position, (name, step) in enumerate(offsets):
                bits = roles.setdefault((sequence, name), np.zeros(manifest.rows(sequence), np.uint16))
                bits[rows + step] |= np.uint16(role_bit(split, _role(position)))
        left_out[split] = reasons
    return manifest.with_roles(roles, left_out)


def supervision_leaks(manifest: Manifest) -> dict[str, int]:
    """Return how many images that training samples see are of frames that val or test lists, by split and role.

    They are a property of the published lists, whose windows interleave, and are reported, not mended.
    """
    found: dict[str, int] = {}
    for split in ("val", "test"):
        held_out: dict[str, np.ndarray] = {}
        for (sequence, _), rows in manifest.key_rows(split).items():
            held = held_out.setdefault(sequence, np.zeros(manifest.rows(sequence), bool))
            held[rows] = True
        for sequence, held in held_out.items():
            for camera in manifest.cameras(sequence):
                bits = manifest.roles(sequence, camera)
                for role in ("neighbour", "fisheye"):
                    count = int((held & ((bits & role_bit("train", role)) != 0)).sum())
                    _add(found, f"{split}: {role}", count)
    return found


def _role(position: int) -> str:
    return "key" if position == 0 else "neighbour" if position < 4 else "fisheye"


def _rows(frame_ids: np.ndarray, ids: np.ndarray, reasons: dict[str, int]) -> np.ndarray:
    rows = np.searchsorted(frame_ids, ids)
    posed = frame_ids[np.minimum(rows, len(frame_ids) - 1)] == ids
    _add(reasons, "the frame has no pose", int((~posed).sum()))
    return np.asarray(rows[posed])


def _usable(
    manifest: Manifest,
    sequence: str,
    rows: np.ndarray,
    offsets: list[tuple[str, int]],
    config: DataConfig,
    reasons: dict[str, int],
) -> np.ndarray:
    total = manifest.rows(sequence)
    last = max(step for _, step in offsets)
    rows = _keep(rows, rows + last < total, "the drive ends within the sample", reasons)
    if last:
        ids = manifest.frame_ids(sequence)
        near = ids[rows + 1] - ids[rows] <= config.max_gap_ids
        rows = _keep(rows, near, f"t+1 is more than {config.max_gap_ids} frame ids away", reasons)
        places = manifest.world_from_camera(sequence, offsets[0][0])[:, :3, 3]
        near = np.linalg.norm(places[rows + 1] - places[rows], axis=1) <= config.max_gap_metres
        rows = _keep(rows, near, f"t+1 is more than {config.max_gap_metres:g} m away", reasons)
    for position, (camera, step) in enumerate(offsets):
        there = manifest.has_image(sequence, camera)[rows + step]
        kind = "a fisheye image" if _role(position) == "fisheye" else "an image"
        rows = _keep(rows, there, f"{kind} is missing", reasons)
    return rows


def _keep(rows: np.ndarray, good: np.ndarray, reason: str, reasons: dict[str, int]) -> np.ndarray:
    _add(reasons, reason, int((~good).sum()))
    return np.asarray(rows[good])


def _add(counts: dict[str, int], name: str, count: int) -> None:
    if count:
        counts[name] = counts.get(name, 0) + count


def _by_drive(frames: Frames, same_drive: Callable[[str], str]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for (sequence, _), ids in frames.items():
        parts.setdefault(same_drive(sequence), []).append(ids)
    return {drive: np.unique(np.concatenate(found)) for drive, found in parts.items()}
