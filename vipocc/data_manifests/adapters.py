"""Which datasets vipocc reads; a dataset is one module that answers these questions about a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vipocc.data_manifests import kitti_360
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import SequenceTable
from vipocc.data_manifests.splits import SplitLists, is_packaged, packaged, read_folder
from vipocc.errors import DataError, UsageError


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


_MAKE_AGAIN = "delete the synthetic world's folder and run `vipocc data prepare`, which makes it again"


def _synthetic_index(root: Path) -> dict[str, SequenceTable]:
    """Index a synthetic world: nothing of it can be downloaded, and none of its drives is optional."""
    try:
        tables = kitti_360.index(root)
    except DataError as error:
        raise DataError(error.what, where=error.where, fix=_MAKE_AGAIN) from None
    listed = {drive for frames in read_folder(root / "splits").frames.values() for drive, _ in frames}
    for drive in sorted(listed - tables.keys()):
        raise DataError("a drive of the synthetic world is missing", where=root / "data_poses" / drive, fix=_MAKE_AGAIN)
    return tables


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
        _synthetic_index,
        kitti_360.state,
        _synthetic_lists,
        lambda _path: _MAKE_AGAIN,
    ),
}
