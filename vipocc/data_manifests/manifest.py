"""The manifest: which frames a dataset has, where, calibrated how; one Parquet table, numpy columns in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vipocc.errors import DataError, MissingInputError, UsageError
from vipocc.geometry.cameras import Mei, Pinhole

FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
ROLES = ("key", "neighbour", "fisheye")
#: Names of the role bits, bit i of `CameraTable.roles` being ROLE_NAMES[i].
ROLE_NAMES = tuple(f"{split}:{role}" for split in SPLITS for role in ROLES)

_METADATA = b"vipocc"
_PINHOLE = ("fx", "fy", "cx", "cy")
_MEI = ("xi", "k1", "k2", "p1", "p2", "gamma1", "gamma2", "u0", "v0")
_OUTSIDE = r"(^/|^[A-Za-z]:|\\|(^|/)\.\.(/|$))"


class FrameKey(NamedTuple):
    """One image: a camera of a sequence at a row, its position among the posed frames of the sequence."""

    sequence: str
    camera: str
    row: int


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


class Manifest:
    """The frames of one dataset. Everything downstream joins on (sequence, camera, row)."""

    def __init__(
        self,
        dataset: str,
        root: Path,
        tables: Mapping[str, SequenceTable],
        *,
        digest: str = "",
        left_out: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.root = root
        self.digest = digest
        """Of everything the index depends on; `stage.ensure_indexed` compares it."""
        self.left_out = {split: dict(reasons) for split, reasons in (left_out or {}).items()}
        """Per split, how many listed samples were left out, by reason."""
        self._tables = dict(sorted(tables.items()))

    def __repr__(self) -> str:
        frames = sum(len(table.frame_ids) for table in self._tables.values())
        return f"Manifest({self.dataset}, {len(self._tables)} sequences, {frames} posed frames)"

    @property
    def sequences(self) -> list[str]:
        """Names of the sequences, sorted."""
        return list(self._tables)

    def table(self, sequence: str) -> SequenceTable:
        """Return a sequence's columns; raises `UsageError` for a name that the manifest does not have."""
        try:
            return self._tables[sequence]
        except KeyError:
            raise UsageError(
                f"there is no sequence '{sequence}' in the manifest of {self.dataset}",
                fix=f"it has {', '.join(self.sequences) or 'none'}",
            ) from None

    def _camera(self, sequence: str, camera: str) -> CameraTable:
        cameras = self.table(sequence).cameras
        if camera not in cameras:
            raise UsageError(
                f"there is no camera '{camera}' in {sequence}", fix=f"it has {', '.join(sorted(cameras)) or 'none'}"
            )
        return cameras[camera]

    def cameras(self, sequence: str) -> list[str]:
        """Names of a sequence's cameras, sorted."""
        return sorted(self.table(sequence).cameras)

    def perspective_cameras(self, sequence: str) -> list[str]:
        """Names of a sequence's pinhole cameras, sorted."""
        return [name for name in self.cameras(sequence) if isinstance(self.camera_model(sequence, name), Pinhole)]

    def frame_ids(self, sequence: str) -> np.ndarray:
        """Return int64 [N], the dataset's own frame numbers by row."""
        return self.table(sequence).frame_ids

    def rows(self, sequence: str) -> int:
        """Number N of posed frames."""
        return len(self.table(sequence).frame_ids)

    def row_of(self, sequence: str, frame_id: int) -> int:
        """Return the row of a frame id; raises `DataError` if that frame has no pose."""
        ids = self.frame_ids(sequence)
        row = int(np.searchsorted(ids, frame_id))
        if row == len(ids) or ids[row] != frame_id:
            raise DataError(f"frame {frame_id} has no pose", where=sequence, fix="choose a frame that is in poses.txt")
        return row

    def timestamps(self, sequence: str) -> np.ndarray:
        """Return float64 [N], seconds since 1970, NaN where unknown."""
        return self.table(sequence).timestamp

    def has_image(self, sequence: str, camera: str) -> np.ndarray:
        """Return bool [N], where the camera's image file exists."""
        return np.asarray(self._camera(sequence, camera).file_size >= 0)

    def file_sizes(self, sequence: str, camera: str) -> np.ndarray:
        """Return int64 [N], bytes, -1 where the image is absent."""
        return self._camera(sequence, camera).file_size

    def image_path(self, sequence: str, camera: str, row: int) -> Path:
        """Absolute path of an image, whether or not it exists."""
        return self.root / str(self._camera(sequence, camera).paths[int(row)])

    def camera_model(self, sequence: str, camera: str) -> Pinhole | Mei:
        """Calibration of the raw image: pinhole, or the Mei model of a fisheye."""
        return self._camera(sequence, camera).model

    def world_from_camera(self, sequence: str, camera: str) -> np.ndarray:
        """Return float64 [N, 4, 4], poses of the raw camera."""
        return self._camera(sequence, camera).world_from_camera

    def world_from_lidar(self, sequence: str) -> np.ndarray:
        """Return float64 [N, 4, 4], poses of the LiDAR."""
        return self.table(sequence).world_from_lidar

    def lidar_path(self, sequence: str, row: int) -> Path | None:
        """Absolute path of a sweep, None where the dataset has none."""
        relative = self.table(sequence).lidar_paths[int(row)].as_py()
        return None if relative is None else self.root / relative

    def has_lidar(self, sequence: str) -> np.ndarray:
        """Return bool [N], where there is a sweep."""
        return np.asarray(self.table(sequence).lidar_paths.is_valid().to_numpy(zero_copy_only=False))

    def roles(self, sequence: str, camera: str) -> np.ndarray:
        """Return uint16 [N] role bits, see ROLE_NAMES."""
        return self._camera(sequence, camera).roles

    def key_rows(self, split: str) -> dict[tuple[str, str], np.ndarray]:
        """Return per (sequence, camera) int64 rows of the split's keys, increasing; absent where there are none."""
        return self._with(_bits(split, ("key",)), perspective_only=False)

    def keys(self, split: str) -> list[FrameKey]:
        """Return the keys of `train`, `val`, `test` or `all`, by sequence, row and camera."""
        found = [
            FrameKey(sequence, camera, int(row))
            for (sequence, camera), rows in self.key_rows(split).items()
            for row in rows
        ]
        return sorted(found, key=lambda key: (key.sequence, key.row, key.camera))

    def needed(
        self, split: str, cameras: Literal["perspective", "all"] = "perspective"
    ) -> dict[tuple[str, str], np.ndarray]:
        """Return per (sequence, camera) the rows that a split's samples touch: keys, their t+1, other camera, fisheyes.

        Args:
            split: `train`, `val`, `test` or `all`.
            cameras: `perspective` leaves the fisheyes out, as priors do.
        """
        if cameras not in ("perspective", "all"):
            raise UsageError(f"cameras cannot be '{cameras}'", fix="use perspective or all")
        return self._with(_bits(split, ROLES), perspective_only=cameras == "perspective")

    def _with(self, bits: int, *, perspective_only: bool) -> dict[tuple[str, str], np.ndarray]:
        found = {}
        for sequence in self._tables:
            for camera in self.perspective_cameras(sequence) if perspective_only else self.cameras(sequence):
                rows = np.flatnonzero(self.roles(sequence, camera) & bits)
                if len(rows):
                    found[sequence, camera] = rows.astype(np.int64)
        return found

    def with_roles(
        self, roles: Mapping[tuple[str, str], np.ndarray], left_out: Mapping[str, Mapping[str, int]]
    ) -> Manifest:
        """Return a copy with other role bits: uint16 [N] per (sequence, camera), none where not given."""
        tables = {}
        for sequence, table in self._tables.items():
            none = np.zeros(len(table.frame_ids), np.uint16)
            cameras = {
                name: replace(camera, roles=roles.get((sequence, name), none)) for name, camera in table.cameras.items()
            }
            tables[sequence] = replace(table, cameras=cameras)
        return Manifest(self.dataset, self.root, tables, digest=self.digest, left_out=left_out)

    def save(self, path: Path) -> None:
        """Write the table whole or not at all."""
        metadata = {
            "format_version": FORMAT_VERSION,
            "dataset": self.dataset,
            "root": _portable(self.root, path),
            "digest": self.digest,
            "left_out": self.left_out,
        }
        tables = [
            _to_arrow(self.dataset, sequence, camera, table)
            for sequence, table in self._tables.items()
            for camera in sorted(table.cameras)
        ]
        whole = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
        whole = whole.replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.partial-{os.getpid()}")
        try:
            pq.write_table(whole, aside, compression="zstd")
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, *, dataset: str | None = None, root: Path | None = None) -> Manifest:
        """Read a manifest.

        Args:
            path: the Parquet file.
            dataset: if given, what it must be a manifest of.
            root: where the dataset lies now, by default where it lay when it was indexed.

        Raises:
            MissingInputError: there is no such file.
            DataError: the file is damaged, of another dataset or format, or a path in it leaves the root.
        """
        metadata = read_metadata(path)
        if dataset is not None and metadata["dataset"] != dataset:
            raise DataError(
                f"the manifest is of dataset '{metadata['dataset']}', not '{dataset}'", where=path, fix=_REINDEX
            )
        try:
            whole = pq.read_table(path, memory_map=False)
            _refuse_outside(whole, path)
            tables = dict(_from_arrow(whole))
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the manifest is damaged ({_first_line(error)})", where=path, fix=_REINDEX) from None
        stored = Path(os.path.normpath(path.parent.parent / metadata["root"]))
        return cls(
            metadata["dataset"],
            root if root is not None else stored,
            tables,
            digest=metadata["digest"],
            left_out=metadata["left_out"],
        )


_REINDEX = "write it anew with `vipocc data index`"


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a manifest says about itself (dataset, root, digest, left_out) without reading its rows."""
    if not path.is_file():
        raise MissingInputError("there is no manifest yet", where=path, fix="run `vipocc data index`")
    try:
        metadata = json.loads(pq.read_schema(path).metadata[_METADATA])
        version = metadata["format_version"]
        wanted = {name: metadata[name] for name in ("dataset", "root", "digest", "left_out")}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"not a readable manifest ({_first_line(error)})", where=path, fix=_REINDEX) from None
    if version != FORMAT_VERSION:
        raise DataError(f"manifest format {version} is not known", where=path, fix=_REINDEX)
    return wanted


def role_bit(split: str, role: str) -> int:
    """Return the bit of a role such as ("train", "key") in `CameraTable.roles`."""
    return 1 << ROLE_NAMES.index(f"{split}:{role}")


def check_relative(path: str) -> str:
    """Return `path` if it stays below the root, else raise `DataError`."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise DataError("a path of the dataset leaves its root", where=path, fix="use paths relative to the root")
    return path


def _bits(split: str, roles: Iterable[str]) -> int:
    if split not in (*SPLITS, "all"):
        raise UsageError(f"there is no split '{split}'", fix="use --split with train, val, test or all")
    chosen = SPLITS if split == "all" else (split,)
    return sum(role_bit(one, role) for one in chosen for role in roles)


def _portable(root: Path, path: Path) -> str:
    # A root inside the workspace (the synthetic world) is written relative to it, so that the folder can be moved.
    workspace = path.parent.parent
    return str(root.relative_to(workspace)) if root.is_relative_to(workspace) else str(root)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]


_MATRIX = pa.list_(pa.float64(), 16)
_SCHEMA = pa.schema(
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


def _to_arrow(dataset: str, sequence: str, camera: str, table: SequenceTable) -> pa.Table:
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
    return pa.table(columns, schema=_SCHEMA)


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


def _refuse_outside(whole: pa.Table, path: Path) -> None:
    for column in ("path", "lidar_path"):
        outside = whole.filter(pc.match_substring_regex(whole[column], _OUTSIDE))
        if len(outside):
            raise DataError(f"'{outside[column][0].as_py()}' in the manifest leaves the root", where=path, fix=_REINDEX)


def _from_arrow(whole: pa.Table) -> Iterable[tuple[str, SequenceTable]]:
    missing = set(_SCHEMA.names) - set(whole.schema.names)
    if missing:
        raise ValueError(f"no column {sorted(missing)[0]}")
    whole = whole.combine_chunks()
    names = whole["sequence"].to_numpy(zero_copy_only=False)
    cameras = whole["camera"].to_numpy(zero_copy_only=False)
    changes = np.flatnonzero((names[1:] != names[:-1]) | (cameras[1:] != cameras[:-1])) + 1
    edges = [0, *changes.tolist(), len(whole)] if len(whole) else []
    grouped: dict[str, list[tuple[str, pa.Table]]] = {}
    for start, stop in pairwise(edges):
        grouped.setdefault(names[start], []).append((cameras[start], whole.slice(start, stop - start)))
    for sequence, parts in grouped.items():
        first = parts[0][1]
        ids = first["frame_id"].to_numpy()
        for camera, part in parts:
            if not np.array_equal(part["frame_id"].to_numpy(), ids) or np.any(np.diff(ids) <= 0):
                raise ValueError(f"the frames of {sequence}/{camera} are not in order")
        yield (
            sequence,
            SequenceTable(
                frame_ids=ids.copy(),
                timestamp=first["timestamp"].to_numpy().copy(),
                world_from_lidar=_stack(first, "world_from_lidar"),
                lidar_paths=_own(first["lidar_path"]),
                cameras={camera: _camera_table(part) for camera, part in parts},
            ),
        )


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
