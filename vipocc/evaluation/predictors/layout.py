"""How predictions lie in a folder, whoever made them; docs/evaluating-your-method.md has the layout in words.

meta.json                                 what they are: see `Meta`
<sequence>/<camera>/<frame id>.npy        one array a frame, the frame id in ten digits
<sequence>/<camera>/<frame id>.npz        the same with the array named `occupancy` or `depth`
predictions.zarr/<sequence>/<camera>/     arrays `frame_id` [F] and `occupancy` or `depth` [F, ...], instead of files
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from vipocc.config import Schema
from vipocc.errors import DataError, MissingInputError, StoreError, UsageError
from vipocc.evaluation.report import Frame

META = "meta.json"
ZARR = "predictions.zarr"
SUFFIXES = (".npy", ".npz")
DIGITS = 10

Quantity = Literal["occupancy", "depth"]


class Meta(Schema):
    """What `meta.json` says."""

    format_version: Literal[1] = 1
    """Of the layout."""
    name: str = Field(min_length=1)
    """The method's, for the row of the table."""
    dataset: str
    """kitti-360, kitti-raw, ddad or synthetic."""
    unit: Literal["density", "opacity", "probability", "occupancy", "metres"]
    """Of occupancy: 1/m, share of light stopped in a cell, a score in [0, 1], or 0 and 1; of depth: metres."""
    points_digest: str = ""
    """Of the points that occupancy was predicted at (`points_digest`); empty for depth."""
    protocol: str = ""
    """Name of the protocol whose points they are, for people."""
    protocol_digest: str = ""
    """Of that protocol, for people."""
    holes: bool = False
    """Whether NaN in a depth map means that there is no prediction; otherwise it is a fault of the frame."""
    note: str = ""
    """Shown in the table."""

    @property
    def quantity(self) -> Quantity:
        """What was predicted."""
        return "depth" if self.unit == "metres" else "occupancy"

    @model_validator(mode="after")
    def _points_of_occupancy(self) -> Self:
        if self.quantity == "occupancy" and not self.points_digest:
            raise ValueError("points_digest is needed: which points was occupancy predicted at")
        if self.quantity == "occupancy" and self.holes:
            raise ValueError("holes are for depth; occupancy is needed at every point")
        return self


def points_digest(points: NDArray[Any]) -> str:
    """Return what tells sets of query points [N, 3] apart: 16 hexadecimal digits of their float32 values in order."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise UsageError(f"points [N, 3] are needed, not {points.shape}")
    values = np.ascontiguousarray(points, "<f4") + np.float32(0)  # 0 and -0 are the same place
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def frame_file(sequence: str, camera: str, frame_id: int, suffix: str = ".npy") -> str:
    """Return where a frame's prediction lies, relative to the folder."""
    return f"{sequence}/{camera}/{frame_id:0{DIGITS}d}{suffix}"


def read_meta(folder: Path) -> Meta:
    """Return what a folder of predictions says of itself.

    Raises:
        MissingInputError: there is no folder, or no `meta.json` in it.
        DataError: the file is damaged, a key is unknown, absent or of the wrong kind.
    """
    path, fix = folder / META, "see docs/evaluating-your-method.md; `vipocc eval points` writes one to fill in"
    if not folder.is_dir():
        raise MissingInputError("there is no such folder of predictions", where=folder, fix="correct --predictions")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInputError("the predictions lack their meta.json", where=folder, fix=fix) from None
    except (OSError, ValueError) as error:
        raise DataError(f"meta.json cannot be read ({error})", where=path, fix=fix) from None
    try:
        return Meta.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(f"meta.json: {at + ': ' if at else ''}{reason}", where=path, fix=fix) from None


class FolderWriter:
    """Writes predictions in the layout, a `.npy` file a frame."""

    def __init__(self, folder: Path, meta: Meta) -> None:
        """Make the folder with its `meta.json`.

        Raises:
            UsageError: there is something in it.
            StoreError: it cannot be written.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError("there is something already", where=folder, fix="name a new folder")
        self.folder, self.meta = folder, meta
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / META).write_text(json.dumps(meta.model_dump(), indent=1) + "\n", encoding="utf-8")

    def add(self, frame: Frame, values: NDArray[Any]) -> None:
        """Write a frame's prediction: depth [H, W], or occupancy [N]; raises `StoreError` if it cannot be written."""
        path = self.folder / frame_file(frame.sequence, frame.camera, frame.frame_id)
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values, allow_pickle=False)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"predictions cannot be written ({error.strerror or error})",
                where=self.folder,
                fix="name a folder on a disk with room",
            ) from None


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names as "a, b, c and 4 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
