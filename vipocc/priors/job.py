"""A job: rows of one store that are to exist, and what computes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import StoreError
from vipocc.stores import (
    Executor,
    LocalExecutor,
    Plan,
    Request,
    Store,
    StoreReader,
    StoreSpec,
    Summary,
    UnitComputer,
    plan,
    run,
    select,
)

Source = Literal["transformers", "simulated"]


class PriorComputer(UnitComputer, Protocol):
    """A unit computer that can say beforehand how long a row takes."""

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return seconds for one image of `size` (height, width) on `device`."""
        ...


@dataclass(frozen=True)
class Job:
    """Rows of one store that are to exist."""

    path: Path
    """The store."""
    spec: StoreSpec
    computer: PriorComputer
    requests: tuple[Request, ...]
    frame_ids: Mapping[str, NDArray[np.int64]]
    """Of each group, all its rows."""
    size: tuple[int, int]
    """Height and width of the prepared images."""
    bytes_per_row: float
    source: Source
    model: str
    """What computes, with its licence, for the eyes of the user."""
    root: Path = field(default_factory=Path)

    @property
    def rows(self) -> int:
        """How many rows are asked for."""
        return sum(len(request.rows) for request in self.requests)

    def part(self, index: int, parts: int) -> Job:
        """Return part `index` of `parts` (from 0): the same disjoint parts on every host."""
        chosen = tuple(select(self.requests, index, parts))
        return Job(**{**vars(self), "requests": chosen})

    def plan(self, *, overwrite: bool = False) -> Plan | None:
        """Return what is left to do, None if the store does not exist yet (then everything is); writes nothing."""
        if not (self.path / "zarr.json").is_file():
            return None
        store = Store.create_or_open(self.path, self.spec, self.root)
        try:
            return plan(store, self.requests, overwrite=overwrite)
        except StoreError:
            self._refuse_other_model()
            raise

    def _refuse_other_model(self) -> None:
        """Raise `StoreError` in a person's words if what made the store's rows is another model."""
        held = StoreReader(self.path).fingerprint(self.requests[0].unit.group) or {}
        there, asked = _maker(held), _maker(self.requests[0].fingerprint)
        if there != asked:
            raise StoreError(
                f"the store holds {self.spec.kind} {there}, not {asked}",
                where=self.path,
                fix="write a second store with --store NAME, or replace its rows with --overwrite",
            ) from None

    def run(self, executor: Executor | None = None, *, overwrite: bool = False) -> Summary:
        """Compute the rows that are missing; see `vipocc.stores.run` for what it promises and raises."""
        store = Store.create_or_open(self.path, self.spec, self.root)
        for group in sorted({request.unit.group for request in self.requests}):
            store.ensure_group(group, self.frame_ids[group])
        shown = f"{self.spec.kind} (simulated)" if self.source == "simulated" else self.spec.kind
        return run(store, self.requests, self.computer, executor or LocalExecutor(), shown, overwrite=overwrite)


def _maker(fingerprint: Mapping[str, Any]) -> str:
    """Return who made rows of this fingerprint, in words."""
    if fingerprint.get("source") == "simulated":
        return "simulated from the exact truth"
    parts = [fingerprint, *(fingerprint.get(name) or {} for name in ("detector", "segmenter"))]
    models = [f"{part['model']} (weights {part['digest'][:8]})" for part in parts if "model" in part]
    return f"by {' and '.join(models)}" if models else "from instances of networks"
