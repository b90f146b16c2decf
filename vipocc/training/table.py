"""Which images belong to the samples of a split, and how they are calibrated: from the manifest, read once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc import errors
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import prepared_intrinsics, prepared_poses, view_offsets
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.geometry.poses import relative


@dataclass(frozen=True)
class SampleTable:
    """The V views and the calibration of all N keys of a split, as tensors that worker processes share."""

    groups: tuple[str, ...]
    """Store groups `<sequence>/<camera>`."""
    pinhole: tuple[bool, ...]
    """For each group, whether its camera is a perspective one, for which priors are computed."""
    group: Tensor
    """[N, V] int32, index into `groups`."""
    row: Tensor
    """[N, V] int32 posed-frame rows."""
    key_from_view: Tensor
    """[N, V, 4, 4] float32, formed in float64."""
    intrinsics: Tensor
    """[len(groups), 3, 3] float32, normalised."""

    def __len__(self) -> int:
        return len(self.group)

    def name(self, index: int) -> str:
        """Return `<sequence>/<camera> row N` of a key, for messages."""
        return f"{self.groups[int(self.group[index, 0])]} row {int(self.row[index, 0])}"

    def rows_by_group(self, views: slice, *, pinhole_only: bool = False) -> dict[str, NDArray[np.int64]]:
        """Return for each group the different rows that the chosen views of all keys touch, sorted."""
        group, row = self.group[:, views].numpy().ravel(), self.row[:, views].numpy().ravel()
        chosen = {name: np.unique(row[group == at]).astype(np.int64) for at, name in enumerate(self.groups)}
        kept = {name for name, pinhole in zip(self.groups, self.pinhole, strict=True) if pinhole or not pinhole_only}
        return {name: rows for name, rows in chosen.items() if len(rows) and name in kept}


def sample_table(manifest: Manifest, split: str, config: DataConfig) -> SampleTable:
    """Return the samples of a split, in the manifest's order.

    Raises:
        DataError: the manifest lists no key for the split.
    """
    names: dict[str, int] = {}
    pinhole: list[bool] = []
    intrinsics: list[NDArray[np.float32]] = []
    group, row, poses = [], [], []
    for (sequence, camera), rows in manifest.key_rows(split).items():
        offsets = view_offsets(manifest.dataset, camera, config)
        for view_camera in dict.fromkeys(name for name, _ in offsets):
            if f"{sequence}/{view_camera}" not in names:
                names[f"{sequence}/{view_camera}"] = len(names)
                pinhole.append(isinstance(manifest.camera_model(sequence, view_camera), Pinhole))
                pixels = prepared_intrinsics(manifest, sequence, view_camera, config)
                ndc = intrinsics_to_ndc(pixels, config.image_size, config.convention)
                intrinsics.append(np.asarray(ndc, dtype=np.float32))
        world_from_key = prepared_poses(manifest, sequence, camera, config)[rows]
        group.append(np.tile([names[f"{sequence}/{name}"] for name, _ in offsets], (len(rows), 1)))
        row.append(np.stack([rows + step for _, step in offsets], axis=1))
        seen = [prepared_poses(manifest, sequence, name, config)[rows + step] for name, step in offsets]
        poses.append(np.stack([relative(world_from_key, pose) for pose in seen], axis=1))
    if not group:
        raise errors.DataError(
            f"the manifest lists no {split} sample of {manifest.dataset}",
            fix="see `vipocc data check` for what was left out, or choose another data.split",
        )
    return SampleTable(
        groups=tuple(names),
        pinhole=tuple(pinhole),
        group=torch.from_numpy(np.concatenate(group).astype(np.int32)),
        row=torch.from_numpy(np.concatenate(row).astype(np.int32)),
        key_from_view=torch.from_numpy(np.concatenate(poses).astype(np.float32)),
        intrinsics=torch.from_numpy(np.stack(intrinsics)),
    )
