"""Sweeps to `occupancy.zarr`: what the sweeps after a frame say of the space before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.ground_truth.occupancy import (
    OFFICIAL_TOLERANCE,
    SLICE_GRID,
    level_from_world,
    occupancy_ground_truth,
)
from vipocc.data_manifests.ground_truth.sweeps import SweepCache
from vipocc.data_manifests.manifest import SPLITS, Manifest
from vipocc.data_manifests.preparation.computer import ManifestComputer
from vipocc.data_manifests.preparation.inputs import scan_refs, sweep_rows
from vipocc.data_manifests.preparation.job import ELSEWHERE, Job, Json, Rows
from vipocc.data_manifests.preparation.lidar import lidar_rows
from vipocc.data_manifests.views import rig
from vipocc.stores import ArraySpec, Request, StoreSpec, Unit, requests_for


def occupancy_spec(dataset: str) -> StoreSpec:
    """Return the specification of `occupancy.zarr`."""
    dims = ("z_far_to_near", "x_left_to_right")
    arrays = (
        ArraySpec("occupied", SLICE_GRID.shape, "uint8", 0, dims, "1", "labels", "1 where no sweep sees the cell"),
        ArraySpec(
            "visible", SLICE_GRID.shape, "uint8", 0, dims, "1", "labels", "1 where the frame's own sweep sees it"
        ),
        ArraySpec("sweeps", (), "uint16", 0, (), "1", "plain", "number of sweeps accumulated"),
    )
    return StoreSpec("occupancy", arrays, attributes={"dataset": dataset}, fingerprint_scope="group", way_out=ELSEWHERE)


def occupancy_group(config: DataConfig, sequence: str) -> str:
    """Return the group of `occupancy.zarr` that holds a sequence's ground truth."""
    return f"slice-{config.sweeps}/{sequence}"


def occupancy_rows(manifest: Manifest, split: str, config: DataConfig) -> dict[tuple[str, str], np.ndarray]:
    """Return which rows get occupancy ground truth: all test keys, and `val_occupancy` evenly spaced val keys."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for one in SPLITS if split == "all" else (split,):
        if one == "train":
            continue
        keys = [(group, int(row)) for group, rows in sorted(lidar_rows(manifest, one).items()) for row in rows]
        keys = [(group, row) for group, row in keys if manifest.has_lidar(group[0])[row]]
        if one == "val" and len(keys) > config.val_occupancy:
            keys = [keys[int(at)] for at in np.linspace(0, len(keys) - 1, config.val_occupancy)]
        for group, row in keys:
            found[group] = np.union1d(found.get(group, np.zeros(0, np.int64)), [row])
    return found


def plan_occupancy(manifest: Manifest, manifest_path: Path, store: Path, config: DataConfig, rows: Rows) -> Job:
    """Plan occupancy ground truth of the rows that have a sweep of their own and enough after it."""
    fingerprint = {
        "preparation": "occupancy-1",
        "rule": "official",
        "sweeps": config.sweeps,
        "x": SLICE_GRID.x_range,
        "y": SLICE_GRID.y_range,
        "z": SLICE_GRID.z_range,
        "tolerance": OFFICIAL_TOLERANCE,
    }
    requests: list[Request] = []
    frame_ids = {}
    used = skipped = short = 0
    for (sequence, _), wanted in sorted(rows.items()):
        has = manifest.has_lidar(sequence)
        inputs = {}
        for row in wanted[has[wanted]]:
            window = sweep_rows(manifest, sequence, int(row), config.sweeps)
            if len(window) > OFFICIAL_TOLERANCE:
                inputs[int(row)] = [_window_ref(manifest, sequence, int(row), window)]
                used += len(window)
                short += len(window) < min(config.sweeps, manifest.rows(sequence) - int(row))
        skipped += len(wanted) - len(inputs)
        group = occupancy_group(config, sequence)
        frame_ids[group] = manifest.frame_ids(sequence)
        requests += requests_for(group, inputs, fingerprint, inputs)
    return Job(
        "occupancy",
        store,
        occupancy_spec(manifest.dataset),
        manifest.root,
        frame_ids,
        requests,
        OccupancyComputer(manifest_path, manifest.dataset, manifest.root, config),
        seconds_per_row=0.03 * used / max(1, sum(len(request.rows) for request in requests)),
        bytes_per_row=2500.0,
        notes=(
            *((f"{skipped:,} frames have too few LiDAR sweeps for occupancy ground truth",) if skipped else ()),
            *((f"{short:,} frames accumulate fewer sweeps than published, for some are missing",) if short else ()),
        ),
    )


def _window_ref(manifest: Manifest, sequence: str, row: int, window: np.ndarray) -> Json:
    # One digest for up to 300 sweeps: naming each in every row's record would take more room than the ground truth.
    state = hashlib.blake2b(digest_size=16)
    left = rig(manifest.dataset).left
    for ref in scan_refs(manifest, sequence, window):
        state.update(f"{ref['path']} {ref['size']} {ref['mtime_ns']};".encode())
    state.update(manifest.world_from_camera(sequence, left)[row].tobytes())
    state.update(manifest.world_from_lidar(sequence)[window].tobytes())
    return {"store": "manifest", "group": sequence, "row": row, "digest": state.hexdigest()}


@dataclass
class OccupancyComputer(ManifestComputer):
    """Accumulates sweeps into ground truth on the slice: `occupied`, `visible` uint8 [n, 160, 80], `sweeps` [n]."""

    rows_per_call: int = 1

    def open(self, device: str) -> None:
        """Load the manifest; sweeps are kept while consecutive frames share them."""
        super().open(device)
        self._caches: dict[str, SweepCache] = {}

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the ground truth of some rows of `<protocol>/<sequence>`."""
        sequence = unit.group.split("/")[1]
        if sequence not in self._caches:
            # Sweeps of another drive are of no further use: units come drive by drive.
            self._caches = {sequence: SweepCache(partial(self.points, sequence), self.config.sweeps + 20)}
        cache, left = self._caches[sequence], rig(self.dataset).left
        made: dict[str, list[Any]] = {"occupied": [], "visible": [], "sweeps": []}
        for row in rows:
            window = sweep_rows(self.manifest, sequence, row, self.config.sweeps)
            level = level_from_world(self.manifest.world_from_camera(sequence, left)[row])
            transforms = level @ self.manifest.world_from_lidar(sequence)[window]
            truth = occupancy_ground_truth((cache[int(sweep)] for sweep in window), transforms)
            made["occupied"].append(truth.occupied)
            made["visible"].append(truth.visible)
            made["sweeps"].append(len(window))
        kinds = {"occupied": np.uint8, "visible": np.uint8, "sweeps": np.uint16}
        return {name: np.asarray(values).astype(kinds[name]) for name, values in made.items()}
