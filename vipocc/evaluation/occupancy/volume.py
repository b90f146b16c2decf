"""Ground truth of a volume from LiDAR sweeps, layer by layer by the rule of the slice (published_system.md 7.2)."""

from __future__ import annotations

from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.occupancy import (
    OFFICIAL_TOLERANCE,
    OccupancyTruth,
    level_from_world,
    occupancy_ground_truth,
)
from vipocc.data_manifests.ground_truth.sweeps import Sweep, SweepCache
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.preparation.inputs import sweep_rows
from vipocc.errors import DataError
from vipocc.evaluation.occupancy.boxed import BoxedCells
from vipocc.evaluation.occupancy.cells import layer_grids
from vipocc.evaluation.occupancy.truth import SliceTruth
from vipocc.evaluation.protocols import OccupancyProtocol


class VolumeTruth:
    """Reads sweeps and accumulates them, frame by frame; on a GPU all sweeps of a frame at once.

    Nothing is stored: a volume is asked for seldom, and its layers would take as much work to keep as to make.
    """

    def __init__(self, manifest: Manifest, protocol: OccupancyProtocol, device: torch.device) -> None:
        assert protocol.sweeps is not None
        self._manifest, self._sweeps, self._device = manifest, protocol.sweeps, device
        self._grids, self._boxed = layer_grids(protocol), BoxedCells(manifest, protocol)
        self._lock, self._sequence = Lock(), ""
        self._cache: SweepCache[Any] | None = None

    def __call__(self, key: FrameKey) -> SliceTruth | str:
        """Return a key's ground truth, or why there is none.

        Raises:
            DataError: a sweep is absent or damaged, or has no point in a layer.
        """
        if not self._manifest.has_lidar(key.sequence)[key.row]:
            return "no LiDAR sweep of its own"
        window = sweep_rows(self._manifest, key.sequence, key.row, self._sweeps)
        if len(window) <= OFFICIAL_TOLERANCE:
            return "too few LiDAR sweeps"
        level = level_from_world(self._manifest.world_from_camera(key.sequence, key.camera)[key.row])
        transforms = level @ self._manifest.world_from_lidar(key.sequence)[window]
        with self._lock:
            cache = self._opened(key.sequence)
            sweeps = [cache[int(row)] for row in window]
        layers = [self._layer(sweeps, transforms, grid) for grid in self._grids]
        occupied, visible = np.stack([one.occupied for one in layers]), np.stack([one.visible for one in layers])
        around = self._boxed(key)
        if around is None:
            return SliceTruth(occupied, visible, no_objects=f"{key.sequence} has no 3D boxes")
        return SliceTruth(occupied, visible, around[0], moving=around[1])

    def _layer(self, sweeps: list[Any], transforms: Any, grid: Any) -> OccupancyTruth:
        if self._device.type == "cpu":
            return occupancy_ground_truth(sweeps, transforms, grid)
        from vipocc.data_manifests.ground_truth.occupancy_torch import occupancy_ground_truth_torch

        return occupancy_ground_truth_torch(sweeps, transforms, grid)

    def _opened(self, sequence: str) -> SweepCache[Any]:
        if sequence != self._sequence or self._cache is None:
            prepare: Any = Sweep
            if self._device.type != "cpu":
                from vipocc.data_manifests.ground_truth.occupancy_torch import DeviceSweep

                prepare = partial(DeviceSweep.load, device=self._device)
            self._cache, self._sequence = (
                SweepCache(partial(self._points, sequence), self._sweeps + 20, prepare),
                sequence,
            )
        return self._cache

    def _points(self, sequence: str, row: int) -> np.ndarray:
        path = self._manifest.lidar_path(sequence, row)
        if path is None:
            raise DataError(f"row {row} has no LiDAR scan", where=sequence)
        return adapter(self._manifest.dataset).read_scan(path)
