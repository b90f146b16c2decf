"""A job: rows of one store that are to exist, what computes them, and what each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import StoreError
from vipocc.priors.sources.base import fingerprint_models
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
)


class PriorComputer(UnitComputer, Protocol):
    """A unit computer that can say beforehand how long a row takes."""

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return seconds for one image of `size` (height, width) on `device`."""
        ...


@dataclass(frozen=True)
class Recipe:
    """By whom rows of a prior are made and what each takes, known before any image is prepared."""

    shown: str
    """The kind of prior, for the eyes of the user; a simulated one says so."""
    model: str
    """What computes, with its licence, for the eyes of the user."""
    computer: PriorComputer
    size: tuple[int, int]
    """Height and width of the prepared images."""
    bytes_per_row: float
    accelerated: bool
    """Whether it runs on a GPU where there is one; otherwise it is spread over the cores of the CPU."""


@dataclass(frozen=True)
class Job:
    """Rows of one store that are to exist."""

    path: Path
    """The store."""
    spec: StoreSpec
    recipe: Recipe
    requests: tuple[Request, ...]
    frame_ids: Mapping[str, NDArray[np.int64]]
    """Of each group, all its rows."""
    root: Path = field(default_factory=Path)

    @property
    def rows(self) -> int:
        """How many rows are asked for."""
        return sum(len(request.rows) for request in self.requests)

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
        recipe = self.recipe
        executor = executor or LocalExecutor()
        return run(store, self.requests, recipe.computer, executor, recipe.shown, overwrite=overwrite)


def shown_kind(kind: str, source: str) -> str:
    """Return how a kind of prior is called where it comes from this source."""
    return f"{kind} (simulated)" if source == "simulated" else kind


def model_line(fingerprint: Mapping[str, Any]) -> str:
    """Return the models of a fingerprint with their licences."""
    named = []
    for model in fingerprint_models(fingerprint):
        licence = str(model["licence"])
        named.append(str(model["model"]) if licence.startswith("none") else f"{model['model']} ({licence})")
    return " and ".join(named)


def _maker(fingerprint: Mapping[str, Any]) -> str:
    """Return who made rows of this fingerprint, in words."""
    source = fingerprint.get("source")
    if source == "simulated":
        return "simulated from the exact truth"
    named = [f"{m['model']} (weights {str(m['digest'])[:8]})" for m in fingerprint_models(fingerprint)]
    return f"by {' and '.join(named)} ({source})" if named else f"from instances of {source}"
