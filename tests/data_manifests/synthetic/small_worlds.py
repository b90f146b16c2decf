"""Small synthetic worlds for tests."""

import hashlib

from vipocc.data_manifests.synthetic.config import WorldConfig


def tree_digest(root):
    """Digest of every file's path and bytes below `root`."""
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def small_config(**values):
    sizes = {"train_drives": 1, "val_drives": 0, "test_drives": 1, "train_frames": 4, "test_frames": 3}
    return WorldConfig(**(sizes | {"scale": 0.15, "lidar_points": 6400} | values))
