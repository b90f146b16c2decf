"""A store that is written: opening it safely, its groups, and the commit of a unit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc import __version__
from vipocc.errors import StoreError, UsageError
from vipocc.stores import layout
from vipocc.stores.files import digest_bytes, digest_file, replace_durably, storage_errors, sync_folder, write_durably
from vipocc.stores.ledger import Ledger, Record
from vipocc.stores.spec import Json, Request, StoreSpec, Unit, json_digest, row_digest, same_inputs

_OTHER = "write a second store of this kind with --store NAME"


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
                    layout.create_root(store.path, spec)
        store._check(layout.read_root(store.path))
        return store

    @cached_property
    def ledger(self) -> Ledger:
        """The store's ledger."""
        return Ledger.of(self.path, self.spec)

    def ensure_group(self, group: str, frame_ids: NDArray[np.int64]) -> None:
        """Make the arrays of a group, one row per frame id, or check that the group is of these very frames.

        Raises:
            StoreError: the group holds other frames.
        """
        Unit(group, 0)
        ids = np.ascontiguousarray(frame_ids, dtype=np.int64)
        known = self.ledger.path / group / "group.json"
        wanted: Json = {"rows": len(ids), "frame_ids_digest": digest_bytes(ids.tobytes())}
        if self._group_record(known) == wanted:
            return
        with storage_errors(self.path), self.ledger.store_lock():
            held = self._group_record(known)
            if held is None:
                # No group record means that no unit can have been committed: what lies there was left by a kill.
                layout.create_group(self.path, group, ids, self.spec)
                replace_durably(known, json.dumps(wanted).encode())
            elif held != wanted:
                raise StoreError(
                    f"group '{group}' holds {held.get('rows')} rows of other frames than the {len(ids)} asked for",
                    where=self.path,
                    fix=_OTHER + ", or move the store away if the dataset has changed",
                )

    def n_rows(self, group: str) -> int:
        """Return how many rows a group has; raises `StoreError` if `ensure_group` was never called for it."""
        held = self._group_record(self.ledger.path / group / "group.json")
        if held is None:
            raise StoreError(f"the store has no group '{group}'", where=self.path)
        return int(held["rows"])

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
        if identity is None or identity == _plain(fingerprint):
            return
        what = _differences(identity, _plain(fingerprint))
        scope = f"group '{group}' of the store" if self.spec.fingerprint_scope == "group" else "the store"
        raise StoreError(
            f"{scope} was made with {what}", where=self.path, fix=_OTHER + ", or replace its rows with --overwrite"
        )

    def adopt(self, group: str, fingerprint: Json, *, overwrite: bool = False) -> None:
        """Make `fingerprint` the one whose rows count, before the first unit of it is written.

        A store that holds no rows of its former fingerprint is simply given over; one that does, only with `overwrite`,
        and from then on the former rows no longer count.

        Raises:
            StoreError: there are rows of another fingerprint and `overwrite` is not set.
        """
        wanted = _plain(fingerprint)
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

    # Writing; the caller holds the unit's lock ------------------------------------------------------------------------

    def recover(self, unit: Unit) -> None:
        """Carry through a replacement that a kill interrupted, and clear away what it left staged."""
        try:
            pending = self.ledger.read(unit, "next")
        except StoreError:
            pending = None
        with storage_errors(self.path):
            if pending is not None and self._recoverable(pending):
                self._put_in_place(pending)
            elif self.ledger.file(unit, "next").exists():
                # The new state cannot be had whole. The old one stands if none of its shards was replaced yet.
                if not self._intact(unit):
                    self.ledger.file(unit, "json").unlink(missing_ok=True)
                self.ledger.file(unit, "next").unlink()
            folder = self.ledger.file(unit, "json").parent
            for litter in folder.glob(f"{unit.shard:05d}.*.partial"):
                litter.unlink(missing_ok=True)

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

    def commit(
        self,
        request: Request,
        rows: Sequence[int],
        arrays: Mapping[str, NDArray[Any]],
        inputs: Mapping[int, list[Json]],
        kept: Record | None,
        seconds: float = 0.0,
    ) -> Record:
        """Put the unit's shards and record in place: `rows` from `arrays`, the others from the `kept` record's shards.

        Args:
            request: what was asked for; its fingerprint becomes the record's.
            rows: the rows just computed, in the order of `arrays`.
            arrays: every array of the specification, `[len(rows), *shape]`.
            inputs: references of what each row was made from, files with their digest.
            kept: the verified record whose other rows stay, or None.
            seconds: time the computation took, for the record.
        """
        unit, n = request.unit, self.n_rows(request.unit.group)
        held = unit.rows(n)
        self._check_arrays(unit, rows, arrays)
        same = kept is not None and kept.fingerprint_digest == json_digest(request.fingerprint)
        entries = {r: e for r, e in kept.rows.items() if r not in rows} if kept is not None and same else {}
        made: dict[str, Json] = {}
        with storage_errors(self.path):
            for spec in self.spec.arrays:
                full = {row - held.start: arrays[spec.name][k] for k, row in enumerate(rows)}
                if entries:
                    old = layout.shard_path(self.path, unit, spec).read_bytes()
                    decoded = layout.decode_shard(spec, old, len(held))
                    full |= {row - held.start: decoded[row - held.start] for row in entries}
                content = layout.encode_shard(spec, full, len(held))
                write_durably(self.ledger.staged(unit, spec.name), content)
                made[spec.name] = {"digest": digest_bytes(content), "size": len(content)}
            for position, row in enumerate(rows):
                digest = row_digest(self.spec, arrays, position)
                entries[row] = {"digest": digest, "inputs": list(inputs.get(row, []))}
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            provenance = {"vipocc": __version__, "written": now, "seconds": round(seconds, 3)}
            record = Record(unit, entries, _plain(request.fingerprint), made, provenance)
            self.ledger.write(record, "next")
            self._put_in_place(record)
        return record

    def _put_in_place(self, record: Record) -> None:
        unit = record.unit
        for spec in self.spec.arrays:
            staged, final = self.ledger.staged(unit, spec.name), layout.shard_path(self.path, unit, spec)
            if staged.exists():
                made = [p for p in (final.parent, *final.parent.parents) if not p.exists()]
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged, final)
                for folder in (final.parent, *(p.parent for p in made)):
                    sync_folder(folder)
        os.replace(self.ledger.file(unit, "next"), self.ledger.file(unit, "json"))
        self.ledger.file(unit, "rejected").unlink(missing_ok=True)
        sync_folder(self.ledger.file(unit, "json").parent)

    def _intact(self, unit: Unit) -> bool:
        try:
            record = self.ledger.read(unit)
        except StoreError:
            return False
        return record is not None and not self.altered(record)

    def _recoverable(self, record: Record) -> bool:
        """Tell whether every shard of a pending record is there whole, staged or in place."""
        for spec in self.spec.arrays:
            staged = self.ledger.staged(record.unit, spec.name)
            path = staged if staged.exists() else layout.shard_path(self.path, record.unit, spec)
            if not path.exists() or digest_file(path) != record.arrays[spec.name]["digest"]:
                return False
        return True

    # Checks -----------------------------------------------------------------------------------------------------------

    def _check(self, held: StoreSpec) -> None:
        if held.kind != self.spec.kind:
            raise StoreError(f"this is a store of {held.kind}, not of {self.spec.kind}", where=self.path, fix=_OTHER)
        for name in {**held.attributes, **self.spec.attributes}:
            there, asked = held.attributes.get(name), self.spec.attributes.get(name)
            if there != asked:
                raise StoreError(
                    f"the store is of {name} {_short(there)}, not {_short(asked)}", where=self.path, fix=_OTHER
                )
        if held.to_json() != self.spec.to_json():
            there_, asked_ = ([a.to_json() for a in s.arrays] for s in (held, self.spec))
            pair = next(((a, b) for a, b in zip(there_, asked_, strict=False) if a != b), (there_, asked_))
            raise StoreError(
                f"the store's arrays are laid out otherwise ({_short(pair[0])}, not {_short(pair[1])})",
                where=self.path,
                fix=_OTHER,
            )

    def _check_arrays(self, unit: Unit, rows: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> None:
        if set(arrays) != set(self.spec.names):
            raise UsageError(
                f"unit {unit.key}: arrays {sorted(arrays)} were computed, {sorted(self.spec.names)} belong"
            )
        for spec in self.spec.arrays:
            array = arrays[spec.name]
            if array.shape != (len(rows), *spec.shape) or array.dtype != np.dtype(spec.dtype):
                raise UsageError(
                    f"unit {unit.key}: '{spec.name}' was computed as {array.dtype}{list(array.shape)}, "
                    f"{spec.dtype}{[len(rows), *spec.shape]} belongs"
                )

    @staticmethod
    def _group_record(path: Path) -> Json | None:
        try:
            values = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            raise StoreError("the record of a group is damaged", where=path, fix="move the store away") from None
        return values if isinstance(values, dict) else None


def _plain(value: Json) -> Json:
    plain: Json = json.loads(json.dumps(value))
    return plain


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _differences(there: Json, asked: Json) -> str:
    names = [name for name in {**there, **asked} if there.get(name) != asked.get(name)]
    shown = [f"{name} {_short(there.get(name))}, not {_short(asked.get(name))}" for name in names[:3]]
    return "; ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
