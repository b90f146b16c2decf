"""Listing the folders of a dataset: numbered files with their sizes, and what has changed since last time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def folders(path: Path) -> set[str]:
    """Return the names of the folders in a folder, links to folders included; none where there is no such folder."""
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in entries if entry.is_dir() and _NAME.fullmatch(entry.name)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def numbered(folder: Path, ending: str) -> Iterator[tuple[int, int]]:
    """Yield (number, size in bytes) of the files `<10 digits><ending>` of a folder, in no order."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            stem = entry.name[: -len(ending)]
            if entry.name.endswith(ending) and len(stem) == 10 and stem.isascii() and stem.isdigit():
                try:
                    yield int(stem), entry.stat().st_size
                except FileNotFoundError:
                    continue  # a dangling link is an absent file


class Found(NamedTuple):
    """The numbered files of one folder, beside the frames that have a pose."""

    sizes: np.ndarray
    """int64 [N], bytes of the file of each posed frame, -1 where there is none."""
    unposed: int
    """How many files are of other frames."""


def find_files(folder: Path, ending: str, ids: np.ndarray) -> Found:
    """Return what a folder holds of the files `<10-digit id><ending>` of increasing ids [N]; lists it once."""
    sizes = np.full(len(ids), -1, np.int64)
    found = list(numbered(folder, ending))
    if not found or not len(ids):
        return Found(sizes, len(found))
    numbers, held = np.array(found, np.int64).T
    rows = np.searchsorted(ids, numbers)
    rows[rows == len(ids)] = 0
    posed = ids[rows] == numbers
    sizes[rows[posed]] = held[posed]
    return Found(sizes, int((~posed).sum()))


def file_sizes(folder: Path, ending: str, ids: np.ndarray) -> np.ndarray:
    """Return int64 [N], the size in bytes of `<10-digit id><ending>` in a folder, -1 where there is none."""
    return find_files(folder, ending, ids).sizes


def numbered_paths(folder: str, ending: str, ids: np.ndarray, present: np.ndarray | None = None) -> pa.StringArray:
    """Return the paths `<folder>/<10-digit id><ending>` of ids, null where `present` is given and not set."""
    names = (f"{folder}/{number:010d}{ending}" for number in ids.tolist())
    if present is None:
        return pa.array(names, pa.string())
    return pa.array((name if there else None for name, there in zip(names, present, strict=True)), pa.string())


def state_of(root: Path, read: Iterable[str], listed: Iterable[str]) -> str:
    """Return a digest of files by content and of folders by their date.

    A folder's date changes when a file is added to or removed from it, so this sees a new download without listing it.

    Args:
        root: of the dataset.
        read: files relative to the root, absent ones included.
        listed: folders relative to the root, absent ones included.
    """
    digest = sha256()
    for name in read:
        path = root / name
        digest.update(f"{name}:".encode() + (path.read_bytes() if path.is_file() else b"\0"))
    for name in listed:
        path = root / name
        digest.update(f"{name}:{path.stat().st_mtime_ns if path.is_dir() else None};".encode())
    return digest.hexdigest()
