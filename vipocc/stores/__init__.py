"""Sharded Zarr stores with a ledger: units of work, commit, verify, one reader, and executors that run units.

The names of `__all__` load when they are first used; this package imports neither zarr nor tensorstore by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vipocc.stores.dask_executor import DaskExecutor
    from vipocc.stores.executors import Executor, LocalExecutor
    from vipocc.stores.reader import StoreReader, row_refs
    from vipocc.stores.repairing import repair
    from vipocc.stores.runner import Summary, run
    from vipocc.stores.spec import (
        SHARD,
        ArraySpec,
        Request,
        StoreSpec,
        Unit,
        UnitComputer,
        file_ref,
        json_digest,
        parse_shard,
        requests_for,
        select,
    )
    from vipocc.stores.verification import status, verify
    from vipocc.stores.work import Plan, plan
    from vipocc.stores.writer import Store

_WHERE = {
    "spec": (
        "SHARD", "ArraySpec", "Request", "StoreSpec", "Unit", "UnitComputer", "file_ref", "json_digest", "parse_shard",
        "requests_for", "select",
    ),
    "writer": ("Store",),
    "work": ("Plan", "plan"),
    "runner": ("Summary", "run"),
    "executors": ("Executor", "LocalExecutor"),
    "dask_executor": ("DaskExecutor",),
    "reader": ("StoreReader", "row_refs"),
    "repairing": ("repair",),
    "verification": ("status", "verify"),
}  # fmt: skip
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "SHARD", "ArraySpec", "DaskExecutor", "Executor", "LocalExecutor", "Plan", "Request", "Store", "StoreReader",
    "StoreSpec", "Summary", "Unit", "UnitComputer", "file_ref", "json_digest", "parse_shard", "plan", "repair",
    "requests_for", "row_refs", "run", "select", "status", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
