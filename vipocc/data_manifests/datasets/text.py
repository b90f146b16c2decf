"""Reading the small text files of datasets, such as calibrations; a fault names the file and the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from vipocc.errors import DataError, UsageError
from vipocc.geometry.poses import ORTHONORMAL_TOLERANCE, check_rigid

_T = TypeVar("_T")


def read_text(path: Path, fix: str) -> str:
    """Return a text file's content.

    Raises:
        DataError: the file is absent, empty or no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError("a file of the dataset is missing", where=path, fix=fix) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"a file of the dataset cannot be read ({first_line(error)})", where=path, fix=fix) from None
    if not text.strip():
        raise DataError("a file of the dataset is empty", where=path, fix=fix)
    return text


def refuse_cut(path: Path, fix: str) -> None:
    """Raise `DataError` if a file's last line does not end: one cut within a number still reads as numbers."""
    if not read_text(path, fix).endswith("\n"):
        raise DataError("a file of the dataset is truncated (its last line does not end)", where=path, fix=fix)


@dataclass(frozen=True)
class Pairs:
    """A calibration file of lines `key: numbers`."""

    path: Path
    fix: str
    values: Mapping[str, list[str]]

    @classmethod
    def read(cls, path: Path, fix: str) -> Pairs:
        """Read a file; raises `DataError` if it is absent, empty or no text."""
        pairs = {}
        for line in read_text(path, fix).splitlines():
            key, found, values = line.partition(":")
            if found:
                pairs[key.strip()] = values.split()
        return cls(path, fix, pairs)

    def numbers(self, key: str, count: int) -> np.ndarray:
        """Return float64 [count]; raises `DataError` for a key that is absent or holds anything else."""
        if key not in self.values:
            raise DataError(f"the calibration has no {key}", where=self.path, fix=self.fix)
        return numbers(self.values[key], count, key, self.path, self.fix)

    def rigid(self, key: str) -> np.ndarray:
        """Return the 3x4 transform of a key as float64 [4, 4]; raises `DataError` if it is not rigid."""
        return transform(self.numbers(key, 12).reshape(3, 4), self.path, self.fix)

    def rotation(self, key: str) -> np.ndarray:
        """Return the 3x3 rotation of a key as float64 [4, 4]; raises `DataError` if it is none."""
        return transform(self.numbers(key, 9).reshape(3, 3), self.path, self.fix)


def numbers(words: Sequence[str], count: int, what: str, path: Path, fix: str) -> np.ndarray:
    """Return words as float64 [count]; raises `DataError` for another number of words, or words that are no numbers."""
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise DataError(f"{what} of the calibration is not {count} numbers", where=path, fix=fix)
    return values


def transform(part: np.ndarray, path: Path, fix: str) -> np.ndarray:
    """Return the upper [3, 3] or [3, 4] part of a rigid transform as float64 [4, 4]; raises `DataError`."""
    matrix = np.eye(4)
    matrix[: part.shape[0], : part.shape[1]] = part
    return np.asarray(check_rigid(matrix, path, fix))


def read_numbers(path: Path, columns: int, what: str, fix: str) -> np.ndarray:
    """Read a table of numbers, float64 [N, columns]; blank lines at the end do not count.

    Raises:
        DataError: the file is absent, empty, no table, or has another number of columns.
    """
    lines = read_text(path, fix).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    try:
        table = np.loadtxt(lines, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise DataError(f"not a table of {what}s ({first_line(error)})", where=path, fix=fix) from None
    if table.shape[1] != columns:
        raise DataError(f"a {what} has {columns} numbers, not {table.shape[1]}", where=path, fix=fix)
    return table


def poses_from(rows: np.ndarray, frames: np.ndarray, path: Path, fix: str) -> np.ndarray:
    """Return 3x4 poses [N, 12] as float64 [N, 4, 4]; raises `DataError` naming the first frame that is not rigid."""
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    check_poses(poses, frames, path, fix)
    return poses


def check_poses(poses: np.ndarray, frames: np.ndarray, path: Path, fix: str) -> None:
    """Raise `DataError` naming the first of the frames whose pose [N, 4, 4] holds NaN or no proper rotation."""
    rotation = poses[:, :3, :3]
    with np.errstate(invalid="ignore"):
        off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        good = np.isfinite(poses).all(axis=(1, 2)) & (off <= ORTHONORMAL_TOLERANCE) & (np.linalg.det(rotation) > 0)
    if not good.all():
        first = int(np.argmin(good))
        check_rigid(poses[first], f"frame {int(frames[first])} of {path}", fix)


def read_timestamps(path: Path) -> np.ndarray | None:
    """Return seconds since 1970 by line, float64 [M], or None where the optional file is absent.

    Raises:
        DataError: a line is no date and time.
    """
    if not path.is_file():
        return None
    again = "delete the file, or download it again"
    lines = read_text(path, again).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    try:
        # A line cut off after its date would be read as midnight.
        short = next((line for line in lines if line.strip() and ":" not in line), None)
        if short is not None:
            raise ValueError(f"'{short.strip()[:30]}' has no time of day")
        moments = np.array([line.strip() for line in lines], dtype="datetime64[ns]")
    except ValueError as error:
        raise DataError(f"not a list of timestamps ({first_line(error)})", where=path, fix=again) from None
    seconds = moments.astype(np.int64) / 1e9
    return np.where(np.isnat(moments), np.nan, seconds)


def timestamps_of(path: Path, ids: np.ndarray) -> np.ndarray:
    """Return seconds since 1970 of frame numbers [N], NaN where the file or its line is absent."""
    seconds = read_timestamps(path)
    found = np.full(len(ids), np.nan)
    if seconds is not None:
        inside = ids < len(seconds)
        found[inside] = seconds[ids[inside]]
    return found


def build(make: Callable[[], _T], path: Path, fix: str) -> _T:
    """Return what `make` returns, a camera of impossible values being the file's fault."""
    try:
        return make()
    except UsageError as error:
        raise DataError(f"the calibration is impossible ({error.what})", where=path, fix=fix) from None


def whole(value: float) -> int:
    """Return an image size as an integer; raises `UsageError` for a fraction."""
    if value != round(value):
        raise UsageError(f"an image size must be a whole number, not {value}")
    return int(value)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, of bounded length."""
    return str(error).split("\n", 1)[0][:200]
