"""The commit of a unit: stage its shards, write the record, put both in place; and what to do after a kill or damage.

Everything here is called by whoever holds the unit's lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc import __version__
from vipocc.errors import StoreError, UsageError
from vipocc.stores import layout
from vipocc.stores.files import digest_bytes, digest_file, storage_errors, sync_folder, write_durably
from vipocc.stores.ledger import Record
from vipocc.stores.spec import Arrays, Json, Request, StoreSpec, Unit, json_digest, plain_json, row_digest
from vipocc.stores.writer import Store


@dataclass(frozen=True)
class PackedRow:
    """A row ready for its shard: the digest of its values, and its chunks by array (of those that `packs_chunks`)."""

    digest: str
    chunks: Mapping[str, bytes]


def pack_row(spec: StoreSpec, arrays: Mapping[str, NDArray[Any]], position: int) -> PackedRow:
    """Digest and compress one row of `arrays`, each `[n, *shape]`."""
    packable = [array for array in spec.arrays if layout.packs_chunks(array)]
    chunks = {array.name: layout.encode_chunk(array, arrays[array.name][position]) for array in packable}
    return PackedRow(row_digest(spec, arrays, position), chunks)


def commit(
    store: Store,
    request: Request,
    rows: Sequence[int],
    arrays: Mapping[str, NDArray[Any]],
    inputs: Mapping[int, list[Json]],
    kept: Record | None,
    seconds: float = 0.0,
    notes: Json | None = None,
    packed: Mapping[int, PackedRow] | None = None,
) -> Record:
    """Put a unit's shards and record in place: `rows` from `arrays`, the others from the `kept` record's shards.

    Args:
        store: the store.
        request: what was asked for; its fingerprint becomes the record's.
        rows: the rows just computed, in the order of `arrays`.
        arrays: every array of the specification, `[len(rows), *shape]`.
        inputs: references of what each row was made from, files with their digest.
        kept: the verified record whose other rows stay, or None.
        seconds: time the computation took, for the record.
        notes: what else the record says of the computation; decides nothing.
        packed: the rows just computed as `pack_row` made them, if that is done already.
    """
    unit = request.unit
    held = unit.rows(store.n_rows(unit.group))
    store.check_rows(unit, rows)
    check_arrays(store, unit, rows, arrays)
    same = kept is not None and kept.fingerprint_digest == json_digest(request.fingerprint)
    entries = {r: e for r, e in kept.rows.items() if r not in rows} if kept is not None and same else {}
    made: dict[str, Json] = {}
    with storage_errors(store.path):
        try:
            for spec in store.spec.arrays:
                old: dict[int, NDArray[Any]] = {}
                if entries:
                    shard = layout.shard_path(store.path, unit, spec).read_bytes()
                    decoded = layout.decode_shard(spec, shard, len(held))
                    old = {row - held.start: decoded[row - held.start] for row in entries}
                if packed is not None and layout.packs_chunks(spec):
                    chunks = {row - held.start: packed[row].chunks[spec.name] for row in rows}
                    content = layout.join_shard(chunks | {k: layout.encode_chunk(spec, row) for k, row in old.items()})
                else:
                    new = {row - held.start: arrays[spec.name][k] for k, row in enumerate(rows)}
                    content = layout.encode_shard(spec, new | old, len(held))
                write_durably(store.ledger.staged(unit, spec.name), content)
                made[spec.name] = {"digest": digest_bytes(content), "size": len(content)}
            for position, row in enumerate(rows):
                digest = packed[row].digest if packed is not None else row_digest(store.spec, arrays, position)
                entries[row] = {"digest": digest, "inputs": list(inputs.get(row, []))}
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            provenance = {"vipocc": __version__, "written": now, "seconds": round(seconds, 3)}
            if notes:
                provenance["notes"] = plain_json(notes)
            record = Record(unit, entries, plain_json(request.fingerprint), made, provenance)
            store.ledger.write(record, "next")
        except OSError:
            # A disk that filled up needs this space back; what a kill leaves, `recover` clears.
            if not store.ledger.file(unit, "next").exists():
                _clear_staged(store, unit)
            raise
        _put_in_place(store, record)
    return record


def recover(store: Store, unit: Unit) -> None:
    """Carry through a replacement that a kill interrupted, and clear away what it left staged."""
    try:
        pending = store.ledger.read(unit, "next")
    except StoreError:
        pending = None
    with storage_errors(store.path):
        if pending is not None and _recoverable(store, pending):
            _put_in_place(store, pending)
        elif store.ledger.file(unit, "next").exists():
            # The new state cannot be had whole. The old one stands if none of its shards was replaced yet; if one was,
            # it is set aside, for `rescue` to take the rows that both states have in common.
            if not _intact(store, unit) and store.ledger.file(unit, "json").exists():
                os.replace(store.ledger.file(unit, "json"), store.ledger.file(unit, "rejected"))
            store.ledger.file(unit, "next").unlink()
        _clear_staged(store, unit)


def rescue(store: Store, unit: Unit) -> tuple[int, int]:
    """Write a unit anew from those of its rows that are still as recorded, its shards being damaged otherwise.

    Returns:
        How many rows were saved, and how many are lost. Nothing is written if none can be saved.
    """
    record = None
    for ending in ("json", "rejected"):
        try:
            record = record or store.ledger.read(unit, ending)
        except StoreError:
            continue
    if record is None or not store.ledger.counts(record):
        return 0, 0 if record is None else len(record.rows)
    held = unit.rows(store.n_rows(unit.group))
    shards = {spec.name: _decodable(store, unit, spec.name, len(held)) for spec in store.spec.arrays}
    good: dict[int, Arrays] = {}
    for row, entry in record.rows.items():
        arrays = {name: chunks[row - held.start] for name, chunks in shards.items() if row - held.start in chunks}
        if len(arrays) == len(shards) and row_digest(store.spec, arrays, 0) == entry["digest"]:
            good[row] = arrays
    if good:
        rows = tuple(good)
        inputs = {row: record.rows[row]["inputs"] for row in rows}
        whole = {name: np.concatenate([good[row][name] for row in rows]) for name in store.spec.names}
        commit(store, Request(unit, rows, record.fingerprint, inputs), rows, whole, inputs, None)
    return len(good), len(record.rows) - len(good)


def _put_in_place(store: Store, record: Record) -> None:
    unit = record.unit
    for spec in store.spec.arrays:
        staged, final = store.ledger.staged(unit, spec.name), layout.shard_path(store.path, unit, spec)
        if staged.exists():
            made = [p for p in (final.parent, *final.parent.parents) if not p.exists()]
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, final)
            for folder in (final.parent, *(p.parent for p in made)):
                sync_folder(folder)
    os.replace(store.ledger.file(unit, "next"), store.ledger.file(unit, "json"))
    store.ledger.file(unit, "rejected").unlink(missing_ok=True)
    sync_folder(store.ledger.file(unit, "json").parent)


def _intact(store: Store, unit: Unit) -> bool:
    try:
        record = store.ledger.read(unit)
    except StoreError:
        return False
    return record is not None and not store.altered(record)


def _recoverable(store: Store, record: Record) -> bool:
    """Tell whether every shard of a pending record is there whole, staged or in place."""
    for spec in store.spec.arrays:
        staged = store.ledger.staged(record.unit, spec.name)
        path = staged if staged.exists() else layout.shard_path(store.path, record.unit, spec)
        if not path.exists() or digest_file(path) != record.arrays[spec.name]["digest"]:
            return False
    return True


def _clear_staged(store: Store, unit: Unit) -> None:
    for litter in store.ledger.file(unit, "json").parent.glob(f"{unit.shard:05d}.*.partial"):
        litter.unlink(missing_ok=True)


def _decodable(store: Store, unit: Unit, name: str, n: int) -> dict[int, NDArray[Any]]:
    """Return those rows of a shard that can still be decoded, by position, each `[1, *shape]`."""
    spec = store.spec.array(name)
    try:
        content = layout.shard_path(store.path, unit, spec).read_bytes()
    except OSError:
        return {}
    return layout.decode_rows(spec, content, n)


def check_arrays(store: Store, unit: Unit, rows: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise `UsageError` if the arrays computed for some rows of a unit are not those of the store."""
    if set(arrays) != set(store.spec.names):
        raise UsageError(f"unit {unit.key}: arrays {sorted(arrays)} were computed, {sorted(store.spec.names)} belong")
    for spec in store.spec.arrays:
        array = arrays[spec.name]
        if array.shape != (len(rows), *spec.shape) or array.dtype != np.dtype(spec.dtype):
            raise UsageError(
                f"unit {unit.key}: '{spec.name}' was computed as {array.dtype}{list(array.shape)}, "
                f"{spec.dtype}{[len(rows), *spec.shape]} belongs"
            )
