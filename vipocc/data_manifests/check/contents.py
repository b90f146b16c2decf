"""What a folder holds of each drive, and drives whose poses are those of another."""

from __future__ import annotations

import numpy as np

from vipocc.data_manifests.check.report import CameraReport, DriveReport, Repeat
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import Adapter
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import rig

# Drives may begin at the same pose, as those whose world is their first frame do; so many of them are no chance.
_REPEATED_FROM = 10


def describe_drive(manifest: Manifest, reader: Adapter, drive: str, config: DataConfig) -> DriveReport:
    """Return what there is of a drive."""
    ids = manifest.frame_ids(drive)
    cameras = {
        camera: CameraReport(
            int(manifest.has_image(drive, camera).sum()), manifest.table(drive).cameras[camera].unposed
        )
        for camera in manifest.cameras(drive)
    }
    poses = _poses(manifest, drive)
    return DriveReport(
        drive=drive,
        posed_frames=len(ids),
        first_frame=int(ids[0]),
        last_frame=int(ids[-1]),
        gaps=int((np.diff(ids) > config.max_gap_ids).sum()),
        standing=int((poses[1:] == poses[:-1]).sum()),
        cameras=cameras,
        scans=int(manifest.has_lidar(drive).sum()),
        facts=list(reader.facts(manifest.root, drive)),
    )


def find_repeats(manifest: Manifest) -> list[Repeat]:
    """Return the drives that share poses with an earlier one, bit for bit."""
    seen: dict[bytes, str] = {}
    found = []
    for drive in manifest.sequences:
        counts: dict[str, int] = {}
        own = set(_poses(manifest, drive).tolist())
        for pose in own:
            first = seen.setdefault(pose, drive)
            if first != drive:
                counts[first] = counts.get(first, 0) + 1
        found += [Repeat(drive, other, count) for other, count in sorted(counts.items()) if count >= _REPEATED_FROM]
    return found


def _poses(manifest: Manifest, drive: str) -> np.ndarray:
    """Return the poses of the left camera as opaque values [N] that can be compared."""
    poses = np.ascontiguousarray(manifest.world_from_camera(drive, rig(manifest.dataset).left)[:, :3])
    return poses.reshape(len(poses), -1).view(np.dtype((np.void, 96)))[:, 0]
