"""The synthetic world: KITTI-360's layout, of files that are generated and come with their own split lists."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets.adapter import FileKind, Quirk
from vipocc.data_manifests.datasets.kitti_360 import Kitti360
from vipocc.data_manifests.splits import SplitLists, read_folder
from vipocc.data_manifests.tables import SequenceTable
from vipocc.errors import DataError

_MAKE_AGAIN = "delete the synthetic world's folder and run `vipocc data prepare`, which makes it again"


class Synthetic(Kitti360):
    """A generated world: nothing of it can be downloaded, and none of its drives is optional."""

    dataset = "synthetic"
    licence = "made by vipocc, free of any"
    quirks: ClassVar[tuple[Quirk, ...]] = ()

    def index(self, root: Path) -> dict[str, SequenceTable]:
        """See `Adapter.index`; a drive that a split lists and that is missing is an error."""
        try:
            tables = super().index(root)
        except DataError as error:
            raise DataError(error.what, where=error.where, fix=_MAKE_AGAIN) from None
        listed = {drive for frames in read_folder(root / "splits").frames.values() for drive, _ in frames}
        for drive in sorted(listed - tables.keys()):
            where = root / "data_poses" / drive
            raise DataError("a drive of the synthetic world is missing", where=where, fix=_MAKE_AGAIN)
        return tables

    def lists(self, root: Path, config: DataConfig) -> SplitLists:
        """Return the world's own lists."""
        return read_folder(root / "splits")

    def download(self, kind: FileKind, sequence: str) -> str:
        """Return what stands in for a download."""
        return _MAKE_AGAIN

    def way_out(self, relative_path: str) -> str:
        """See `Adapter.way_out`."""
        return _MAKE_AGAIN


ADAPTER = Synthetic()
