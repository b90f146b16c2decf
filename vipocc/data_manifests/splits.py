"""Splits: which frames train, val and test list, as packaged ranges or in the published lists' own format."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.tables import SPLITS
from vipocc.errors import ConfigError, DataError

#: (sequence, side) -> frame ids int64, increasing; side is "l" or "r", the camera of the stereo pair that is the key.
Frames = Mapping[tuple[str, str], np.ndarray]

_ABOUT = (
    "Frames by drive as ranges of frame ids; each frame is a sample for each side listed "
    "(l left, r right camera as key)."
)
_LINE = re.compile(r"((?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*)\s+(\d{1,18})\s+([lr])")


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


def is_packaged(known: Mapping[str, str], name: str) -> bool:
    """Tell whether a split of that name ships with vipocc, `known` being a dataset's names and files."""
    return name in known


def packaged(dataset: str, known: Mapping[str, str], name: str) -> SplitLists:
    """Return a split that ships with vipocc, kept as ranges of frame ids.

    Args:
        dataset: whose split.
        known: its packaged splits, names and files below `splits/`.
        name: which.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in known:
        raise ConfigError(
            f"there is no split '{name}' of {dataset}, and no folder of that name",
            fix=f"set data.split to {' or '.join(known) or 'a folder'}, or to a folder with train_files.txt, "
            "val_files.txt and test_files.txt",
        )
    text = files("vipocc.data_manifests").joinpath("splits", known[name]).read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return SplitLists(name, {split: _unpack(values["sequence"], values[split]) for split in SPLITS})


def _unpack(sequence: str, values: Mapping[str, Any]) -> Frames:
    frames = {}
    for drive, ranges in values["frames"].items():
        # Ranges are the same for all sides, or given for each.
        sides = dict.fromkeys(values["sides"], ranges) if isinstance(ranges, str) else ranges
        for side, of_side in sides.items():
            frames[sequence.format(drive), side] = expand(of_side)
    return frames


def to_packaged(lists: SplitLists, dataset: str, name: str, sequence: str) -> str:
    """Return lists as the text of a file below `splits/`, the inverse of `packaged`.

    This is how the packaged files are made: read the published lists with `read_folder` and the adapter's
    `sequence_of`, and write what this returns.

    Args:
        lists: what to pack.
        dataset: whose.
        name: of the split.
        sequence: what all names of sequences have in common, with `{}` for the part in which they differ.
    """
    before, after = sequence.split("{}")
    packed: dict[str, Any] = {"dataset": dataset, "name": name, "about": _ABOUT, "sequence": sequence}
    for split in SPLITS:
        frames = lists.frames[split]
        sides = sorted({side for _, side in frames})
        drives: dict[str, dict[str, str]] = {}
        for (drive, side), ids in sorted(frames.items()):
            drives.setdefault(drive.removeprefix(before).removesuffix(after), {})[side] = compact(ids)
        shared = all(len(of) == len(sides) and len(set(of.values())) == 1 for of in drives.values())
        packed[split] = {
            "samples": lists.count(split),
            "sides": sides,
            "frames": {drive: next(iter(of.values())) if shared else of for drive, of in drives.items()},
        }
    return json.dumps(packed, indent=1) + "\n"


def read_folder(folder: Path, sequence_of: Callable[[str], str] = lambda listed: listed) -> SplitLists:
    """Read lists in the published format: a line `<sequence> <frame id> <l|r>` per sample.

    A list may be gzipped, and may lack; not all three. `sequence_of` turns a list's name of a sequence into vipocc's.

    Raises:
        DataError: there is no list, a line is malformed, or a frame is listed twice.
    """
    frames: dict[str, Frames] = {}
    for split in SPLITS:
        path = next((p for p in (folder / f"{split}_files.txt", folder / f"{split}_files.txt.gz") if p.is_file()), None)
        frames[split] = {} if path is None else _read_list(path, sequence_of)
    if not any(frames.values()):
        raise DataError(
            "no split list here",
            where=folder,
            fix="set data.split to a folder with train_files.txt, val_files.txt or test_files.txt",
        )
    return SplitLists(str(folder), frames)


def _read_list(path: Path, sequence_of: Callable[[str], str]) -> Frames:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
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
        try:
            sequence = sequence_of(match[1])
        except DataError as error:
            raise DataError(f"line {number}: {error.what}", where=path, fix=error.fix) from None
        collected.setdefault((sequence, match[3]), []).append(int(match[2]))
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
