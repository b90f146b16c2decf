"""Which datasets vipocc reads: one module each, whose name is the dataset's id with underscores.

Another package adds one through the entry-point group `vipocc.datasets`: its id, and the class to call.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from vipocc.data_manifests.datasets.adapter import EVERY_DRIVE, Adapter, FileKind, Quirk, Rig
from vipocc.errors import UsageError

__all__ = ["EVERY_DRIVE", "Adapter", "FileKind", "Quirk", "Rig", "adapter", "names"]

_BUILT_IN = ("kitti-360", "kitti-raw", "ddad", "synthetic")
_GROUP = "vipocc.datasets"


def names() -> tuple[str, ...]:
    """Return the ids of all datasets that can be read; loads none of them."""
    return (*_BUILT_IN, *(point.name for point in entry_points(group=_GROUP) if point.name not in _BUILT_IN))


@cache
def adapter(dataset: str) -> Adapter:
    """Return how a dataset is read; raises `UsageError` for one that is not."""
    if dataset in _BUILT_IN:
        found = import_module(f"{__name__}.{dataset.replace('-', '_')}").ADAPTER
    else:
        points = entry_points(group=_GROUP, name=dataset)
        if not points:
            raise UsageError(
                f"dataset '{dataset}' cannot be read by this version of vipocc", fix=f"use one of {', '.join(names())}"
            )
        found = next(iter(points)).load()()
    assert isinstance(found, Adapter), f"the adapter of {dataset} is no Adapter"
    return found
