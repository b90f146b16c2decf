"""A store that is written: opening it safely, its groups, what it holds and whose rows count."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import StoreError, UsageError
from vipocc.stores import layout
from vipocc.stores.files import digest_bytes, digest_file, storage_errors
from vipocc.stores.ledger import Ledger, Record, ledger_missing
from vipocc.stores.spec import ANOTHER_NAME, Json, Request, StoreSpec, Unit, json_digest, plain_json, same_inputs


@dataclass(frozen=True)
class Store:
    """A store for writing. Holds no open handles, so it travels to worker processes by pickle.

    `root` is the folder that relative paths of input files (`file_ref`) are relative to.
    """

    path: Path
    spec: StoreSpec
    root: Path = field(default_factory=Path)

    @classmethod
    def create_or_open(cls, path: Path, spec: StoreSpec, root: Path | None = None) -> Store:
        """Open the store at `path`, making it if there is none.

        Raises:
            StoreError: what is there is no store, or one of another kind, dataset, image size or format version.
        """
        store = cls(Path(path).absolute(), spec, Path(root or Path()).absolute())
        if not (store.path / "zarr.json").is_file():
            with storage_errors(store.path), store.ledger.store_lock():
                if not (store.path / "zarr.json").is_file():
                    if store.path.exists() and (not store.path.is_dir() or any(store.path.iterdir())):
                        raise StoreError("there is something else in the place of the store", where=store.path)
                    # A ledger without its store (somebody deleted the one) vouches for shards that are gone.
                    store.ledger.clear()
                    layout.create_root(store.path, spec)
        store._check(layout.read_root(store.path))
        return store

    @cached_property
    def ledger(self) -> Ledger:
        """The store's ledger."""
        return Ledger.of(self.path, self.spec)

    def ensure_group(self, group: str, frame_ids: NDArray[np.int64]) -> None:
        """Make the arrays of a group, one row per frame id, or check that the group is of these very frames.

        Metadata that was lost or altered is written anew; shards are never touched.

        Raises:
            StoreError: the group holds other frames, or shards that no ledger vouches for.
        """
        Unit(group, 0)
        ids = np.ascontiguousarray(frame_ids, dtype=np.int64)
        wanted: Json = {"rows": len(ids), "frame_ids_digest": digest_bytes(ids.tobytes())}
        if self.ledger.group_record(group) == wanted and not layout.group_faults(self.path, group, wanted, self.spec):
            return
        with storage_errors(self.path), self.ledger.store_lock():
            held = self.ledger.group_record(group)
            if held is None:
                # Shards are only written once the group has its record.
                if layout.has_shards(self.path, group, self.spec):
                    raise ledger_missing(self.ledger.path)
                layout.create_group(self.path, group, ids, self.spec)
                self.ledger.set_group_record(group, wanted)
            elif held == wanted:
                faults = layout.group_faults(self.path, group, wanted, self.spec)
                layout.create_group(self.path, group, ids, self.spec, only=faults)
            else:
                raise StoreError(
                    f"group '{group}' holds {held.get('rows')} rows of other frames than the {len(ids)} asked for",
                    where=self.path,
                    fix=f"{self.spec.way_out}, or move the store away if the dataset has changed",
                )

    def n_rows(self, group: str) -> int:
        """Return how many rows a group has; raises `StoreError` if `ensure_group` was never called for it."""
        held = self.ledger.group_record(group)
        if held is None:
            raise StoreError(f"the store has no group '{group}'", where=self.path)
        return int(held["rows"])

    def check_rows(self, unit: Unit, rows: Iterable[int]) -> None:
        """Raise `UsageError` if one of the rows is not in the group."""
        n = self.n_rows(unit.group)
        beyond = [row for row in rows if not 0 <= row < n]
        if beyond:
            raise UsageError(f"group '{unit.group}' has {n} rows and no row {beyond[0]}", where=self.path)

    def record(self, unit: Unit) -> Json | None:
        """Return the unit's record as JSON (rows, fingerprint, arrays, provenance), None if it holds nothing."""
        found = self.ledger.read(unit)
        if found is None:
            return None
        return {**found.provenance, "fingerprint": found.fingerprint, "arrays": found.arrays, "rows": found.rows}

    # What is there --------------------------------------------------------------------------------------------------

    def held(self, unit: Unit) -> Record | None:
        """Return the unit's record if its rows count: intact, of the store's fingerprint, nothing under way, and with
        shard files of the recorded sizes. Checksums are `verify`'s business.
        """
        if self.ledger.file(unit, "next").exists():
            return None
        try:
            record = self.ledger.read(unit)
        except StoreError:
            return None
        if record is None or not self.ledger.counts(record):
            return None
        for spec in self.spec.arrays:
            try:
                size = layout.shard_path(self.path, unit, spec).stat().st_size
            except FileNotFoundError:
                return None
            if size != record.arrays[spec.name]["size"]:
                return None
        return record

    def missing(self, request: Request, record: Record | None) -> tuple[int, ...]:
        """Return the rows of a request that `record` does not hold, or holds from other inputs or by other means."""
        if record is None or record.fingerprint_digest != json_digest(request.fingerprint):
            return request.rows
        rows = record.rows
        return tuple(
            row for row in request.rows if row not in rows or not same_inputs(request.inputs[row], rows[row]["inputs"])
        )

    def check_fingerprint(self, group: str, fingerprint: Json) -> None:
        """Raise `StoreError` if the store holds rows of another fingerprint: two models never mix in one store."""
        identity = self.ledger.identity(group)
        if identity is None or identity == plain_json(fingerprint):
            return
        what = _differences(identity, plain_json(fingerprint))
        scope = f"group '{group}' of the store" if self.spec.fingerprint_scope == "group" else "the store"
        # Who may give a store another name may replace its rows, too: the commands that take one flag take both.
        replace = ", or replace its rows with --overwrite" if self.spec.way_out == ANOTHER_NAME else ""
        raise StoreError(f"{scope} was made with {what}", where=self.path, fix=self.spec.way_out + replace)

    def adopt(self, group: str, fingerprint: Json, *, overwrite: bool = False) -> None:
        """Make `fingerprint` the one whose rows count, before the first unit of it is written.

        A store that holds no rows of its former fingerprint is simply given over; one that does, only with `overwrite`,
        and from then on the former rows no longer count.

        Raises:
            StoreError: there are rows of another fingerprint and `overwrite` is not set.
        """
        wanted = plain_json(fingerprint)
        if self.ledger.identity(group) == wanted:
            return
        with storage_errors(self.path), self.ledger.store_lock():
            if not overwrite and self.holds_rows(group):
                self.check_fingerprint(group, wanted)
            self.ledger.set_identity(group, wanted)

    def holds_rows(self, group: str) -> bool:
        """Tell whether any row of the present fingerprint is held (in this group, or in the whole store)."""
        within = group if self.spec.fingerprint_scope == "group" else None
        for ending in ("json", "next"):
            for unit in self.ledger.units(within, ending):
                try:
                    record = self.ledger.read(unit, ending)
                except StoreError:
                    continue
                if record is not None and self.ledger.counts(record):
                    return True
        return False

    def verified(self, unit: Unit) -> Record | None:
        """Return the unit's record if every shard has the recorded checksum, else None."""
        record = self.held(unit)
        return record if record is not None and not self.altered(record) else None

    def altered(self, record: Record) -> dict[str, str]:
        """Return, by array, what is wrong with the shard files of a record; empty if they are as recorded."""
        wrong = {}
        for spec in self.spec.arrays:
            path = layout.shard_path(self.path, record.unit, spec)
            entry = record.arrays.get(spec.name)
            try:
                if entry is None:
                    wrong[spec.name] = "is not in the record"
                elif path.stat().st_size != entry["size"]:
                    wrong[spec.name] = f"has {path.stat().st_size} bytes instead of {entry['size']}"
                elif digest_file(path) != entry["digest"]:
                    wrong[spec.name] = "was altered (its checksum differs)"
            except OSError as error:
                wrong[spec.name] = "is missing" if isinstance(error, FileNotFoundError) else f"is unreadable ({error})"
        return wrong

    # Checks -----------------------------------------------------------------------------------------------------------

    def _check(self, held: StoreSpec) -> None:
        if held.kind != self.spec.kind:
            raise StoreError(
                f"this is a store of {held.kind}, not of {self.spec.kind}", where=self.path, fix=self.spec.way_out
            )
        for name in {**held.attributes, **self.spec.attributes}:
            there, asked = held.attributes.get(name), self.spec.attributes.get(name)
            if there != asked:
                raise StoreError(
                    f"the store is of {name} {_short(there)}, not {_short(asked)}",
                    where=self.path,
                    fix=self.spec.way_out,
                )
        if held.to_json() != self.spec.to_json():
            there_, asked_ = ([a.to_json() for a in s.arrays] for s in (held, self.spec))
            pair = next(((a, b) for a, b in zip(there_, asked_, strict=False) if a != b), (there_, asked_))
            raise StoreError(
                f"the store's arrays are laid out otherwise ({_short(pair[0])}, not {_short(pair[1])})",
                where=self.path,
                fix=self.spec.way_out,
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _differences(there: Json, asked: Json) -> str:
    names = [name for name in {**there, **asked} if there.get(name) != asked.get(name)]
    shown = [f"{name} {_short(there.get(name))}, not {_short(asked.get(name))}" for name in names[:3]]
    return "; ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
