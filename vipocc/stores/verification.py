"""Checking what a store holds against its ledger, and making it sound again.

`verify` reads every shard's checksum. A unit that does not hold is marked: its record is set aside as `.rejected`, its
rows stop counting, and the next run makes just those again. `repair` goes further: it carries through what a kill
interrupted, clears litter away, and saves those rows of rejected units that still have the recorded content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import StoreError
from vipocc.progress import progress
from vipocc.stores import layout
from vipocc.stores.files import digest_file, storage_errors, sync_folder
from vipocc.stores.ledger import Record
from vipocc.stores.reader import committed_rows
from vipocc.stores.spec import Arrays, ArraySpec, Json, Request, Unit, row_digest
from vipocc.stores.writer import Store


@dataclass(frozen=True)
class Finding:
    """Something wrong with one unit: the rows that no longer count, and why. `marked` if the ledger says so now."""

    unit: str
    rows: int
    reason: str
    marked: bool


@dataclass
class Report:
    """What `verify` found.

    Attributes:
        units: units checked.
        rows: rows they hold.
        bytes: size of their shards.
        findings: what is wrong.
        inputs_checked, inputs_gone: files compared by `deep`, and files that are no longer there to compare.
        in_work: units left out because a process is writing them.
        interrupted: units whose replacement a kill interrupted; the next run or `repair` carries it through.
    """

    store: str
    units: int = 0
    rows: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    inputs_checked: int = 0
    inputs_gone: int = 0
    in_work: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_json(self) -> Json:
        """Return the report as a JSON object."""
        return {**asdict(self), "sound": self.sound}


def verify(path: Path | str, *, deep: bool = False, root: Path | None = None) -> Report:
    """Check every unit's record and shards; what does not hold is marked.

    Args:
        path: the store.
        deep: also compare inputs that still exist, files by content and rows of other stores by digest.
        root: folder of the dataset, which recorded paths of inputs are relative to.

    Raises:
        StoreError, MissingInputError: there is no such store.
    """
    store = _open(path, root)
    report = Report(str(store.path))
    units = sorted({*store.ledger.units(), *store.ledger.units(ending="next"), *store.ledger.units(ending="rejected")})
    inputs = _Inputs(store)
    with progress(f"verify {store.path.stem}", len(units), "units") as bar:
        for unit in units:
            _verify_unit(store, unit, report, inputs if deep else None)
            bar.advance()
    report.inputs_checked, report.inputs_gone = inputs.checked, inputs.gone
    return report


def _verify_unit(store: Store, unit: Unit, report: Report, inputs: _Inputs | None) -> None:
    report.units += 1
    with _hold(store, unit) as lock:
        if lock == "taken":
            report.in_work.append(unit.key)
            return
        writable = lock == "held"
        if store.ledger.file(unit, "next").exists():
            report.interrupted.append(unit.key)
            if not writable:
                return
            store.recover(unit)
        try:
            record = store.ledger.read(unit)
        except StoreError as error:
            report.findings.append(Finding(unit.key, 0, error.what, _reject(store, unit, writable)))
            return
        if record is None:
            if store.ledger.file(unit, "rejected").exists():
                report.findings.append(Finding(unit.key, 0, "was rejected before and not made again yet", True))
            return
        report.rows += len(record.rows)
        report.bytes += sum(int(entry["size"]) for entry in record.arrays.values())
        wrong = store.altered(record)
        if wrong:
            reason = ", ".join(f"'{name}' {what}" for name, what in wrong.items())
            report.findings.append(Finding(unit.key, len(record.rows), reason, _reject(store, unit, writable)))
        elif inputs is not None:
            changed = {row: why for row, entry in record.rows.items() if (why := inputs.changed(entry["inputs"]))}
            if changed:
                marked = _drop(store, record, set(changed), writable)
                reason = f"made from inputs that have changed since ({next(iter(changed.values()))})"
                report.findings.append(Finding(unit.key, len(changed), reason, marked))


@dataclass
class _Inputs:
    """Compares recorded inputs with what is there now; each file and group is looked at once."""

    store: Store
    checked: int = 0
    gone: int = 0
    files: dict[str, str | None] = field(default_factory=dict)
    rows: dict[tuple[str, str], dict[int, str] | None] = field(default_factory=dict)

    def changed(self, refs: list[Json]) -> str:
        """Return the name of the first input that is not what it was, or nothing."""
        for ref in refs:
            now = self._file(ref["path"]) if "path" in ref else self._row(ref)
            if now is not None and now != ref["digest"]:
                return str(ref.get("path") or f"{ref['store']}/{ref['group']} row {ref['row']}")
        return ""

    def _file(self, path: str) -> str | None:
        if path not in self.files:
            try:
                self.files[path] = digest_file(self.store.root / path)
                self.checked += 1
            except OSError:
                self.files[path] = None
                self.gone += 1
        return self.files[path]

    def _row(self, ref: Json) -> str | None:
        key = (str(ref["store"]), str(ref["group"]))
        if key not in self.rows:
            try:
                other = _open(self.store.path.with_name(key[0]), None)
                self.rows[key] = committed_rows(other.ledger, key[1])
            except (OSError, StoreError):
                self.rows[key] = None
        held = self.rows[key]
        return None if held is None else held.get(int(ref["row"]))


def repair(path: Path | str) -> Json:
    """Carry through interrupted replacements, clear litter away, save the good rows of rejected units.

    Returns:
        Counts: `carried_through`, `litter` (files removed), `saved` and `lost` (rows of rejected units), and `todo`,
        the units that the next run of the command which made them will make again.
    """
    store = _open(path, None)
    before = verify(path)
    counts: Json = {"carried_through": len(before.interrupted), "litter": 0, "saved": 0, "lost": 0, "todo": []}
    with storage_errors(store.path):
        for unit in list(store.ledger.units(ending="rejected")):
            with store.ledger.lock(unit) as mine:
                if mine and not store.ledger.file(unit, "json").exists():
                    saved, lost = _save(store, unit)
                    counts["saved"] += saved
                    counts["lost"] += lost
                    counts["todo"] += [unit.key] if lost or not saved else []
        counts["litter"] = _clear(store)
    return counts


def status(path: Path | str) -> Json:
    """Return what a store holds, from its ledger alone: groups with rows and rows done, units, bytes, fingerprint."""
    store = _open(path, None)
    groups: Json = {}
    units = size = 0
    for file in sorted(store.ledger.path.glob("**/group.json")):
        group = file.parent.relative_to(store.ledger.path).as_posix()
        done = len(committed_rows(store.ledger, group))
        groups[group] = {"rows": store.n_rows(group), "done": done}
        for unit in store.ledger.units(group):
            record = store.ledger.read(unit)
            if record is not None and store.ledger.counts(record):
                units += 1
                size += sum(int(entry["size"]) for entry in record.arrays.values())
    rejected = [unit.key for unit in store.ledger.units(ending="rejected")]
    scope = [store.ledger.identity(g) for g in groups] if store.ledger.scope == "group" else [store.ledger.identity("")]
    return {
        "store": str(store.path), "kind": store.spec.kind, "attributes": dict(store.spec.attributes),
        "units": units, "rows": sum(g["rows"] for g in groups.values()),
        "done": sum(g["done"] for g in groups.values()),
        "bytes": size, "rejected": rejected, "interrupted": [u.key for u in store.ledger.units(ending="next")],
        "fingerprints": [fingerprint for fingerprint in scope if fingerprint is not None], "groups": groups,
    }  # fmt: skip


def _open(path: Path | str, root: Path | None) -> Store:
    path = Path(path).absolute()
    return Store(path, layout.read_root(path), (root or Path()).absolute())


# Marking and saving -----------------------------------------------------------------------------------------------


@contextmanager
def _hold(store: Store, unit: Unit) -> Iterator[Literal["held", "taken", "read-only"]]:
    """Hold a unit for marking; a store that cannot be written is still checked."""
    try:
        lock = store.ledger.lock(unit)
        mine = lock.__enter__()
    except OSError:
        yield "read-only"
        return
    with ExitStack() as stack:
        stack.push(lock.__exit__)
        yield "held" if mine else "taken"


def _reject(store: Store, unit: Unit, writable: bool) -> bool:
    """Set a record aside, so that its rows stop counting."""
    if not writable:
        return False
    with storage_errors(store.path):
        file = store.ledger.file(unit, "json")
        os.replace(file, store.ledger.file(unit, "rejected"))
        sync_folder(file.parent)
    return True


def _drop(store: Store, record: Record, rows: set[int], writable: bool) -> bool:
    """Take rows out of a record; the others stay."""
    if not writable:
        return False
    kept = {row: entry for row, entry in record.rows.items() if row not in rows}
    with storage_errors(store.path):
        store.ledger.write(replace(record, rows=kept))
    return True


def _save(store: Store, unit: Unit) -> tuple[int, int]:
    """Write a rejected unit anew from its rows that are still as recorded; returns how many were saved and lost."""
    try:
        record = store.ledger.read(unit, "rejected")
    except StoreError:
        record = None
    if record is None or not store.ledger.counts(record):
        store.ledger.file(unit, "rejected").unlink(missing_ok=True)
        return 0, 0 if record is None else len(record.rows)
    first = unit.rows(store.n_rows(unit.group)).start
    good: dict[int, Arrays] = {}
    shards = {spec.name: _chunks(store, unit, spec) for spec in store.spec.arrays}
    for row, entry in record.rows.items():
        arrays = {name: chunks.get(row - first) for name, chunks in shards.items()}
        whole = {name: array for name, array in arrays.items() if array is not None}
        if len(whole) == len(arrays) and row_digest(store.spec, whole, 0) == entry["digest"]:
            good[row] = whole
    lost = len(record.rows) - len(good)
    if good:
        rows = tuple(good)
        inputs = {row: record.rows[row]["inputs"] for row in rows}
        arrays_ = {n: np.concatenate([good[row][n] for row in rows]) for n in store.spec.names}
        store.commit(Request(unit, rows, record.fingerprint, inputs), rows, arrays_, inputs, None)
    return len(good), lost


def _chunks(store: Store, unit: Unit, spec: ArraySpec) -> dict[int, NDArray[Any]]:
    """Return those rows of a shard that can still be decoded, by position, each `[1, *shape]`."""
    try:
        content = layout.shard_path(store.path, unit, spec).read_bytes()
    except OSError:
        return {}
    return layout.decode_rows(spec, content, len(unit.rows(store.n_rows(unit.group))))


def _clear(store: Store) -> int:
    """Remove what killed writers left: staged files that belong to no replacement under way, and Zarr's own."""
    count = 0
    for file in store.ledger.path.glob("**/*.partial"):
        number = file.name.split(".", 1)[0]
        group = file.parent.relative_to(store.ledger.path).as_posix()
        if number.isdigit() and group != ".":
            with store.ledger.lock(Unit(group, int(number))) as mine:
                if mine and not store.ledger.file(Unit(group, int(number)), "next").exists():
                    file.unlink(missing_ok=True)
                    count += 1
        else:
            with store.ledger.store_lock():
                file.unlink(missing_ok=True)
                count += 1
    with store.ledger.store_lock():
        for file in store.path.glob("**/*.partial"):
            file.unlink(missing_ok=True)
            count += 1
    return count
