"""Reading a store: rows the ledger vouches for, through tensorstore, from any thread and any spawned process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import MissingInputError, StoreError, UsageError
from vipocc.stores import layout
from vipocc.stores.chunks import ChunkError, ShardFiles, read_rows
from vipocc.stores.files import digest_bytes
from vipocc.stores.ledger import Ledger, ledger_missing
from vipocc.stores.spec import Json, StoreSpec, Unit

# tensorstore's threads do not survive fork and it aborts the process; a clear error comes first.
_used_in = -1


class StoreReader:
    """Committed rows of one store.

    Opens lazily and keeps what it opened. Pickles as its path, so it can be handed to spawned workers; many threads may
    share one. What was committed after a group was first looked at is seen when a row not known yet is asked for, or
    after `refresh`.
    """

    def __init__(self, path: Path | str, *, fix: str | None = None) -> None:
        """Open the store at `path`.

        Args:
            path: the `.zarr` folder.
            fix: the command that makes its rows, named in the error when one is missing.

        Raises:
            MissingInputError: there is no store.
            StoreError: what is there is no store of this format version.
        """
        self.path = Path(path).absolute()
        self.fix = fix
        self.spec: StoreSpec = layout.read_root(self.path, fix)
        self._ledger = Ledger.of(self.path, self.spec)
        self._lock = threading.Lock()
        self._groups: dict[str, dict[int, str]] = {}
        # Masks beside the digests: a loader's worker asks for rows alone, and of a large store the digests are big.
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self._frame_ids: dict[str, NDArray[np.int64]] = {}
        self._arrays: dict[tuple[str, str], Any] = {}
        self._shards: dict[tuple[str, str], ShardFiles | None] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.fix)

    def __repr__(self) -> str:
        return f"StoreReader({str(self.path)!r})"

    @property
    def attrs(self) -> Json:
        """The store's attributes: dataset id, image size, label names and whatever its writer put there."""
        return dict(self.spec.attributes)

    def groups(self) -> list[str]:
        """Return the names of the groups, sorted."""
        return self._ledger.groups()

    def has(self, group: str) -> bool:
        """Tell whether the store has this group; it may hold no rows yet."""
        return self._ledger.group_record(group) is not None

    def frame_ids(self, group: str) -> NDArray[np.int64]:
        """Return the frame id of each row, `[N]`."""
        with self._lock:
            ids = self._frame_ids.get(group)
        if ids is None:
            known = self._ledger.group_record(group)
            if known is None:
                if not self._ledger.path.is_dir():
                    raise ledger_missing(self._ledger.path)
                raise MissingInputError(
                    f"store '{self.path.stem}' has no group '{group}'", where=self.path, fix=self.fix
                )
            ids = layout.read_frame_ids(self.path, group)
            if digest_bytes(ids.tobytes()) != known["frame_ids_digest"]:
                raise StoreError(
                    f"the frame ids of '{group}' were altered",
                    where=self.path,
                    fix="run the command that makes its rows",
                )
            ids.flags.writeable = False
            with self._lock:
                self._frame_ids[group] = ids
        return ids

    def rows(self, group: str) -> NDArray[np.bool_]:
        """Return for each row of a group whether it is committed, `[N]`; a group that is not there raises."""
        mask = np.zeros(len(self.frame_ids(group)), dtype=bool)
        held = self._mask(group)
        mask[: len(held)] = held
        return mask

    def row_digest(self, group: str, row: int) -> str:
        """Return the digest of a committed row's content over all arrays."""
        return self.digests(group, [row])[int(row)]

    def fingerprint(self, group: str) -> Json | None:
        """Return what made the rows of a group (model id, revision, parameters, …), None while it holds none."""
        return self._ledger.identity(group)

    def refresh(self) -> None:
        """Forget what was read of the ledger."""
        with self._lock:
            self._groups.clear()
            self._masks.clear()

    def read(self, group: str, row: int, array: str | None = None) -> NDArray[Any]:
        """Return one row of an array; `array` may be left out in a store that has only one.

        Raises:
            MissingInputError: the row is not committed.
            StoreError: the shard is missing, truncated or altered.
        """
        name = self._name(array)
        self._require(group, [int(row)])
        return self._fetch(group, name, int(row))

    def read_many(self, group: str, rows: Sequence[int] | NDArray[Any], array: str | None = None) -> NDArray[Any]:
        """Return rows of an array in the order given, `[n, *shape]`, in one call of tensorstore; errors as `read`."""
        name = self._name(array)
        wanted = [int(row) for row in rows]
        self._require(group, wanted)
        return self._fetch(group, name, np.asarray(wanted, dtype=np.int64))

    def gather(
        self, places: Sequence[tuple[str, int]], array: str | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return rows of any groups, each `(group, row)`, in the order given, `[n, *shape]`; errors as `read`.

        The fast way to many rows: straight from the shard files into `out` (`vipocc.stores.chunks`), on the calling
        thread alone. `read_many` is its plain twin.

        Args:
            places: the rows.
            array: may be left out in a store that has only one.
            out: where to put them, C-contiguous and of the array's data type; made if it is left out.
        """
        name = self._name(array)
        spec = self.spec.array(name)
        if out is None:
            out = np.empty((len(places), *spec.shape), spec.dtype)
        if out.shape != (len(places), *spec.shape) or out.dtype != spec.dtype or not out.flags.c_contiguous:
            raise UsageError(
                f"rows of '{name}' do not fit into an array {list(out.shape)} of {out.dtype}",
                fix=f"give a contiguous one {[len(places), *spec.shape]} of {spec.dtype}",
            )
        groups: dict[str, list[int]] = {}
        for at, (group, _) in enumerate(places):
            groups.setdefault(group, []).append(at)
        direct: list[tuple[ShardFiles, int, int]] = []
        for group, positions in groups.items():
            rows = [int(places[at][1]) for at in positions]
            self._require(group, rows)
            shards = self._shard_files(group, name)
            if shards is None:
                # Written by something else than us, or by another version: tensorstore reads any Zarr.
                out[positions] = self._fetch(group, name, np.asarray(rows, dtype=np.int64))
            else:
                direct += [(shards, row, at) for row, at in zip(rows, positions, strict=True)]
        try:
            read_rows(direct, out)
        except ChunkError as error:
            reason, folder, row = error.args
            group = folder.parent.relative_to(self.path).as_posix()
            raise self._unreadable(group, name, row, ValueError(reason)) from None
        return out

    def digests(self, group: str, rows: Iterable[int]) -> dict[int, str]:
        """Return the digests of all committed rows of a group; raises `MissingInputError` if one of `rows` is none."""
        wanted = [int(row) for row in rows]
        held = self._digests(group)
        if any(row not in held for row in wanted):
            with self._lock:
                self._groups.pop(group, None)
            held = self._digests(group)
            for row in wanted:
                if row not in held:
                    raise self._missing(group, row)
        return held

    # ------------------------------------------------------------------------------------------------------------------

    def _name(self, array: str | None) -> str:
        if array is None:
            if len(self.spec.arrays) > 1:
                raise UsageError(f"which array of '{self.path.stem}'?", fix=f"name one of {', '.join(self.spec.names)}")
            return self.spec.arrays[0].name
        return self.spec.array(array).name

    def _require(self, group: str, rows: Sequence[int]) -> None:
        """Raise `MissingInputError` unless all `rows` of a group are committed."""
        held = self._mask(group)
        if all(0 <= row < len(held) and held[row] for row in rows):
            return
        with self._lock:
            self._masks.pop(group, None)
        held = self._mask(group)
        for row in rows:
            if not (0 <= row < len(held) and held[row]):
                raise self._missing(group, row)

    def _missing(self, group: str, row: int) -> MissingInputError:
        return MissingInputError(
            f"store '{self.path.stem}' does not hold row {row} of '{group}'", where=self.path, fix=self.fix
        )

    def _mask(self, group: str) -> NDArray[np.bool_]:
        """Return for each row up to the last committed one whether it is committed."""
        with self._lock:
            mask = self._masks.get(group)
        if mask is None:
            rows = list(committed_rows(self._ledger, group))
            mask = np.zeros(max(rows, default=-1) + 1, dtype=np.bool_)
            mask[rows] = True
            with self._lock:
                self._masks[group] = mask
        return mask

    def _shard_files(self, group: str, name: str) -> ShardFiles | None:
        with self._lock:
            if (group, name) in self._shards:
                return self._shards[group, name]
        shards = ShardFiles.open(self.path / group / name, self.spec.array(name))
        with self._lock:
            return self._shards.setdefault((group, name), shards)

    def _digests(self, group: str) -> dict[int, str]:
        with self._lock:
            held = self._groups.get(group)
        if held is None:
            held = committed_rows(self._ledger, group)
            with self._lock:
                self._groups[group] = held
        return held

    def _fetch(self, group: str, name: str, index: Any) -> NDArray[Any]:
        array = self._open(group, name)
        try:
            return np.asarray(array[index].read().result())
        except ValueError as error:
            raise self._unreadable(group, name, index, error) from None

    def _open(self, group: str, name: str) -> Any:
        global _used_in
        if _used_in not in (-1, os.getpid()):
            raise UsageError(
                "a store was read in this process before it was forked, and cannot be read in the fork",
                fix="start workers with the 'spawn' method",
            )
        with self._lock:
            array = self._arrays.get((group, name))
            if array is not None:
                return array
        import tensorstore

        _used_in = os.getpid()
        where = self.path / group / name
        try:
            array = tensorstore.open(
                {
                    "driver": "zarr3",
                    "kvstore": {"driver": "file", "path": f"{where}/"},
                    "fill_missing_data_reads": False,
                },
                open=True,
                read=True,
                recheck_cached_metadata=False,
            ).result()
        except ValueError as error:
            raise StoreError(
                f"an array of the store cannot be opened ({_brief(error)})", where=where, fix=self._verify
            ) from None
        with self._lock:
            return self._arrays.setdefault((group, name), array)

    @cached_property
    def _verify(self) -> str:
        return f"run `vipocc stores verify {self.path.stem}`, then the command that makes its rows"

    def _unreadable(self, group: str, name: str, index: Any, error: Exception) -> StoreError:
        rows = ", ".join(str(row) for row in np.atleast_1d(index)[:4])
        return StoreError(
            f"row {rows} of '{group}/{name}' is missing, truncated or altered ({_brief(error)})",
            where=self.path,
            fix=self._verify,
        )


def _reopen(path: str, fix: str | None) -> StoreReader:
    return StoreReader(path, fix=fix)


def committed_rows(ledger: Ledger, group: str) -> dict[int, str]:
    """Return the rows of a group that count, with the digests of their content.

    Of a unit under replacement those rows count whose content the replacement does not change. Damaged records raise
    `StoreError`.
    """
    held: dict[int, str] = {}
    if ledger.identity(group) is None:
        return held
    for unit in ledger.units(group):
        held.update(unit_rows(ledger, unit))
    return held


def unit_rows(ledger: Ledger, unit: Unit) -> dict[int, str]:
    """Return what `committed_rows` does, for one unit."""
    # In this order: the other way round, a replacement that ends in between would leave the old record unfiltered.
    pending = ledger.read(unit, "next")
    record = ledger.read(unit)
    if record is None or not ledger.counts(record):
        return {}
    rows = {row: str(entry["digest"]) for row, entry in record.rows.items()}
    if pending is None:
        return rows
    return {row: digest for row, digest in rows.items() if pending.rows.get(row, {}).get("digest") == digest}


def row_refs(reader: StoreReader, group: str, rows: Iterable[int]) -> dict[int, Json]:
    """Return for each row the reference by which a downstream `Request.inputs` names it: store, group, row, digest.

    Raises:
        MissingInputError: one of the rows is not committed.
    """
    wanted = [int(row) for row in rows]
    held = reader.digests(group, wanted)
    return {row: {"store": reader.path.name, "group": group, "row": row, "digest": held[row]} for row in wanted}


def _brief(error: Exception) -> str:
    return str(error).split(" [", 1)[0].strip()[:200]
