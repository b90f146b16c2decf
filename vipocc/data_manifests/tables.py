"""The manifest's columns in memory, and the Arrow table that they are on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vipocc.geometry.cameras import Mei, Pinhole

SPLITS = ("train", "val", "test")
ROLES = ("key", "neighbour", "fisheye")
#: Names of the role bits, bit i of `CameraTable.roles` being ROLE_NAMES[i].
ROLE_NAMES = tuple(f"{split}:{role}" for split in SPLITS for role in ROLES)

_PINHOLE = ("fx", "fy", "cx", "cy")
_MEI = ("xi", "k1", "k2", "p1", "p2", "gamma1", "gamma2", "u0", "v0")
_OUTSIDE = r"(^/|^[A-Za-z]:|\\|(^|/)\.\.(/|$))"


@dataclass(frozen=True)
class CameraTable:
    """What a camera of one sequence recorded; N = posed frames of the sequence."""

    model: Pinhole | Mei
    """Calibration of the raw image."""
    paths: pa.StringArray
    """[N] image paths relative to the root, also of images that are absent."""
    file_size: np.ndarray
    """int64 [N], bytes, -1 where the image is absent."""
    world_from_camera: np.ndarray
    """float64 [N, 4, 4]."""
    roles: np.ndarray
    """uint16 [N], bit i set if the image has role ROLE_NAMES[i]."""
    unposed: int = 0
    """Images of frames without pose, counted while indexing; not kept on disk, for nothing can be done with them."""


@dataclass(frozen=True)
class SequenceTable:
    """A drive: its posed frames and, per camera, its images."""

    frame_ids: np.ndarray
    """int64 [N], increasing."""
    timestamp: np.ndarray
    """float64 [N], seconds since 1970, NaN where unknown."""
    world_from_lidar: np.ndarray
    """float64 [N, 4, 4]."""
    lidar_paths: pa.StringArray
    """[N] sweep paths relative to the root, null where there is none."""
    cameras: Mapping[str, CameraTable]


def role_bit(split: str, role: str) -> int:
    """Return the bit of a role such as ("train", "key") in `CameraTable.roles`."""
    return 1 << ROLE_NAMES.index(f"{split}:{role}")


_MATRIX = pa.list_(pa.float64(), 16)
SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("sequence", pa.string()),
        ("camera", pa.string()),
        ("frame_id", pa.int64()),
        ("row", pa.int64()),
        ("path", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("camera_model", pa.string()),
        *((name, pa.float64()) for name in (*_PINHOLE, *_MEI)),
        ("world_from_camera", _MATRIX),
        ("world_from_lidar", _MATRIX),
        ("timestamp", pa.float64()),
        ("lidar_path", pa.string()),
        ("file_size", pa.int64()),
        ("roles", pa.list_(pa.string())),
    ]
)


def to_arrow(dataset: str, sequence: str, camera: str, table: SequenceTable) -> pa.Table:
    """Return the rows of one camera of one sequence, columns as in `SCHEMA`."""
    this = table.cameras[camera]
    n = len(table.frame_ids)

    def same(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), n)

    names = _PINHOLE if isinstance(this.model, Pinhole) else _MEI
    columns = {
        "dataset": same(dataset, pa.string()),
        "sequence": same(sequence, pa.string()),
        "camera": same(camera, pa.string()),
        "frame_id": pa.array(table.frame_ids, pa.int64()),
        "row": pa.array(np.arange(n), pa.int64()),
        "path": this.paths,
        "width": same(this.model.width, pa.int32()),
        "height": same(this.model.height, pa.int32()),
        "camera_model": same("pinhole" if isinstance(this.model, Pinhole) else "mei", pa.string()),
        **{
            name: same(float(getattr(this.model, name)) if name in names else None, pa.float64())
            for name in (*_PINHOLE, *_MEI)
        },
        "world_from_camera": _matrices(this.world_from_camera),
        "world_from_lidar": _matrices(table.world_from_lidar),
        "timestamp": pa.array(table.timestamp, pa.float64()),
        "lidar_path": table.lidar_paths,
        "file_size": pa.array(this.file_size, pa.int64(), mask=this.file_size < 0),
        "roles": _role_lists(this.roles),
    }
    return pa.table(columns, schema=SCHEMA)


def _matrices(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values, np.float64).reshape(-1)), 16)


def _role_lists(bits: np.ndarray) -> pa.Array:
    held = (bits[:, None] >> np.arange(len(ROLE_NAMES))) & 1 == 1
    offsets = np.concatenate([[0], np.cumsum(held.sum(1))]).astype(np.int32)
    values = pa.array(ROLE_NAMES).take(pa.array(np.nonzero(held)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _role_bits(lists: pa.ListArray) -> np.ndarray:
    owners = pc.list_parent_indices(lists).to_numpy()
    found = pc.index_in(lists.flatten(), value_set=pa.array(ROLE_NAMES))
    if found.null_count:
        raise ValueError("a role in it is not known")
    bits = np.zeros(len(lists), np.uint16)
    np.bitwise_or.at(bits, owners, (1 << found.to_numpy()).astype(np.uint16))
    return bits


def outside_path(whole: pa.Table) -> str | None:
    """Return a path of the table that is absolute or climbs out of the root, None if there is none."""
    for column in ("path", "lidar_path"):
        outside = whole.filter(pc.match_substring_regex(whole[column], _OUTSIDE))
        if len(outside):
            return str(outside[column][0])
    return None


def from_arrow(pieces: Iterable[pa.Table]) -> dict[str, SequenceTable]:
    """Return the sequences of a table that comes in pieces, each of whole cameras, so that one is in memory at a time.

    Raises:
        ValueError: the table is not one that `to_arrow` made.
    """
    tables: dict[str, SequenceTable] = {}
    for piece in pieces:
        missing = set(SCHEMA.names) - set(piece.schema.names)
        if missing:
            raise ValueError(f"no column {sorted(missing)[0]}")
        for sequence, camera, part in _cameras(piece):
            ids = part["frame_id"].to_numpy()
            table = tables.get(sequence)
            if table is None:
                table = tables[sequence] = SequenceTable(
                    frame_ids=ids.copy(),
                    timestamp=part["timestamp"].to_numpy().copy(),
                    world_from_lidar=_stack(part, "world_from_lidar"),
                    lidar_paths=_own(part["lidar_path"]),
                    cameras={},
                )
            if camera in table.cameras or not np.array_equal(ids, table.frame_ids) or np.any(np.diff(ids) <= 0):
                raise ValueError(f"the frames of {sequence}/{camera} are not in order")
            tables[sequence] = replace(table, cameras={**table.cameras, camera: _camera_table(part)})
    return tables


def _cameras(piece: pa.Table) -> Iterable[tuple[str, str, pa.Table]]:
    names = piece["sequence"].to_numpy(zero_copy_only=False)
    cameras = piece["camera"].to_numpy(zero_copy_only=False)
    changes = np.flatnonzero((names[1:] != names[:-1]) | (cameras[1:] != cameras[:-1])) + 1
    edges = [0, *changes.tolist(), len(piece)] if len(piece) else []
    for start, stop in pairwise(edges):
        yield str(names[start]), str(cameras[start]), piece.slice(start, stop - start)


def _camera_table(part: pa.Table) -> CameraTable:
    kind = part["camera_model"][0].as_py()
    names = {"pinhole": _PINHOLE, "mei": _MEI}[kind]
    values = {name: part[name][0].as_py() for name in (*names, "width", "height")}
    return CameraTable(
        model=Pinhole(**values) if kind == "pinhole" else Mei(**values),
        paths=_own(part["path"]),
        file_size=part["file_size"].fill_null(-1).to_numpy().copy(),
        world_from_camera=_stack(part, "world_from_camera"),
        roles=_role_bits(_own(part["roles"])),
    )


def _own(column: pa.ChunkedArray) -> pa.Array:
    # A slice keeps the whole table's buffers alive; taking its rows copies just them.
    array = column.combine_chunks()
    return array.take(pa.array(np.arange(len(array))))


def _stack(part: pa.Table, name: str) -> np.ndarray:
    flat = part[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float64).reshape(-1, 4, 4).copy()
