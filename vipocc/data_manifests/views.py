"""Which images make up a sample, and the calibration of images once they are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import DataError, UsageError
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.ndc import resize_intrinsics
from vipocc.geometry.poses import virtual_rotation


class View(NamedTuple):
    """One image of a sample: a camera of the key's sequence, at a row."""

    camera: str
    row: int


@dataclass(frozen=True)
class Rig:
    """How the cameras of a dataset stand to one another."""

    stereo: tuple[str, str]
    """The left and the right camera."""
    fisheye: Mapping[str, str] = field(default_factory=dict)
    """For each camera of the stereo pair, the fisheye on its side."""

    def other(self, camera: str) -> str:
        """Return the second camera of the pair."""
        left, right = self.stereo
        return right if camera == left else left


_KITTI_360 = Rig(("image_00", "image_01"), {"image_00": "image_02", "image_01": "image_03"})
RIGS: Mapping[str, Rig] = {"kitti-360": _KITTI_360, "synthetic": _KITTI_360}


def rig(dataset: str) -> Rig:
    """Return the camera rig of a dataset."""
    if dataset not in RIGS:
        raise UsageError(f"no camera rig is known for dataset '{dataset}'", fix=f"use one of {', '.join(RIGS)}")
    return RIGS[dataset]


def view_offsets(dataset: str, camera: str, config: DataConfig) -> list[tuple[str, int]]:
    """Return (camera, rows after the key) of a sample's views in the published order.

    Key t, key t+1, other t, other t+1; with fisheyes then key-side t+10, t+11, other-side t+10, t+11.
    """
    cameras = rig(dataset)
    other = cameras.other(camera)
    offsets = [(camera, 0), (camera, 1), (other, 0), (other, 1)]
    if config.fisheye:
        for side in (camera, other):
            offsets += [(cameras.fisheye[side], config.fisheye_offset + step) for step in (0, 1)]
    return offsets


def sample_views(manifest: Manifest, key: FrameKey, config: DataConfig) -> list[View]:
    """Return the views of a training sample in the published order: eight, or four with stereo alone.

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
        model = manifest.camera_model(sequence, rig(manifest.dataset).stereo[0])
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
