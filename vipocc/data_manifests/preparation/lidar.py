"""Sweeps to `lidar.zarr`: each frame's own sweep as sparse depth in its prepared image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.depth_raster import sparse_depth, sparse_depth_official
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.preparation.computer import ManifestComputer
from vipocc.data_manifests.preparation.inputs import scan_refs
from vipocc.data_manifests.preparation.job import ELSEWHERE, Job, Rows
from vipocc.data_manifests.rates import LIDAR_BYTES_PER_PIXEL, SWEEP_SECONDS
from vipocc.data_manifests.views import prepared_intrinsics, rig
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.geometry.poses import relative
from vipocc.stores import ArraySpec, Request, StoreSpec, Unit, file_ref, requests_for


def lidar_spec(dataset: str, config: DataConfig) -> StoreSpec:
    """Return the specification of `lidar.zarr`."""
    depth = ArraySpec(
        "depth", config.image_size, "float32", float("nan"), ("y", "x"), "m", "depth", "LiDAR depth along the axis"
    )
    attributes = {"dataset": dataset, "image_size": list(config.image_size)}
    return StoreSpec("lidar", (depth,), attributes=attributes, way_out=ELSEWHERE)


def lidar_rows(manifest: Manifest, split: str) -> dict[tuple[str, str], np.ndarray]:
    """Return which rows get sparse depth: the left camera's keys of a split."""
    left = rig(manifest.dataset).left
    return {group: rows for group, rows in manifest.key_rows(split).items() if group[1] == left}


def plan_lidar(manifest: Manifest, manifest_path: Path, store: Path, config: DataConfig, rows: Rows) -> Job:
    """Plan sparse LiDAR depth of the rows that have a sweep."""
    fingerprint = {
        "preparation": "lidar-1",
        "raster": "official" if config.convention == "official" else "nearest point in front of the camera",
        "image_size": list(config.image_size),
    }
    requests: list[Request] = []
    skipped = 0
    for (sequence, camera), listed in sorted(rows.items()):
        own = adapter(manifest.dataset).lidar_files(manifest.root, sequence)
        extra = [file_ref(manifest.root / name, manifest.root) for name in own]
        wanted = listed[manifest.has_lidar(sequence)[listed]]
        skipped += len(listed) - len(wanted)
        inputs = {int(row): [*scan_refs(manifest, sequence, [row]), *extra] for row in wanted}
        requests += requests_for(f"{sequence}/{camera}", wanted, fingerprint, inputs)
    return Job(
        "lidar",
        store,
        lidar_spec(manifest.dataset, config),
        manifest.root,
        {f"{sequence}/{camera}": manifest.frame_ids(sequence) for sequence, camera in rows},
        requests,
        LidarComputer(manifest_path, manifest.dataset, manifest.root, config),
        seconds_per_row=SWEEP_SECONDS,
        bytes_per_row=LIDAR_BYTES_PER_PIXEL * float(np.prod(config.image_size)),
        notes=(f"{skipped:,} frames have no LiDAR sweep",) if skipped else (),
    )


@dataclass
class LidarComputer(ManifestComputer):
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
            points = self.points(sequence, row)
            if official:
                ndc = intrinsics_to_ndc(intrinsics, size, "official")
                maps.append(sparse_depth_official(points, transform, ndc, size))
            else:
                maps.append(sparse_depth(points, transform, intrinsics, size))
        return {"depth": np.stack(maps)}
