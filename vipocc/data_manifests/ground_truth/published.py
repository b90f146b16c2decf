"""Ground truth files as the KYN authors publish them: GT_Occ and Object_Label, for the 446 test frames of KITTI-360.

    GT_Occ/<drive>_<10-digit frame id>_occgt.npy        [460, 80], not 0 where occupied
    GT_Occ/<drive>_<10-digit frame id>_visgt.npy        [460, 80], not 0 where visible
    Object_Label/<drive>_<10-digit frame id>_occgt_anno.png   8 bit [460, 80]: 0 free, 255 static, others objects

Rows run from z = 50 to z = 4; the evaluation uses rows 300 to 459 (published_system.md 1.1 and 7.1). Their positions
are not those of the queried points: 6.5 cm off at row 0, less towards the end. Written from that description: no such
file was at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID, Mask
from vipocc.errors import DataError, MissingInputError

ROWS = 460
"""Rows of a published map, from z = 50 to z = 4."""
FIRST_ROW = ROWS - SLICE_GRID.rows
"""The first row that is used, at z = 20."""
OCCUPANCY_FOLDER, OBJECT_FOLDER = "GT_Occ", "Object_Label"

_AGAIN = "unpack the published ground truth (GT_Occ and Object_Label) again"


class PublishedTruth(NamedTuple):
    """The used rows of one frame's maps, [160, 80] each, row 0 far."""

    occupied: Mask
    visible: Mask
    objects: NDArray[np.uint8] | None
    """0 free, 255 static, others objects; None where the frame has no object map."""


class PublishedFiles:
    """The published ground truth in a folder."""

    def __init__(self, folder: Path) -> None:
        """Open the folder that holds GT_Occ; raises `MissingInputError` if it holds none."""
        self.folder = folder
        if not (folder / OCCUPANCY_FOLDER).is_dir():
            raise MissingInputError(
                f"there is no published ground truth: the folder has no {OCCUPANCY_FOLDER}",
                where=folder,
                fix=f"give the folder that holds {OCCUPANCY_FOLDER} and {OBJECT_FOLDER}",
            )

    def has(self, sequence: str, frame_id: int) -> bool:
        """Return whether there is anything of a frame."""
        return any(path.is_file() for path in self._paths(sequence, frame_id))

    def read(self, sequence: str, frame_id: int) -> PublishedTruth:
        """Return the maps of a frame.

        Raises:
            DataError: a map is missing, while the other is there, or it is damaged, or of another shape or kind.
        """
        occupied, visible, objects = self._paths(sequence, frame_id)
        return PublishedTruth(_map(occupied), _map(visible), _object_map(objects) if objects.is_file() else None)

    def _paths(self, sequence: str, frame_id: int) -> tuple[Path, Path, Path]:
        name = f"{sequence}_{frame_id:010d}"
        occupancy, objects = self.folder / OCCUPANCY_FOLDER, self.folder / OBJECT_FOLDER
        return occupancy / f"{name}_occgt.npy", occupancy / f"{name}_visgt.npy", objects / f"{name}_occgt_anno.png"


def _map(path: Path) -> Mask:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError("a map of the published ground truth is missing", where=path, fix=_AGAIN) from None
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).split("\n", 1)[0][:120]
        raise DataError(
            f"a map of the published ground truth cannot be read ({reason})", where=path, fix=_AGAIN
        ) from None
    if not isinstance(values, np.ndarray) or values.shape != (ROWS, SLICE_GRID.columns):
        raise DataError(
            f"a published map must be {ROWS} x {SLICE_GRID.columns}, not {_told(values)}", where=path, fix=_AGAIN
        )
    if values.dtype.kind not in "biuf":
        raise DataError(f"a published map must hold numbers, not {values.dtype}", where=path, fix=_AGAIN)
    # Flags in whatever type: anything but 0 and 1 would be another kind of map.
    if not np.isin(values, (0, 1)).all():
        raise DataError("a published map holds other values than 0 and 1", where=path, fix=_AGAIN)
    return np.asarray(values[FIRST_ROW:] != 0)


def _object_map(path: Path) -> NDArray[np.uint8]:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    values = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if values is None:
        raise DataError("a published object map is no whole PNG image", where=path, fix=_AGAIN)
    if values.dtype != np.uint8 or values.shape != (ROWS, SLICE_GRID.columns):
        raise DataError(
            f"a published object map must be 8 bit, {ROWS} x {SLICE_GRID.columns}, not {values.dtype} {_told(values)}",
            where=path,
            fix=_AGAIN,
        )
    return np.asarray(values[FIRST_ROW:], np.uint8)


def _told(values: NDArray[Any]) -> str:
    return " x ".join(str(size) for size in np.shape(values)) or "a single value"
