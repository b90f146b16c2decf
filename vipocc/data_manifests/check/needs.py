"""Which files each job reads, by the lists of a split: whether or not the folder holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import Adapter, FileKind
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.roles import key_camera
from vipocc.data_manifests.splits import SplitLists
from vipocc.data_manifests.views import rig, view_offsets

#: Rows by (sequence, camera).
Rows = Mapping[tuple[str, str], np.ndarray]


@dataclass
class Needs:
    """What a job reads."""

    job: str
    split: str
    kinds: tuple[FileKind, ...]
    """The kinds of files that it reads."""
    keys: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """Rows of the listed frames that have a pose, by (sequence, camera)."""
    images: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """Rows whose image it reads."""
    scans: dict[str, np.ndarray] = field(default_factory=dict)
    """Rows whose LiDAR sweep it reads."""
    listed: dict[str, np.ndarray] = field(default_factory=dict)
    """Frame ids of every sample that the split lists, by sequence, those of absent sequences included."""


def needs_of(job: str, manifest: Manifest, reader: Adapter, lists: SplitLists, config: DataConfig) -> Needs:
    """Return what a job reads of a dataset.

    Args:
        job: one of `report.JOBS`.
        manifest: of the dataset.
        reader: its adapter.
        lists: its split.
        config: views, sweeps and frames of validation.
    """
    split = _split(job, lists)
    train = job == "train"
    wanted = Needs(job, split, _kinds(job, manifest.dataset, config))
    left = rig(manifest.dataset).left
    known = set(manifest.sequences)
    images: dict[tuple[str, str], list[np.ndarray]] = {}
    for (sequence, side), ids in sorted(lists.frames[split].items()):
        before = wanted.listed.get(sequence)
        wanted.listed[sequence] = ids if before is None else np.concatenate([before, ids])
        if sequence not in known:
            continue
        camera = key_camera(manifest.dataset, side)
        rows = np.flatnonzero(np.isin(manifest.frame_ids(sequence), ids))
        wanted.keys[sequence, camera] = rows
        both = config.model_copy(update={"fisheye": config.fisheye and train})
        offsets = view_offsets(manifest.dataset, camera, both) if job in ("priors", "train") else [(camera, 0)]
        for name, step in offsets:
            images.setdefault((sequence, name), []).append(rows[rows + step < manifest.rows(sequence)] + step)
    wanted.images = {place: np.unique(np.concatenate(parts)) for place, parts in images.items()}
    if "scans" in wanted.kinds:
        keys = {sequence: rows for (sequence, camera), rows in wanted.keys.items() if camera == left}
        if job == "validation":
            keys = _evenly(keys, config.val_occupancy)
        wide = config.sweeps if "occupancy" in reader.products and job != "eval-depth" else 1
        wanted.scans = {sequence: window(rows, wide, manifest.rows(sequence)) for sequence, rows in keys.items()}
    return wanted


def ready(wanted: Needs, manifest: Manifest) -> int:
    """Return how many samples of a job have every file of their own, and for training are not left out."""
    if wanted.job == "train":
        return sum(len(rows) for rows in manifest.key_rows("train").values())
    count = 0
    for (sequence, camera), rows in wanted.keys.items():
        there = manifest.has_image(sequence, camera)[rows]
        if wanted.job in ("eval-occupancy", "eval-depth"):
            there &= manifest.has_lidar(sequence)[rows]
        count += int(there.sum())
    return count


def window(rows: np.ndarray, length: int, total: int) -> np.ndarray:
    """Return the rows int64 [M] that lie in any run of `length` rows starting at one of `rows` [N], below `total`."""
    edges = np.zeros(total + 1, np.int64)
    np.add.at(edges, rows, 1)
    np.add.at(edges, np.minimum(rows + length, total), -1)
    return np.flatnonzero(np.cumsum(edges[:-1]) > 0)


def _split(job: str, lists: SplitLists) -> str:
    if job in ("priors", "train"):
        return "train"
    return "val" if job == "validation" or not lists.count("test") else "test"


def _kinds(job: str, dataset: str, config: DataConfig) -> tuple[FileKind, ...]:
    if job in ("priors", "eval-sampler"):
        return ("poses", "images")
    if job == "train":
        return ("poses", "images", "fisheyes") if config.fisheye and rig(dataset).fisheye else ("poses", "images")
    return ("poses", "images", "scans")


def _evenly(keys: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return `count` of all rows, evenly spaced over the sequences in order, as validation takes them."""
    every = [(sequence, int(row)) for sequence, rows in sorted(keys.items()) for row in rows]
    if len(every) > count:
        every = [every[int(at)] for at in np.linspace(0, len(every) - 1, count)]
    return {name: np.array(sorted({row for one, row in every if one == name}), np.int64) for name, _ in every}
