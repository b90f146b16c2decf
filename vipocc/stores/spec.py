"""What a store holds and what is asked of it: array and store specifications, units of work, requests.

A store is a Zarr v3 hierarchy of groups (`<sequence>/<camera>`), each with the same arrays of N rows, one row per posed
frame. The unit of work and of commit is one shard: 64 consecutive rows of one group. Nothing here touches the disk but
`file_ref`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError, UsageError

#: Rows per shard; one unit of work.
SHARD = 64
#: Version of the layout that this code writes.
FORMAT_VERSION = 1
#: Name of the dimension that rows run along, and of the array that says which frame each row is.
ROW_DIMENSION, FRAME_ID = "frame", "frame_id"

Codec: TypeAlias = Literal["image", "picture", "depth", "labels", "plain"]
Json: TypeAlias = dict[str, Any]
Arrays: TypeAlias = dict[str, NDArray[Any]]

_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")


@dataclass(frozen=True)
class ArraySpec:
    """One array of every group of a store; on disk it has a leading dimension `frame` of N rows.

    `shape` and `dims` describe one row. `fill` is what plain Zarr readers see where nothing was written: NaN for
    floats. Which rows exist is the ledger's business, never the fill value's.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    fill: float
    dims: tuple[str, ...]
    units: str
    codec: Codec = "plain"
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype).name)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "dims", tuple(self.dims))
        if len(self.dims) != len(self.shape):
            raise UsageError(f"array '{self.name}' has {len(self.shape)} dimensions and names {len(self.dims)}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or self.name == FRAME_ID:
            raise UsageError(f"'{self.name}' cannot name an array")
        if np.isnan(self.fill) and not np.issubdtype(np.dtype(self.dtype), np.floating):
            raise UsageError(f"array '{self.name}' is {self.dtype} and cannot be filled with NaN")

    def to_json(self) -> Json:
        """Return what opening compares: all but the description."""
        return {
            "name": self.name, "shape": list(self.shape), "dtype": self.dtype, "dims": list(self.dims),
            "units": self.units, "codec": self.codec,
            "fill": "NaN" if np.isnan(self.fill) else float(self.fill),
        }  # fmt: skip


ANOTHER_NAME = "write a second store of this kind with --store NAME"


@dataclass(frozen=True)
class StoreSpec:
    """A kind of store: its arrays, and the attributes (dataset id, image size, …) it is refused over if they differ.

    `fingerprint_scope` says how far one fingerprint reaches. With `store`, the default, all rows of the store come from
    one model and one set of parameters. With `group`, each group has its own (ground truth of several protocols).
    """

    kind: str
    arrays: tuple[ArraySpec, ...]
    format_version: int = FORMAT_VERSION
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fingerprint_scope: Literal["store", "group"] = "store"
    way_out: str = field(default=ANOTHER_NAME, compare=False)
    """What to do where the store that is there is another one: told in errors, no part of the format."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrays", tuple(self.arrays))
        # Through JSON once, so that what is compared on open is what was read from disk (tuples become lists).
        object.__setattr__(self, "attributes", json.loads(json.dumps(dict(self.attributes))))
        if len({a.name for a in self.arrays}) != len(self.arrays) or not self.arrays:
            raise UsageError(f"a store of kind '{self.kind}' needs arrays of different names")

    def array(self, name: str) -> ArraySpec:
        """Return the specification of one array; raises `UsageError` if there is none of that name."""
        for spec in self.arrays:
            if spec.name == name:
                return spec
        raise UsageError(f"a store of kind '{self.kind}' has no array '{name}'", fix=f"it has {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, in order."""
        return tuple(spec.name for spec in self.arrays)

    def to_json(self) -> Json:
        """Return the specification as it stands in the attributes of the Zarr root."""
        return {
            "kind": self.kind,
            "format_version": self.format_version,
            "fingerprint_scope": self.fingerprint_scope,
            "attributes": dict(self.attributes),
            "arrays": [spec.to_json() for spec in self.arrays],
        }

    @classmethod
    def from_json(cls, values: Json) -> StoreSpec:
        """Return the specification that `to_json` wrote."""
        arrays = tuple(ArraySpec(**{**a, "fill": float(a["fill"])}) for a in values["arrays"])
        return cls(
            values["kind"], arrays, values["format_version"], values["attributes"], values["fingerprint_scope"]
        )  # fmt: skip


@dataclass(frozen=True, order=True)
class Unit:
    """One shard of one group: rows `64 * shard` to `64 * shard + 63`."""

    group: str
    shard: int

    def __post_init__(self) -> None:
        if not _GROUP.fullmatch(self.group):
            raise UsageError(f"'{self.group}' cannot name a group of a store")

    @property
    def key(self) -> str:
        """Where the unit's record lies in the ledger, without its ending."""
        return f"{self.group}/{self.shard:05d}"

    def rows(self, n: int) -> range:
        """Return the rows of this unit in a group of `n` rows."""
        return range(self.shard * SHARD, min((self.shard + 1) * SHARD, n))


@dataclass(frozen=True)
class Request:
    """Rows wanted of one unit, what they are to be made from, and by what.

    Attributes:
        unit: the shard.
        rows: row numbers within the group (not within the shard), rising.
        fingerprint: JSON object naming all that decides the values besides the inputs: model id, revision, weight
            digest, licence, preprocessing version, parameters. Another fingerprint means other rows.
        inputs: for each row the references of what it is made from (`file_ref`, `row_refs`); a row is made again when
            one of them differs from what its record says.
    """

    unit: Unit
    rows: tuple[int, ...]
    fingerprint: Json
    inputs: dict[int, list[Json]]

    def __post_init__(self) -> None:
        rows = tuple(sorted({int(row) for row in self.rows}))
        object.__setattr__(self, "rows", rows)
        first = self.unit.shard * SHARD
        if rows and not (first <= rows[0] and rows[-1] < first + SHARD):
            raise UsageError(f"rows {rows[0]} to {rows[-1]} are not all in unit {self.unit.key}")
        object.__setattr__(self, "inputs", {row: list(self.inputs.get(row, ())) for row in rows})


class UnitComputer(Protocol):
    """What computes rows. Picklable before `open`; opened once in each worker process.

    A computer may have an integer attribute `rows_per_call`: `compute` is then called with at most that many rows at a
    time, so that progress moves within a unit. It may have a method `notes`: the JSON object that it returns after a
    unit stands in the unit's record (a batch size that was found, say) and decides nothing. It may have a method
    `digest_read`: given an input file's path as its reference has it, the digest (`digest_bytes`) of the content that
    `compute` was made from, or None; the file is then not read again for its record. It is asked once for each file.
    It may have a method `units_at_once`: given the device, how many units one worker may have in hand at once (1
    otherwise). `compute` and `notes` are then called from as many threads, and the computer itself keeps the device to
    one of them at a time; while one has it, the others read, compress and commit.
    """

    def open(self, device: str) -> None:
        """Load models onto `device`."""
        ...

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return every array of the store for these rows, each `[len(rows), *shape]` in the specified dtype."""
        ...

    def close(self) -> None:
        """Let go of what `open` took."""
        ...


def requests_for(
    group: str, rows: Iterable[int], fingerprint: Json, inputs: Mapping[int, list[Json]] | None = None
) -> list[Request]:
    """Split rows of one group into requests, one per shard."""
    shards: dict[int, list[int]] = {}
    for row in rows:
        shards.setdefault(int(row) // SHARD, []).append(int(row))
    known = inputs or {}
    return [
        Request(Unit(group, shard), tuple(held), fingerprint, {r: known.get(r, []) for r in held})
        for shard, held in sorted(shards.items())
    ]


def file_ref(path: Path, root: Path) -> Json:
    """Return the reference of an input file: its path relative to `root`, size in bytes and modification time in ns."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"an input file cannot be read ({error.strerror})", where=path) from None
    relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return {"path": relative, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def same_inputs(asked: list[Json], recorded: list[Json]) -> bool:
    """Tell whether a row's recorded inputs are those asked for: size and time of files, digest of rows."""
    return len(asked) == len(recorded) and all(
        {k: v for k, v in a.items() if k != "digest"} == {k: v for k, v in r.items() if k != "digest"}
        and ("path" in a or a.get("digest") == r.get("digest"))
        for a, r in zip(asked, recorded, strict=True)
    )


def plain_json(value: Json) -> Json:
    """Return a JSON object as it reads after a trip to disk: tuples become lists."""
    plain: Json = json.loads(json.dumps(value))
    return plain


def json_digest(value: Json) -> str:
    """Return the BLAKE2b-128 digest of a JSON value in canonical form, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def row_digest(spec: StoreSpec, arrays: Mapping[str, NDArray[Any]], position: int) -> str:
    """Return the BLAKE2b-128 digest of one row over all arrays: of its values, not of how the shard packs them."""
    state = blake2b(digest_size=16)
    for array in spec.arrays:
        state.update(f"{array.name}:{array.dtype}:{array.shape};".encode())
        state.update(np.ascontiguousarray(arrays[array.name][position]).tobytes())
    return state.hexdigest()


def select(requests: Sequence[Request], i: int, n: int) -> list[Request]:
    """Return part `i` of `n` (from 0) of the requests, for array jobs: the same parts on every host, disjoint units.

    Raises:
        UsageError: `i` is not in `[0, n)`.
    """
    if not 0 <= i < n:
        raise UsageError(f"there is no part {i} of {n}", fix=f"use --shard I/{n} with I from 0 to {n - 1}")
    units = sorted({request.unit for request in requests})
    mine = set(units[i::n])
    return [request for request in requests if request.unit in mine]


def parse_shard(text: str) -> tuple[int, int]:
    """Read `--shard I/N` as `(I, N)`."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(f"'{text}' is not a part of the work", fix="use --shard I/N with I from 0 to N-1, e.g. 0/4")
    return int(match[1]), int(match[2])
