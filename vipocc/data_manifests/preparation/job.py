"""One kind of preparation, planned: what is made of which rows, where, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vipocc.data_manifests.preparation.computer import ManifestComputer
from vipocc.stores import (
    DaskExecutor,
    Executor,
    LocalExecutor,
    Plan,
    Request,
    Store,
    StoreSpec,
    Summary,
    plan,
    run,
    select,
)

#: What a store refuses is mended by this: these stores have no second name.
ELSEWHERE = "use another workspace (`vipocc init -C FOLDER`), or delete the store to have it prepared anew"

Json: TypeAlias = dict[str, Any]
#: Rows per (sequence, camera).
Rows: TypeAlias = Mapping[tuple[str, str], np.ndarray]

KINDS = ("frames", "lidar", "occupancy")

# Below this many rows the start of worker processes costs more than they save.
WORTH_PROCESSES = 128


@dataclass(frozen=True)
class Job:
    """One kind of preparation, planned."""

    kind: str
    path: Path
    spec: StoreSpec
    root: Path
    frame_ids: Mapping[str, np.ndarray]
    requests: Sequence[Request]
    computer: ManifestComputer
    seconds_per_row: float
    bytes_per_row: float
    notes: tuple[str, ...] = ()
    """What the user should know of rows that were left out or are poorer than usual."""

    @property
    def store(self) -> Store:
        """The store, whether or not it is there yet."""
        if (self.path / "zarr.json").is_file():
            return Store.create_or_open(self.path, self.spec, self.root)
        return Store(self.path.absolute(), self.spec, self.root.absolute())

    def plan(self) -> Plan:
        """What is left to do; writes nothing."""
        return plan(self.store, self.requests)

    def part(self, index: int, parts: int) -> Job:
        """Return part `index` of `parts` (from 0): the same disjoint parts on every host."""
        return replace(self, requests=select(self.requests, index, parts))

    def run(self, jobs: int = 1, device: str = "cpu", scheduler: str | None = None) -> Summary:
        """Make what is missing, in `jobs` processes; on a GPU, what can make use of one, in a single process.

        With `scheduler`, the address of a dask cluster's, its workers do it instead.
        """
        missing = self.plan().missing
        if not missing:
            return Summary(0, 0, sum(len(request.rows) for request in self.requests), 0.0)
        store = Store.create_or_open(self.path, self.spec, self.root)
        for group, ids in self.frame_ids.items():
            store.ensure_group(group, ids)
        executor: Executor
        if scheduler is not None:
            executor = DaskExecutor(scheduler, device if self.computer.uses_device else "cpu")
        elif device != "cpu" and self.computer.uses_device:
            executor = LocalExecutor((device,))
        else:
            executor = LocalExecutor(workers=jobs if missing >= WORTH_PROCESSES else 1)
        return run(store, self.requests, self.computer, executor, f"preparing {self.kind}")
