"""Which datasets vipocc reads; a dataset is one module that answers these questions about a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vipocc.data_manifests import kitti_360
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import SequenceTable
from vipocc.data_manifests.splits import SplitLists, is_packaged, packaged, read_folder
from vipocc.errors import UsageError


@dataclass(frozen=True)
class Adapter:
    """How one dataset is read."""

    dataset: str
    index: Callable[[Path], dict[str, SequenceTable]]
    """Root -> tables of all sequences, without roles."""
    state: Callable[[Path], str]
    """Root -> digest of what `index` would see, without the cost of indexing."""
    lists: Callable[[Path, DataConfig], SplitLists]
    """Root and configuration -> which frames each split lists."""
    way_out: Callable[[str], str]
    """Path relative to the root -> what the user does when that file is absent or damaged."""
    same_drive: Callable[[str], str] = lambda drive: drive
    """Sequence -> the sequence whose frames it shares, where a dataset publishes one drive under two names."""


def adapter(dataset: str) -> Adapter:
    """Return how a dataset is read; raises `UsageError` for one that is not."""
    if dataset not in ADAPTERS:
        raise UsageError(
            f"dataset '{dataset}' cannot be read by this version of vipocc", fix=f"use one of {', '.join(ADAPTERS)}"
        )
    return ADAPTERS[dataset]


def _kitti_360_lists(root: Path, config: DataConfig) -> SplitLists:
    folder = Path(config.split)
    if not is_packaged("kitti-360", config.split) and (len(folder.parts) > 1 or folder.is_dir()):
        return read_folder(folder)
    return packaged("kitti-360", config.split)


def _synthetic_lists(root: Path, config: DataConfig) -> SplitLists:
    return read_folder(root / "splits")


ADAPTERS: Mapping[str, Adapter] = {
    "kitti-360": Adapter(
        "kitti-360",
        kitti_360.index,
        kitti_360.state,
        _kitti_360_lists,
        kitti_360.download_for,
        kitti_360.same_drive,
    ),
    "synthetic": Adapter(
        "synthetic",
        kitti_360.index,
        kitti_360.state,
        _synthetic_lists,
        lambda _path: "delete the synthetic world's folder and run `vipocc data prepare`, which makes it again",
    ),
}
