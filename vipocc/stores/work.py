"""What is left to do, and the doing of one unit: plan, lock, compute, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError, MissingInputError, StoreError
from vipocc.stores.commit import PackedRow, check_arrays, commit, pack_row, recover, rescue
from vipocc.stores.inputs import check_unchanged, with_digests
from vipocc.stores.spec import Request, UnitComputer
from vipocc.stores.writer import Store

Advance: TypeAlias = Callable[[int], None]
"""Is told how many rows were just computed."""


@dataclass(frozen=True)
class Todo:
    """A request and those of its rows that are missing."""

    request: Request
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        todo: the requests with rows missing.
        rows: how many rows were asked for.
        done: how many of them the store holds, made from these inputs by these means.
    """

    todo: tuple[Todo, ...]
    rows: int
    done: int

    @property
    def missing(self) -> int:
        """How many rows are to be computed."""
        return self.rows - self.done


def plan(store: Store, requests: Iterable[Request], *, overwrite: bool = False) -> Plan:
    """Compare requests with the ledger, row by row; writes nothing.

    Raises:
        StoreError: the store holds rows of another fingerprint and `overwrite` is not set.
        UsageError: a row is not in its group.
    """
    todo, rows, done = [], 0, 0
    for request in requests:
        if store.ledger.group_record(request.unit.group) is not None:  # work is also planned before its groups are made
            store.check_rows(request.unit, request.rows)
        record = store.held(request.unit)
        missing = store.missing(request, record)
        rows += len(request.rows)
        done += len(request.rows) - len(missing)
        if missing:
            todo.append(Todo(request, missing))
    if not overwrite:
        for group, fingerprint in {t.request.unit.group: t.request.fingerprint for t in todo}.items():
            if store.holds_rows(group):
                store.check_fingerprint(group, fingerprint)
    return Plan(tuple(todo), rows, done)


@dataclass(frozen=True)
class Outcome:
    """How one unit went: `committed`, `held` (nothing was missing any more), `locked` by another process, `withdrawn`
    (not begun, as the run was asked to stop) or `failed`.

    A `fatal` failure (anything but a fault of this unit's own input) ends the run.
    """

    request: Request
    state: Literal["committed", "held", "locked", "withdrawn", "failed"]
    rows: int = 0
    error: Exception | None = None
    fatal: bool = False


def perform(store: Store, request: Request, computer: UnitComputer, advance: Advance) -> Outcome:
    """Do one unit under its lock: carry through what a kill interrupted, save the sound rows of damaged shards, compute
    what is missing, commit.

    Args:
        store: the store.
        request: the unit and rows wanted.
        computer: opened.
        advance: called with the number of rows just computed.
    """
    try:
        with store.ledger.lock(request.unit) as mine:
            if not mine:
                return Outcome(request, "locked")
            recover(store, request.unit)
            kept = store.verified(request.unit)
            if kept is None and rescue(store, request.unit)[0]:
                kept = store.verified(request.unit)
            missing = store.missing(request, kept)
            if not missing:
                return Outcome(request, "held")
            store.check_fingerprint(request.unit.group, request.fingerprint)
            started = time.perf_counter()
            check_unchanged(store, request, missing)
            arrays, packed = _compute(store, computer, request, missing, advance)
            check_unchanged(store, request, missing)
            inputs = with_digests(store, request, missing, getattr(computer, "digest_read", None))
            notes = getattr(computer, "notes", None)
            seconds = time.perf_counter() - started
            commit(store, request, missing, arrays, inputs, kept, seconds, notes() if notes else None, packed)
            return Outcome(request, "committed", len(missing))
    except (DataError, MissingInputError) as error:
        return Outcome(request, "failed", error=error)
    except Exception as error:
        return Outcome(request, "failed", error=error, fatal=True)


def _compute(
    store: Store, computer: UnitComputer, request: Request, rows: Sequence[int], advance: Advance
) -> tuple[Mapping[str, NDArray[Any]], dict[int, PackedRow]]:
    """Compute rows; a thread digests and compresses those that are there while the next are computed."""
    step = max(1, int(getattr(computer, "rows_per_call", len(rows))))
    parts: list[Mapping[str, NDArray[Any]]] = []
    packing: dict[int, Future[PackedRow]] = {}
    aside = ThreadPoolExecutor(1, "vipocc-packing")
    try:
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            part = computer.compute(request.unit, some)
            check_arrays(store, request.unit, some, part)
            packing |= {row: aside.submit(pack_row, store.spec, part, k) for k, row in enumerate(some)}
            parts.append(part)
            advance(len(some))
        packed = {row: future.result() for row, future in packing.items()}
    finally:
        aside.shutdown(cancel_futures=True)
    if len(parts) == 1:
        return parts[0], packed
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, packed


_RUN_AGAIN = "its rows were not committed; run the same command again (with fewer workers, if memory ran out)"


def worker_died(request: Request, what: str, fix: str = _RUN_AGAIN) -> Outcome:
    """Return the outcome of a unit whose worker process died."""
    error = StoreError(f"a worker process died ({what}) in unit {request.unit.key}", fix=fix)
    return Outcome(request, "failed", error=error)
