"""The manifest: which frames a dataset has, where, calibrated how; one Parquet table, numpy columns in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vipocc.data_manifests.tables import (
    ROLE_NAMES,
    ROLES,
    SCHEMA,
    SPLITS,
    CameraTable,
    SequenceTable,
    from_arrow,
    outside_path,
    role_bit,
    to_arrow,
)
from vipocc.errors import DataError, MissingInputError, UsageError
from vipocc.geometry.cameras import Mei, Pinhole

__all__ = [
    "ROLES",
    "ROLE_NAMES",
    "SPLITS",
    "CameraTable",
    "FrameKey",
    "Manifest",
    "SequenceTable",
    "read_metadata",
    "role_bit",
]

FORMAT_VERSION = 1

#: Which cameras' images are asked for; see `Manifest.needed`.
Cameras: TypeAlias = Literal["perspective", "all", "every"]

_METADATA = b"vipocc"


class FrameKey(NamedTuple):
    """One image: a camera of a sequence at a row, its position among the posed frames of the sequence."""

    sequence: str
    camera: str
    row: int


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
            raise DataError(f"frame {frame_id} has no pose", where=sequence, fix="choose a frame that has one")
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
        """Return uint16 [N] role bits, see `tables.ROLE_NAMES`."""
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

    def needed(self, split: str, cameras: Cameras = "perspective") -> dict[tuple[str, str], np.ndarray]:
        """Return per (sequence, camera) the rows that a split's samples touch: keys, their t+1, other camera, fisheyes.

        Args:
            split: `train`, `val`, `test` or `all`.
            cameras: `perspective` leaves the fisheyes out, as priors do; `every` adds, at the rows of the keys, the
                images of cameras that no sample looks through, such as five of DDAD's six.
        """
        if cameras not in get_args(Cameras):
            raise UsageError(f"cameras cannot be '{cameras}'", fix=f"use {' or '.join(get_args(Cameras))}")
        found = self._with(_bits(split, ROLES), perspective_only=cameras == "perspective")
        if cameras == "every":
            for (sequence, _), rows in self.key_rows(split).items():
                for camera in self.cameras(sequence):
                    there = rows[self.has_image(sequence, camera)[rows]]
                    if len(there):
                        found[sequence, camera] = np.union1d(found.get((sequence, camera), there), there)
        return found

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
        schema = SCHEMA.with_metadata({_METADATA: json.dumps(metadata).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.partial-{os.getpid()}")
        try:
            with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
                for sequence, table in self._tables.items():
                    for camera in sorted(table.cameras):
                        writer.write_table(to_arrow(self.dataset, sequence, camera, table))
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
            with pq.ParquetFile(path) as file:
                tables = from_arrow(_inside(file, path))
        except DataError:
            raise
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
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


def _inside(file: pq.ParquetFile, path: Path) -> Iterator[pa.Table]:
    for group in range(file.num_row_groups):
        piece = file.read_row_group(group)
        outside = outside_path(piece)
        if outside is not None:
            raise DataError(f"'{outside}' in the manifest leaves the root", where=path, fix=_REINDEX)
        yield piece


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
