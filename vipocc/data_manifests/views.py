"""Which images make up a sample, and the calibration of images once they are prepared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import Rig, adapter
from vipocc.data_manifests.ground_truth.occupancy import CAMERA_TILT_DEG
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import DataError
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.ndc import resize_intrinsics
from vipocc.geometry.poses import virtual_rotation


class View(NamedTuple):
    """One image of a sample: a camera of the key's sequence, at a row."""

    camera: str
    row: int


def rig(dataset: str) -> Rig:
    """Return the camera rig of a dataset."""
    return adapter(dataset).rig


def camera_tilt(dataset: str) -> float:
    """Return the degrees that a dataset's left camera looks down against the road (published_system.md 7.1)."""
    return CAMERA_TILT_DEG if dataset in ("kitti-360", "synthetic") else 0.0


def view_offsets(dataset: str, camera: str, config: DataConfig) -> list[tuple[str, int]]:
    """Return (camera, rows after the key) of a sample's views in the published order.

    Key t, key t+1, other t, other t+1; with fisheyes then key-side t+10, t+11, other-side t+10, t+11. Cameras that the
    dataset has not are left out.
    """
    cameras = rig(dataset)
    sides = [name for name in (camera, cameras.other(camera)) if name is not None]
    offsets = [(side, step) for side in sides for step in (0, 1)]
    if config.fisheye:
        for side in sides:
            if side in cameras.fisheye:
                offsets += [(cameras.fisheye[side], config.fisheye_offset + step) for step in (0, 1)]
    return offsets


def sample_views(manifest: Manifest, key: FrameKey, config: DataConfig) -> list[View]:
    """Return the views of a training sample in the published order: eight, four with stereo alone, two with one camera.

    Raises:
        DataError: the drive ends before the last view. Keys that the manifest lists for `train` never do.
    """
    views = [View(camera, key.row + step) for camera, step in view_offsets(manifest.dataset, key.camera, config)]
    rows = manifest.rows(key.sequence)
    if max(view.row for view in views) >= rows:
        raise DataError(
            f"the drive has {rows} posed frames, too few for a sample at row {key.row}",
            where=key.sequence,
            fix="use the keys that the manifest lists",
        )
    return views


def prepared_intrinsics(manifest: Manifest, sequence: str, camera: str, config: DataConfig) -> np.ndarray:
    """Return float64 [3, 3], pixel intrinsics of the prepared image of `config.image_size`.

    Fisheyes are resampled to a virtual pinhole camera that has the intrinsics of the left stereo camera.
    """
    model = manifest.camera_model(sequence, camera)
    if isinstance(model, Mei):
        model = manifest.camera_model(sequence, rig(manifest.dataset).left)
    if not isinstance(model, Pinhole):
        raise DataError("the left stereo camera is not a pinhole camera", where=f"{sequence}/{camera}")
    return np.asarray(
        resize_intrinsics(model.matrix, (model.height, model.width), config.image_size, config.convention), np.float64
    )


def prepared_poses(manifest: Manifest, sequence: str, camera: str, config: DataConfig) -> np.ndarray:
    """Return float64 [N, 4, 4], world_from_camera of the prepared images: of a fisheye, its virtual camera's."""
    poses = manifest.world_from_camera(sequence, camera)
    if isinstance(manifest.camera_model(sequence, camera), Pinhole):
        return poses
    turn = np.eye(4)
    turn[:3, :3] = virtual_rotation(config.fisheye_pitch, 0.0)
    return np.asarray(poses @ turn)
