"""Figures of every frame of the prior stores, computed over dask arrays whose chunks are the stores' shards.

One chunk reads one shard through the store's reader, so nothing but a few numbers a frame is ever in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from vipocc.priors.anchors import read_instances
from vipocc.priors.snog.figures import valid_rays
from vipocc.stores import SHARD, StoreReader

#: Bins of depth in the report, metres.
DEPTH_EDGES = np.geomspace(1.0, 100.0, 49)

DEPTH = np.dtype(
    [
        ("row", "i8"),
        ("median", "f4"),
        ("low", "f4"),
        ("high", "f4"),
        ("missing", "f4"),
        ("capped", "f4"),
        ("ratio", "f4"),
        ("points", "i4"),
        ("histogram", "i4", (len(DEPTH_EDGES) - 1,)),
    ]
)
"""Of a depth map: median, 5 % and 95 % quantiles in metres, shares of pixels that are missing and at the cap, median
ratio to the LiDAR's depth and over how many pixels (NaN and 0 without), pixels by `DEPTH_EDGES`."""

INSTANCES = np.dtype(
    [("row", "i8"), ("count", "i4"), ("critical", "i4"), ("covered", "f4"), ("critical_share", "f4"), ("score", "f4")]
)
"""Of an image's instances: how many, how many of Gaussian kind, the shares of pixels that any and that those cover, and
the mean score (NaN without an instance)."""

ANCHORS = np.dtype([("row", "i8"), ("rays", "f4"), ("psi", "f4")])
"""Of an image's first draw of anchors: distinct rays and the share of them on critical instances (Eq. A.5, A.6)."""


@dataclass(frozen=True)
class Lidar:
    """Where the depth of a LiDAR may stand for frames of a depth store."""

    path: Path
    nearest: float = 1.0
    farthest: float = 80.0


def depth_table(path: Path, group: str, cap: float | None, lidar: Lidar | None = None) -> NDArray[Any]:
    """Return `DEPTH` of each committed row of a group of depth.zarr.

    Args:
        path: of depth.zarr.
        group: `<sequence>/<camera>`.
        cap: the farthest depth that its model gives, None where unknown.
        lidar: sparse depth of the same size to compare with, where it has the row.
    """
    return _table(path, group, DEPTH, partial(_depth_rows, path=path, group=group, cap=cap, lidar=lidar))


def instances_table(path: Path, group: str) -> NDArray[Any]:
    """Return `INSTANCES` of each committed row of a group of instances.zarr."""
    return _table(path, group, INSTANCES, partial(_instance_rows, path=path, group=group))


def class_counts(path: Path, group: str, labels: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return per label the number of instances and the sum over frames of their shares of the image, [labels] each."""
    kind = np.dtype([("count", "i8", (labels,)), ("share", "f8", (labels,))])
    table = _table(path, group, kind, partial(_class_rows, path=path, group=group, kind=kind))
    return table["count"].sum(axis=0), table["share"].sum(axis=0)


def anchors_table(path: Path, instances: Path, group: str, patch: int) -> NDArray[Any]:
    """Return `ANCHORS` of each committed row of a group of anchors.zarr, `patch` pixels being a patch's side."""
    rows = partial(_anchor_rows, path=path, instances=instances, group=group, patch=patch)
    return _table(path, group, ANCHORS, rows)


def committed(path: Path, group: str) -> NDArray[np.int64]:
    """Return the rows of a group that its store holds, increasing; none where it has no such group."""
    reader = StoreReader(path)
    return np.flatnonzero(reader.rows(group)).astype(np.int64) if reader.has(group) else np.zeros(0, np.int64)


def _table(path: Path, group: str, kind: np.dtype[Any], compute: Any) -> NDArray[Any]:
    rows = committed(path, group)
    if not len(rows):
        return np.zeros(0, kind)
    # A chunk holds the rows of one shard, so no shard is opened by two tasks.
    sizes = np.unique(rows // SHARD, return_counts=True)[1]
    chunks = da.from_array(rows, chunks=(tuple(int(size) for size in sizes),))
    return np.asarray(da.map_blocks(compute, chunks, dtype=kind, meta=np.zeros(0, kind)).compute())


def _depth_rows(
    rows: NDArray[np.int64], *, path: Path, group: str, cap: float | None, lidar: Lidar | None
) -> NDArray[Any]:
    table = np.zeros(len(rows), DEPTH)
    depths = StoreReader(path).read_many(group, rows, "depth").astype(np.float32)
    truth = StoreReader(lidar.path) if lidar is not None else None
    known = truth.rows(group) if truth is not None and truth.has(group) else np.zeros(0, bool)
    for entry, row, depth in zip(table, rows, depths, strict=True):
        finite = depth[np.isfinite(depth)]
        entry["row"], entry["missing"] = row, 1.0 - finite.size / depth.size
        entry["ratio"] = np.nan
        if not finite.size:
            entry["median"] = entry["low"] = entry["high"] = np.nan
            continue
        entry["low"], entry["median"], entry["high"] = np.quantile(finite, [0.05, 0.5, 0.95])
        entry["capped"] = float((finite >= 0.99 * cap).mean()) if cap else 0.0
        entry["histogram"] = np.histogram(np.clip(finite, DEPTH_EDGES[0], DEPTH_EDGES[-1]), DEPTH_EDGES)[0]
        if truth is not None and lidar is not None and row < len(known) and known[row]:
            beam = truth.read(group, int(row), "depth")
            with np.errstate(invalid="ignore"):
                hit = (beam > lidar.nearest) & (beam < lidar.farthest) & np.isfinite(depth)
            entry["points"] = int(hit.sum())
            entry["ratio"] = float(np.median(depth[hit] / beam[hit])) if hit.any() else np.nan
    return table


def _instance_rows(rows: NDArray[np.int64], *, path: Path, group: str) -> NDArray[Any]:
    table = np.zeros(len(rows), INSTANCES)
    reader = StoreReader(path)
    for entry, row in zip(table, rows, strict=True):
        found = read_instances(reader, group, int(row))
        scores = reader.read(group, int(row), "score")[: len(found.areas)]
        entry["row"], entry["count"], entry["critical"] = row, len(found.areas), int(found.critical.sum())
        entry["covered"] = float((found.index > 0).mean())
        entry["critical_share"] = float(found.critical_mask.mean())
        entry["score"] = float(scores.mean()) if len(scores) else np.nan
    return table


def _class_rows(rows: NDArray[np.int64], *, path: Path, group: str, kind: np.dtype[Any]) -> NDArray[Any]:
    table = np.zeros(len(rows), kind)
    reader = StoreReader(path)
    labels, areas = reader.read_many(group, rows, "label"), reader.read_many(group, rows, "area")
    pixels = float(np.prod(reader.spec.array("masks").shape))
    for entry, label, area in zip(table, labels, areas, strict=True):
        there = label >= 0
        np.add.at(entry["count"], label[there], 1)
        np.add.at(entry["share"], label[there], area[there] / pixels)
    return table


def _anchor_rows(rows: NDArray[np.int64], *, path: Path, instances: Path, group: str, patch: int) -> NDArray[Any]:
    table = np.zeros(len(rows), ANCHORS)
    reader, held = StoreReader(path), StoreReader(instances)
    for entry, row in zip(table, rows, strict=True):
        mask = read_instances(held, group, int(row)).critical_mask
        drawn = reader.read(group, int(row), "anchors")[0]
        rays, critical = valid_rays(drawn, mask, patch)
        entry["row"], entry["rays"], entry["psi"] = row, rays, critical / max(rays, 1)
    return table
