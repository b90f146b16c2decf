"""What is computed for a unit of the preparation stores: images, sparse LiDAR depth, occupancy ground truth."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.depth_raster import sparse_depth, sparse_depth_official
from vipocc.data_manifests.ground_truth.occupancy import level_from_world, occupancy_ground_truth
from vipocc.data_manifests.ground_truth.sweeps import ANGULAR_BINS, SweepCache
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.images import Preparation
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import prepared_intrinsics, rig
from vipocc.errors import DataError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.geometry.poses import relative
from vipocc.stores import Unit


@dataclass
class _Computer:
    """What all computers share: the manifest, loaded in the worker."""

    manifest_path: Path
    dataset: str
    root: Path
    config: DataConfig

    def open(self, device: str) -> None:
        """Load the manifest; nothing here uses a device."""
        self.manifest = Manifest.load(self.manifest_path, dataset=self.dataset, root=self.root)

    def close(self) -> None:
        """Let go of the manifest."""
        del self.manifest

    def _fix(self, path: Path) -> str:
        return adapter(self.dataset).way_out(path.relative_to(self.root).as_posix())

    def _points(self, sequence: str, row: int) -> np.ndarray:
        path = self.manifest.lidar_path(sequence, row)
        if path is None:
            raise DataError(f"row {row} has no LiDAR scan", where=sequence)
        try:
            points = adapter(self.dataset).read_scan(path)
        except DataError as error:
            raise DataError(error.what, where=path, fix=self._fix(path)) from None
        if len(points) < ANGULAR_BINS:
            raise DataError(f"a LiDAR scan has only {len(points)} points", where=path, fix=self._fix(path))
        return points


@dataclass
class FramesComputer(_Computer):
    """Decodes, rectifies where needed and resizes: `rgb` uint8 [n, H, W, 3]."""

    rows_per_call: int = 8

    def open(self, device: str) -> None:
        """Load the manifest; resampling tables are built when a camera is first met."""
        super().open(device)
        if multiprocessing.parent_process() is not None:
            cv2.setNumThreads(1)  # the processes beside this one keep the other cores busy
        self._preparations: dict[tuple[str, str], Preparation] = {}

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the prepared images of some rows of `<sequence>/<camera>`."""
        sequence, camera = unit.group.split("/")
        if (sequence, camera) not in self._preparations:
            stereo = self.manifest.camera_model(sequence, rig(self.dataset).left)
            if not isinstance(stereo, Pinhole):
                raise DataError("the left stereo camera is not a pinhole camera", where=sequence)
            model = self.manifest.camera_model(sequence, camera)
            self._preparations[sequence, camera] = Preparation(model, stereo, self.config)
        prepare = self._preparations[sequence, camera]
        paths = [self.manifest.image_path(sequence, camera, row) for row in rows]
        return {"rgb": np.stack([prepare(read_image(p, prepare.raw_size, self._fix(p))) for p in paths])}


@dataclass
class LidarComputer(_Computer):
    """Projects each frame's own sweep into the prepared image: `depth` float32 [n, H, W], NaN where nothing fell."""

    rows_per_call: int = 8

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the sparse depth of some rows of `<sequence>/<camera>`."""
        sequence, camera = unit.group.split("/")
        size, official = self.config.image_size, self.config.convention == "official"
        intrinsics = prepared_intrinsics(self.manifest, sequence, camera, self.config)
        camera_from_lidar = relative(
            self.manifest.world_from_camera(sequence, camera)[list(rows)],
            self.manifest.world_from_lidar(sequence)[list(rows)],
        )
        maps = []
        for row, transform in zip(rows, camera_from_lidar, strict=True):
            points = self._points(sequence, row)
            if official:
                ndc = intrinsics_to_ndc(intrinsics, size, "official")
                maps.append(sparse_depth_official(points, transform, ndc, size))
            else:
                maps.append(sparse_depth(points, transform, intrinsics, size))
        return {"depth": np.stack(maps)}


@dataclass
class OccupancyComputer(_Computer):
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
            self._caches = {sequence: SweepCache(partial(self._points, sequence), self.config.sweeps + 20)}
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


def sweep_rows(manifest: Manifest, sequence: str, row: int, sweeps: int) -> np.ndarray:
    """Return the rows among `row` .. `row + sweeps - 1` that have a sweep, fewer where the drive ends."""
    window = np.arange(row, min(row + sweeps, manifest.rows(sequence)))
    return np.asarray(window[manifest.has_lidar(sequence)[window]])


def occupancy_group(config: DataConfig, sequence: str) -> str:
    """Return the group of `occupancy.zarr` that holds a sequence's ground truth."""
    return f"slice-{config.sweeps}/{sequence}"
