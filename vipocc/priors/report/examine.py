"""Collects what there is to say of a workspace's priors: tables of every frame, outliers, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import MissingInputError
from vipocc.priors.config import MAX_INSTANCES
from vipocc.priors.report import tables
from vipocc.priors.report.outliers import Outlier, find_outliers
from vipocc.priors.sources import DepthSource, maker
from vipocc.progress import progress
from vipocc.stores import StoreReader
from vipocc.stores.arrays import computing
from vipocc.stores.verification import status
from vipocc.workspace import Workspace

KINDS = ("depth", "instances", "anchors")


@dataclass(frozen=True)
class Examined:
    """The priors of a workspace; tables by group `<sequence>/<camera>`."""

    dataset: str
    stores: dict[str, Path]
    """Those that exist, by kind; `frames` among them."""
    provenance: dict[str, dict[str, Any]]
    """By kind: rows done, bytes, and the fingerprint of what made them."""
    depth: dict[str, NDArray[Any]]
    instances: dict[str, NDArray[Any]]
    anchors: dict[str, NDArray[Any]]
    labels: list[str]
    counts: NDArray[np.int64]
    """[labels], instances of each label over all frames."""
    shares: NDArray[np.float64]
    """[labels], mean share of an image that each label covers."""
    outliers: list[Outlier]
    missing: dict[str, int]
    """By kind, rows that another prior has and this one lacks."""

    @property
    def cap(self) -> float | None:
        """The farthest depth that the depth model gives, metres."""
        return depth_cap(self.provenance.get("depth", {}).get("fingerprint", {}))

    def summary(self) -> dict[str, Any]:
        """Return the figures of the report as JSON values."""
        depth = _joined(self.depth, tables.DEPTH)
        instances, anchors = _joined(self.instances, tables.INSTANCES), _joined(self.anchors, tables.ANCHORS)
        without = instances[instances["count"] == 0]
        compared = depth[np.isfinite(depth["ratio"])]
        return {
            "dataset": self.dataset,
            "stores": {kind: {**known, "path": str(self.stores[kind])} for kind, known in self.provenance.items()},
            "missing": self.missing,
            "depth": {
                "frames": len(depth),
                "median_m": _mean(depth, "median"),
                "share_at_cap": _mean(depth, "capped"),
                "share_missing": _mean(depth, "missing"),
                "frames_with_lidar": len(compared),
                "median_ratio_to_lidar": float(np.median(compared["ratio"])) if len(compared) else None,
            },
            "instances": {
                "frames": len(instances),
                "frames_without_detections": len(without),
                "per_frame": _mean(instances, "count"),
                "critical_share": _mean(instances, "critical_share"),
                "labels": {
                    label: {"instances": int(count), "mean_share": float(share)}
                    for label, count, share in zip(self.labels, self.counts, self.shares, strict=True)
                },
            },
            "anchors": {"frames": len(anchors), "rays": _mean(anchors, "rays"), "psi_v": _mean(anchors, "psi")},
            "outliers": [
                {
                    "group": one.group,
                    "row": one.row,
                    "frame_id": self.frame_id(one.group, one.row),
                    "reason": one.reason,
                }
                for one in self.outliers
            ],
        }

    def frame_id(self, group: str, row: int) -> int:
        """Return the dataset's own number of a frame."""
        return int(StoreReader(self.stores["frames"]).frame_ids(group)[row])


def examine(workspace: Workspace, name: str | None = None, scheduler: str | None = None) -> Examined:
    """Read the priors of a workspace, those of the second stores called `name` where given.

    With `scheduler`, the address of a dask cluster's, its workers do it; else threads of this process.

    Raises:
        MissingInputError: there are no priors yet.
        StoreError: a shard is missing, truncated or altered; it is named.
        UsageError: see `vipocc.stores.arrays.computing`.
    """
    stores = {"frames": workspace.store("frames"), **{kind: workspace.store(kind, name) for kind in KINDS}}
    stores = {kind: path for kind, path in stores.items() if (path / "zarr.json").is_file()}
    if not any(kind in stores for kind in KINDS):
        where = workspace.store("depth", name)
        raise MissingInputError("there are no priors to report on", where=where, fix="run `vipocc priors depth`")
    lidar_path = workspace.store("lidar")
    lidar = tables.Lidar(lidar_path) if (lidar_path / "zarr.json").is_file() else None
    provenance = {kind: _provenance(path) for kind, path in stores.items() if kind in KINDS}
    cap = depth_cap(provenance.get("depth", {}).get("fingerprint", {}))
    work = [(kind, group) for kind in KINDS if kind in stores for group in StoreReader(stores[kind]).groups()]
    found: dict[str, dict[str, NDArray[Any]]] = {kind: {} for kind in KINDS}
    labels = list(StoreReader(stores["instances"]).attrs["labels"]) if "instances" in stores else []
    counts, shares = np.zeros(len(labels), np.int64), np.zeros(len(labels))
    with computing(scheduler, next(iter(stores.values()))), progress("reading priors", len(work), "groups") as bar:
        for kind, group in work:
            if kind == "depth":
                found[kind][group] = tables.depth_table(stores[kind], group, cap, lidar)
            elif kind == "instances":
                found[kind][group] = tables.instances_table(stores[kind], group)
                count, share = tables.class_counts(stores[kind], group, len(labels))
                counts, shares = counts + count, shares + share
            elif "instances" in stores:
                patch = int(StoreReader(stores[kind]).attrs["patch"])
                found[kind][group] = tables.anchors_table(stores[kind], stores["instances"], group, patch)
            bar.advance()
    frames = sum(len(table) for table in found["instances"].values())
    return Examined(
        workspace.dataset,
        stores,
        provenance,
        found["depth"],
        found["instances"],
        found["anchors"],
        labels,
        counts,
        shares / max(frames, 1),
        find_outliers(found["depth"], found["instances"], MAX_INSTANCES),
        _missing({kind: of for kind, of in found.items() if kind in stores}),
    )


def depth_cap(fingerprint: Mapping[str, Any]) -> float | None:
    """Return the farthest depth that what made a store gives, None where its record does not say."""
    source = maker("depth", fingerprint) or DepthSource
    assert issubclass(source, DepthSource)
    return source.cap(fingerprint)


def _provenance(path: Path) -> dict[str, Any]:
    known = status(path)
    made_by = known["fingerprints"]
    return {"rows": known["done"], "bytes": known["bytes"], "fingerprint": made_by[0] if made_by else {}}


def _missing(found: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, int]:
    rows = {
        kind: {(group, int(row)) for group, of in groups.items() for row in of["row"]} for kind, groups in found.items()
    }
    every: set[tuple[str, int]] = set().union(*rows.values())
    return {kind: len(every - held) for kind, held in rows.items()}


def _joined(of: Mapping[str, NDArray[Any]], kind: np.dtype[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *of.values()])


def _mean(table: NDArray[Any], name: str) -> float | None:
    values = table[name][np.isfinite(table[name])]
    return float(np.mean(values)) if len(values) else None
