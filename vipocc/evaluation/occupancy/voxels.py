"""Cells and ground truth of SSCBench-KITTI-360's voxels, and whose scores on them are refused."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.voxel_rays import visible_cells
from vipocc.data_manifests.ground_truth.voxels import EMPTY, EVERY, UNKNOWN, VoxelFiles, known_cells
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import DataError, UsageError
from vipocc.evaluation.metrics import Mask
from vipocc.evaluation.occupancy.cells import Cells, rings_of
from vipocc.evaluation.occupancy.truth import SliceTruth
from vipocc.evaluation.protocols import VoxelProtocol
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import invert, transform_points

TEST_DRIVE = "2013_05_28_drive_0009_sync"
"""The test drive of SSCBench-KITTI-360."""
_SAME = 1e-4


def labelled_keys(keys: Sequence[FrameKey]) -> list[FrameKey]:
    """Return the keys whose row has labels: every 5th posed frame.

    Raises:
        DataError: none has.
    """
    kept = [key for key in keys if key.row % EVERY == 0]
    if not kept:
        raise DataError(
            f"none of the {len(keys):,} frames is a labelled one: only every {EVERY}th posed frame has voxels",
            fix="use another --split, or no --limit",
        )
    return kept


def voxel_centres(protocol: VoxelProtocol) -> NDArray[np.float64]:
    """Return the centres [X Y Z, 3] of all cells in the LiDAR's frame, metres, z fastest."""
    centres = (_indices(protocol.shape) + 0.5) * protocol.size + np.asarray(protocol.origin)
    return np.asarray(centres, np.float64)


def in_image(points: NDArray[np.float64], camera: Pinhole) -> Mask:
    """Return which points [N, 3] of a camera's frame show in its raw image: before it, 0 <= u < width, likewise v."""
    z = points[:, 2]
    pixels = points[:, :2] / np.where(z > 0, z, 1.0)[:, None] @ camera.matrix[:2, :2].T + camera.matrix[:2, 2]
    return np.asarray((z > 0) & ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(axis=1))


def voxel_cells(
    manifest: Manifest, keys: Sequence[FrameKey], protocol: VoxelProtocol
) -> tuple[Cells, NDArray[np.int64]]:
    """Return the cells that the key camera can see into, by the calibration of the keys' drives, and their numbers.

    Raises:
        DataError: drives differ in how LiDAR and camera stand to one another, or there is no pinhole camera.
    """
    camera_from_lidar, camera = _calibration(manifest, keys)
    centres = voxel_centres(protocol)
    seen = transform_points(camera_from_lidar, centres)
    inside = np.flatnonzero(in_image(seen, camera))
    rings = rings_of(centres[inside, 0], protocol.rings)
    return Cells(seen[inside].astype(np.float32), (len(inside),), rings, protocol.size), inside


class Voxels:
    """The cells that the key camera can see into, and their ground truth in frames."""

    def __init__(
        self,
        manifest: Manifest,
        keys: Sequence[FrameKey],
        files: VoxelFiles,
        protocol: VoxelProtocol,
        device: torch.device,
    ) -> None:
        """Place the cells by the calibration of the keys' drives.

        Raises:
            DataError: drives differ in how LiDAR and camera stand to one another, or there is no pinhole camera.
        """
        self._manifest, self._files, self._device = manifest, files, device
        self._protocol, self._lock = protocol, Lock()
        self._refused = ""
        self.cells, self._inside = voxel_cells(manifest, keys, protocol)
        self._indices = _indices(protocol.shape)[self._inside]
        camera_from_lidar, _ = _calibration(manifest, keys)
        self._eye = (invert(camera_from_lidar)[:3, 3] - np.asarray(protocol.origin)) / protocol.size

    def refuse(self, reason: str) -> None:
        """Leave the frames of the test drive out for this reason."""
        self._refused = reason

    def truth(self, key: FrameKey) -> SliceTruth | str:
        """Return the ground truth of a labelled frame on the cells, or why there is none; raises `DataError`."""
        if key.sequence == TEST_DRIVE and self._refused:
            return self._refused
        if not self._files.has(key.sequence, key.row):
            return "no voxel labels"
        classes = self._files.read(key.sequence, key.row)
        solid = (classes != EMPTY) & (classes != UNKNOWN)
        known = known_cells(classes).reshape(-1)[self._inside]
        visible = np.zeros(len(known), np.bool_)
        with self._lock:
            visible[known] = visible_cells(solid, self._eye, self._indices[known], self._device)
        return SliceTruth(solid.reshape(-1)[self._inside], visible, no_objects="voxels name no objects", judged=known)


def why_refused(manifest: Manifest, config: Any) -> str:
    """Return why a model of this configuration is not scored on the test drive; empty if it may be.

    The seg split takes its training frames from every drive, and so does SSCBench its test frames from one of them.
    """
    split = config.data.split
    if split in (None, "seg"):
        return "refused: the seg split, which the model was trained on, holds 68 % of drive 0009"
    trained = sum(len(rows) for (sequence, _), rows in manifest.key_rows("train").items() if sequence == TEST_DRIVE)
    return f"refused: the model's training list holds {trained:,} frames of drive 0009" if trained else ""


def refuse_alone(keys: Sequence[FrameKey], reason: str) -> None:
    """Raise `UsageError` if nothing but refused frames is asked for."""
    if reason and all(key.sequence == TEST_DRIVE for key in keys):
        raise UsageError(
            f"scores on drive 0009 are {reason}",
            fix="score frames of other drives, or train on the lists of SSCBench with data.split=FOLDER",
        )


def _indices(shape: Sequence[int]) -> NDArray[np.int64]:
    return np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)


def _calibration(manifest: Manifest, keys: Sequence[FrameKey]) -> tuple[NDArray[np.float64], Pinhole]:
    """Return camera_from_lidar [4, 4] and the raw camera, which have to be the same in all frames."""
    found: NDArray[np.float64] | None = None
    for sequence, camera in sorted({(key.sequence, key.camera) for key in keys}):
        row = next(key.row for key in keys if (key.sequence, key.camera) == (sequence, camera))
        here = invert(manifest.world_from_camera(sequence, camera)[row]) @ manifest.world_from_lidar(sequence)[row]
        if found is not None and not np.allclose(here, found, atol=_SAME):
            raise DataError("LiDAR and camera stand differently to one another than in other drives", where=sequence)
        found = here if found is None else found
    model = manifest.camera_model(keys[0].sequence, keys[0].camera)
    if found is None or not isinstance(model, Pinhole):
        raise DataError("the left stereo camera is not a pinhole camera", where=keys[0].sequence)
    return found, model
