"""Sweeps to `occupancy.zarr`: what the sweeps after a frame say of the space before it, and where objects are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.boxes import BoxesAt, object_map, objects_among
from vipocc.data_manifests.ground_truth.occupancy import (
    OFFICIAL_TOLERANCE,
    SLICE_GRID,
    OccupancyTruth,
    level_from_world,
    occupancy_ground_truth,
)
from vipocc.data_manifests.ground_truth.rules import rule_digests, rule_values, slice_name
from vipocc.data_manifests.ground_truth.sweeps import Sweep, SweepCache
from vipocc.data_manifests.manifest import SPLITS, Manifest
from vipocc.data_manifests.preparation.computer import ManifestComputer
from vipocc.data_manifests.preparation.inputs import scan_refs, sweep_rows
from vipocc.data_manifests.preparation.job import ELSEWHERE, Job, Json, Rows
from vipocc.data_manifests.preparation.lidar import lidar_rows
from vipocc.data_manifests.rates import OCCUPANCY_BYTES_PER_ROW, SWEEP_SECONDS
from vipocc.data_manifests.views import rig
from vipocc.stores import ArraySpec, Request, Store, StoreSpec, Unit, file_ref, requests_for
from vipocc.stores.spec import same_inputs


def occupancy_spec(dataset: str) -> StoreSpec:
    """Return the specification of `occupancy.zarr`."""
    dims = ("z_far_to_near", "x_left_to_right")
    arrays = (
        ArraySpec("occupied", SLICE_GRID.shape, "uint8", 0, dims, "1", "labels", "1 where the rule says occupied"),
        ArraySpec(
            "visible", SLICE_GRID.shape, "uint8", 0, dims, "1", "labels", "1 where the frame's own sweep sees it"
        ),
        ArraySpec(
            "object",
            SLICE_GRID.shape,
            "uint8",
            0,
            dims,
            "1",
            "labels",
            "1-254 objects, 255 occupied and of none, 0 free",
        ),
        ArraySpec(
            "objects_known", (), "uint8", 0, (), "1", "plain", "1 where the frame had 3D boxes, else no object is"
        ),
        ArraySpec("sweeps", (), "uint16", 0, (), "1", "plain", "number of sweeps accumulated"),
    )
    attributes = {"dataset": dataset, "rules": rule_digests()}
    return StoreSpec("occupancy", arrays, attributes=attributes, fingerprint_scope="group", way_out=ELSEWHERE)


def occupancy_group(config: DataConfig, sequence: str) -> str:
    """Return the group of `occupancy.zarr` that holds a sequence's ground truth."""
    return f"{slice_name(config.sweeps, config.occupancy_rule)}/{sequence}"


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


def plan_occupancy(
    manifest: Manifest, manifest_path: Path, store: Path, config: DataConfig, rows: Rows, *, objects: bool = True
) -> Job:
    """Plan occupancy ground truth of the rows that have a sweep of their own and enough after it.

    Args:
        manifest: of the dataset.
        manifest_path: where the workers load it from.
        store: path of `occupancy.zarr`.
        config: how many sweeps, and the rule.
        rows: which rows.
        objects: whether 3D boxes are read. Training, which must not see the synthetic world's, does without; what was
            made with them stays as it is.
    """
    fingerprint = {"preparation": "occupancy-2", "sweeps": config.sweeps, **rule_values(config.occupancy_rule)}
    spec = occupancy_spec(manifest.dataset)
    requests: list[Request] = []
    frame_ids = {}
    used = skipped = short = 0
    reader = adapter(manifest.dataset)
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
        boxes = [file_ref(manifest.root / name, manifest.root) for name in reader.box_files(manifest.root, sequence)]
        if objects:
            inputs = {row: [*refs, *boxes] for row, refs in inputs.items()}
        else:
            # Rows that are there with boxes are as good as those without, and are not asked for again.
            there = _made_with(Store(store.absolute(), spec), group, inputs, boxes)
            inputs = {row: refs for row, refs in inputs.items() if row not in there}
        requests += requests_for(group, inputs, fingerprint, inputs)
    return Job(
        "occupancy",
        store,
        spec,
        manifest.root,
        frame_ids,
        requests,
        OccupancyComputer(manifest_path, manifest.dataset, manifest.root, config, objects=objects),
        seconds_per_row=SWEEP_SECONDS * used / max(1, sum(len(request.rows) for request in requests)),
        bytes_per_row=OCCUPANCY_BYTES_PER_ROW,
        notes=(
            *((f"{skipped:,} frames have too few LiDAR sweeps for occupancy ground truth",) if skipped else ()),
            *((f"{short:,} frames accumulate fewer sweeps than published, for some are missing",) if short else ()),
        ),
    )


def _made_with(store: Store, group: str, inputs: dict[int, list[Json]], boxes: Sequence[Json]) -> set[int]:
    """Return the rows that the store holds just as they would be made with these files of boxes."""
    found: set[int] = set()
    for request in requests_for(group, inputs, {}) if boxes else ():
        record = store.held(request.unit)
        held = {} if record is None else record.rows
        found |= {
            row for row in request.rows if row in held and same_inputs([*inputs[row], *boxes], held[row]["inputs"])
        }
    return found


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
    """Accumulates sweeps into ground truth on the slice; on a GPU all sweeps of a frame at once."""

    objects: bool = True
    rows_per_call: int = 1
    uses_device: ClassVar[bool] = True

    def open(self, device: str) -> None:
        """Load the manifest; sweeps are kept on the device while consecutive frames share them."""
        super().open(device)
        self._device = device
        self._sequence = ""
        self._cache: SweepCache[Any] | None = None
        self._boxes: BoxesAt | None = None

    def check(self, sequence: str) -> None:
        """See `ManifestComputer.check`: reads the file of 3D boxes."""
        if self.objects:
            adapter(self.dataset).boxes(self.root, sequence)

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the ground truth of some rows of `<protocol>/<sequence>`.

        `occupied`, `visible` and `object` uint8 [n, 160, 80], `objects_known` uint8 [n], `sweeps` uint16 [n].
        """
        sequence = unit.group.split("/")[1]
        if sequence != self._sequence or self._cache is None:
            # Sweeps of another drive are of no further use: units come drive by drive.
            self._cache = SweepCache(partial(self.points, sequence), self.config.sweeps + 20, self._prepare())
            self._boxes = adapter(self.dataset).boxes(self.root, sequence) if self.objects else None
            self._sequence = sequence
        made = [self._row(self._cache, sequence, int(row)) for row in rows]
        return {name: np.stack([one[name] for one in made]) for name in made[0]}

    def _row(self, cache: SweepCache[Any], sequence: str, row: int) -> dict[str, NDArray[Any]]:
        window = sweep_rows(self.manifest, sequence, row, self.config.sweeps)
        level = level_from_world(self.manifest.world_from_camera(sequence, rig(self.dataset).left)[row])
        transforms = level @ self.manifest.world_from_lidar(sequence)[window]
        truth = self._truth(cache, window, transforms)
        objects = np.zeros(SLICE_GRID.shape, np.uint8)
        if self._boxes is not None:
            boxes = objects_among(self._boxes(int(self.manifest.frame_ids(sequence)[row])))
            objects = object_map(boxes, level, truth.occupied)
        return {
            "occupied": truth.occupied.astype(np.uint8),
            "visible": truth.visible.astype(np.uint8),
            "object": objects,
            "objects_known": np.array(self._boxes is not None, np.uint8),
            "sweeps": np.array(len(window), np.uint16),
        }

    def _truth(self, cache: SweepCache[Any], window: NDArray[Any], transforms: NDArray[np.float64]) -> OccupancyTruth:
        sweeps, rule = (cache[int(sweep)] for sweep in window), self.config.occupancy_rule
        if self._device == "cpu":
            return occupancy_ground_truth(sweeps, transforms, rule=rule)
        from vipocc.data_manifests.ground_truth.occupancy_torch import occupancy_ground_truth_torch

        return occupancy_ground_truth_torch(list(sweeps), transforms, rule=rule)

    def _prepare(self) -> Any:
        if self._device == "cpu":
            return Sweep
        from vipocc.data_manifests.ground_truth.occupancy_torch import DeviceSweep

        return partial(DeviceSweep.load, device=self._device)
