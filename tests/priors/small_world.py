"""What tests of the prior commands share: a synthetic world of eleven frames and the words that make it."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

WORLD = [
    "data.world.train_drives=1", "data.world.train_frames=5", "data.world.val_frames=3", "data.world.test_frames=3",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false",
]  # fmt: skip
TINY = ["priors.depth.short_side=28", "priors.sam.shortest_side=96", "priors.sam.longest_side=320"]


def arguments(*more: str) -> list[str]:
    """Return a command line on the world, networks with small inputs."""
    return [*more, *(part for text in (*WORLD, *TINY) for part in ("-o", text))]


def tree(folder: Path) -> dict[str, str]:
    """Return every file below a folder with a digest of its bytes; locks are none."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): blake2b(path.read_bytes()).hexdigest() for path in files}


def reader(workspace: Path, kind: str, name: str | None = None) -> StoreReader:
    """Open a store of a workspace."""
    return StoreReader(Workspace.open(workspace).store(kind, name))
