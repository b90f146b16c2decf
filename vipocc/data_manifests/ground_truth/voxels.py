"""Voxel labels of SSCBench-KITTI-360 in a folder that the user names (comparison_methods.md 6.1).

    [data_2d_raw/]<drive>/voxels/<row:06d>.label     uint16, one of the raw classes for each cell
    [data_2d_raw/]<drive>/voxels/<row:06d>.invalid   uint8, one byte for each cell, not 0 where nothing is known
    [preprocess/][labels/]<drive>/<row:06d>_1_1.npy  instead: numbers [256, 256, 32], 0 empty, 1 to 18, 255 unknown

The row counts posed frames, of which every 5th has labels. Cells run along x, y and z of the LiDAR, z fastest. Written
from descriptions: no such file was at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError, MissingInputError

SHAPE = (256, 256, 32)
ORIGIN = (0.0, -25.6, -2.0)
"""Lowest corner in the LiDAR's frame, metres: the official one."""
SIZE = 0.2
"""Metres of a cell's edge."""
EVERY = 5
"""Posed frames from one labelled frame to the next."""
EMPTY, UNKNOWN = 0, 255
UNDER_GROUND_LAYERS = 7
"""Lowest layers in which an empty cell without a labelled one below it is unknown."""

_CLASSES = {
    EMPTY: (0,), 1: (10, 252), 2: (11,), 3: (15,), 4: (18, 258), 5: (13, 16, 20, 256, 257, 259), 6: (30, 254),
    7: (40, 60), 8: (44,), 9: (48,), 10: (49,), 11: (50,), 12: (51,), 13: (70,), 14: (72,), 15: (80,), 16: (81,),
    17: (52,), 18: (99,), UNKNOWN: (1, 31, 32, 71, 253, 255),
}  # fmt: skip
_AGAIN = "unpack SSCBench-KITTI-360 again"
_NO_CLASS = 254


def _table() -> NDArray[np.uint8]:
    table = np.full(1 << 16, _NO_CLASS, np.uint8)
    for number, raw in _CLASSES.items():
        table[list(raw)] = number
    return table


_OF_RAW = _table()


class VoxelFiles:
    """The labels in a folder."""

    def __init__(self, folder: Path) -> None:
        """Open a folder; raises `MissingInputError` if it is none."""
        self.folder = folder
        if not folder.is_dir():
            raise MissingInputError(
                "there is no such folder of voxel labels", where=folder, fix="name the folder of SSCBench-KITTI-360"
            )

    def has(self, sequence: str, row: int) -> bool:
        """Return whether a row has labels."""
        return self._raw(sequence, row) is not None or self._preprocessed(sequence, row) is not None

    def read(self, sequence: str, row: int) -> NDArray[np.uint8]:
        """Return the classes uint8 [256, 256, 32] of a row: 0 empty, 1 to 18, 255 unknown.

        Raises:
            DataError: a file is missing beside the other, or damaged, or holds what is no class.
        """
        raw = self._raw(sequence, row)
        if raw is not None:
            return _read_raw(raw)
        found = self._preprocessed(sequence, row)
        if found is None:
            raise DataError(f"{sequence} has no voxel labels at row {row}", where=self.folder, fix=_AGAIN)
        return _read_preprocessed(found)

    def _raw(self, sequence: str, row: int) -> Path | None:
        names = (self.folder / "data_2d_raw" / sequence / "voxels", self.folder / sequence / "voxels")
        return _first([folder / f"{row:06d}.label" for folder in names])

    def _preprocessed(self, sequence: str, row: int) -> Path | None:
        places = (".", "labels", "preprocess/labels")
        return _first([self.folder / place / sequence / f"{row:06d}_1_1.npy" for place in places])


def write_voxels(folder: Path, sequence: str, row: int, raw: NDArray[np.uint16], invalid: NDArray[np.uint8]) -> None:
    """Write raw labels and invalid flags [256, 256, 32] of a row as SSCBench lays them out; raises `DataError`."""
    if raw.shape != SHAPE or invalid.shape != SHAPE:
        raise DataError(f"voxels must be {SHAPE}, not {raw.shape} and {invalid.shape}")
    place = folder / "data_2d_raw" / sequence / "voxels"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{row:06d}.label").write_bytes(raw.astype("<u2").tobytes())
    (place / f"{row:06d}.invalid").write_bytes((invalid != 0).astype(np.uint8).tobytes())


def known_cells(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which cells [x, y, z] have a truth: not the unknown ones, nor the empty ones under the ground.

    Under the ground is an empty cell of the lowest 7 layers that has no labelled cell strictly below it: free space is
    what a ray of the LiDAR has passed, and none passes there (the rule of S4C's evaluation).
    """
    labelled = (classes != EMPTY) & (classes != UNKNOWN)
    below = np.zeros_like(labelled)
    below[..., 1:] = np.logical_or.accumulate(labelled, axis=-1)[..., :-1]
    low = np.arange(classes.shape[-1]) < UNDER_GROUND_LAYERS
    return np.asarray((classes != UNKNOWN) & ~((classes == EMPTY) & low & ~below))


def _read_raw(path: Path) -> NDArray[np.uint8]:
    values = _numbers(path, "<u2")
    invalid = _numbers(path.with_suffix(".invalid"), "u1")
    classes = _OF_RAW[values]
    if (classes == _NO_CLASS).any():
        raise DataError(f"{values[classes == _NO_CLASS][0]} is no class of voxel labels", where=path, fix=_AGAIN)
    return np.where((invalid != 0) & (values == 0), np.uint8(UNKNOWN), classes).reshape(SHAPE)


def _numbers(path: Path, kind: str) -> NDArray[np.uint16]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError("a file of voxel labels is missing", where=path, fix=_AGAIN) from None
    wanted = int(np.prod(SHAPE)) * np.dtype(kind).itemsize
    if len(raw) != wanted:
        raise DataError(f"voxel labels have {len(raw):,} bytes, not {wanted:,}", where=path, fix=_AGAIN)
    return np.frombuffer(raw, kind)


def _read_preprocessed(path: Path) -> NDArray[np.uint8]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).split("\n", 1)[0][:120]
        raise DataError(f"voxel labels cannot be read ({reason})", where=path, fix=_AGAIN) from None
    if not isinstance(values, np.ndarray) or values.shape != SHAPE or values.dtype.kind not in "iuf":
        raise DataError(f"voxel labels must be numbers {list(SHAPE)}", where=path, fix=_AGAIN)
    if not np.isin(values, [*_CLASSES]).all():
        raise DataError("voxel labels hold other values than 0 to 18 and 255", where=path, fix=_AGAIN)
    return values.astype(np.uint8)


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
