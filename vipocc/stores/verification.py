"""Checking what a store holds against its ledger, and making it sound again.

`verify` reads every shard's checksum. A unit that does not hold is marked: its record is set aside as `.rejected`, its
rows stop counting, and the next run takes over those that still have the recorded content and makes the others again.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from vipocc.errors import StoreError
from vipocc.progress import progress
from vipocc.stores import layout
from vipocc.stores.activity import activities
from vipocc.stores.commit import recover
from vipocc.stores.files import storage_errors, sync_folder
from vipocc.stores.inputs import RecordedInputs
from vipocc.stores.ledger import Record
from vipocc.stores.reader import committed_rows
from vipocc.stores.spec import Json, Unit
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


@dataclass
class _Checked:
    """What was found of one unit."""

    rows: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    in_work: bool = False
    interrupted: bool = False
    files: dict[str, bool] = field(default_factory=dict)
    """Inputs that were compared, and whether they were still there."""


def verify(path: Path | str, *, deep: bool = False, root: Path | None = None, scheduler: str | None = None) -> Report:
    """Check every unit's record and shards; what does not hold is marked.

    The units are the chunks of a dask array: threads of this process look at them, or the workers of a cluster, and
    of a shard no more than a block of a file is in memory.

    Args:
        path: the store.
        deep: also compare inputs that still exist, files by content and rows of other stores by digest.
        root: folder of the dataset, which recorded paths of inputs are relative to.
        scheduler: address of a dask cluster's, whose workers see the store and the dataset under the same paths.

    Raises:
        StoreError, MissingInputError: there is no such store.
        UsageError: see `computing`.
    """
    from vipocc.stores.arrays import computing, each_unit

    store = open_store(path, root)
    report = Report(str(store.path))
    units = sorted({*store.ledger.units(), *store.ledger.units(ending="next"), *store.ledger.units(ending="rejected")})
    for group in store.ledger.groups():
        faults = layout.group_faults(store.path, group, store.ledger.group_record(group) or {}, store.spec)
        for name, what in faults.items():
            # Nothing to mark: every run looks at its groups before it begins.
            report.findings.append(Finding(group, 0, f"'{name}' {what}", True))
    check = partial(_verify_unit, store, uuid.uuid4().hex if deep else "")
    with computing(scheduler, store.path) as client, progress(f"verify {store.path.stem}", len(units), "units") as bar:
        answers = each_unit(units, check, client, bar.advance)
    files: dict[str, bool] = {}
    for unit, answer in zip(units, answers, strict=True):
        report.units += 1
        report.rows += answer.rows
        report.bytes += answer.bytes
        report.findings += answer.findings
        report.in_work += [unit.key] if answer.in_work else []
        report.interrupted += [unit.key] if answer.interrupted else []
        files |= answer.files
    report.inputs_checked, report.inputs_gone = sum(files.values()), len(files) - sum(files.values())
    return report


@lru_cache(maxsize=2)
def _inputs(_verification: str, path: Path, root: Path) -> RecordedInputs:
    """Return what the units of one verification know of their inputs, in this process."""
    return RecordedInputs(open_store(path, root))


def _verify_unit(store: Store, deep: str, unit: Unit) -> _Checked:
    """Check one unit; `deep` names the verification if inputs are compared too."""
    found = _Checked()
    with _hold(store, unit) as lock:
        if lock == "taken":
            found.in_work = True
            return found
        writable = lock == "held"
        if store.ledger.file(unit, "next").exists():
            found.interrupted = True
            if not writable:
                return found
            recover(store, unit)
        try:
            record = store.ledger.read(unit)
        except StoreError as error:
            found.findings.append(Finding(unit.key, 0, error.what, _reject(store, unit, writable)))
            return found
        if record is None:
            if store.ledger.file(unit, "rejected").exists():
                found.findings.append(Finding(unit.key, 0, "was rejected before and not made again yet", True))
            return found
        found.rows = len(record.rows)
        found.bytes = sum(int(entry["size"]) for entry in record.arrays.values())
        wrong = store.altered(record)
        if wrong:
            reason = ", ".join(f"'{name}' {what}" for name, what in wrong.items())
            found.findings.append(Finding(unit.key, len(record.rows), reason, _reject(store, unit, writable)))
        elif deep:
            inputs = _inputs(deep, store.path, store.root)
            changed = {row: why for row, entry in record.rows.items() if (why := inputs.changed(entry["inputs"]))}
            found.files = inputs.looked_at([ref for entry in record.rows.values() for ref in entry["inputs"]])
            if changed:
                marked = _drop(store, record, set(changed), writable)
                reason = f"made from inputs that have changed since ({next(iter(changed.values()))})"
                found.findings.append(Finding(unit.key, len(changed), reason, marked))
    return found


def status(path: Path | str) -> Json:
    """Return what a store holds and which runs are writing it now, from its ledger alone.

    Groups with rows and rows done, units, bytes, fingerprints; of each run the rows asked for, done and left, rows a
    second and seconds left.
    """
    store = open_store(path)
    groups: Json = {}
    units = size = 0
    for group in store.ledger.groups():
        done = len(committed_rows(store.ledger, group))
        groups[group] = {"rows": store.n_rows(group), "done": done}
        for unit in store.ledger.units(group):
            record = store.ledger.read(unit)
            if record is not None and store.ledger.counts(record):
                units += 1
                size += sum(int(entry["size"]) for entry in record.arrays.values())
    rejected = [unit.key for unit in store.ledger.units(ending="rejected")]
    scope = [store.ledger.identity(g) for g in groups] if store.ledger.scope == "group" else [store.ledger.identity("")]
    running = [
        {**asdict(note), "left": note.left, "rows_per_s": note.rate, "seconds_left": note.seconds_left}
        for note in activities(store.ledger.path)
    ]
    return {
        "store": str(store.path), "kind": store.spec.kind, "attributes": dict(store.spec.attributes),
        "units": units, "rows": sum(g["rows"] for g in groups.values()),
        "done": sum(g["done"] for g in groups.values()),
        "bytes": size, "rejected": rejected, "interrupted": [u.key for u in store.ledger.units(ending="next")],
        "fingerprints": [fingerprint for fingerprint in scope if fingerprint is not None], "groups": groups,
        "running": running,
    }  # fmt: skip


def open_store(path: Path | str, root: Path | None = None) -> Store:
    """Open a store that is there, whatever it holds; raises as `StoreReader` does."""
    path = Path(path).absolute()
    return Store(path, layout.read_root(path), (root or Path()).absolute())


# Marking -----------------------------------------------------------------------------------------------


@contextmanager
def _hold(store: Store, unit: Unit) -> Iterator[Literal["held", "taken", "read-only"]]:
    """Hold a unit for marking; a store that cannot be written is still checked."""
    try:
        lock = store.ledger.lock(unit)
        mine = lock.__enter__()
    except StoreError:
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
