"""The synthetic world: KITTI-360's layout, of files that are generated and come with their own split lists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets.adapter import FileKind, Quirk
from vipocc.data_manifests.datasets.kitti_360 import Kitti360
from vipocc.data_manifests.ground_truth.boxes import BoxesAt, ObjectBox
from vipocc.data_manifests.splits import SplitLists, read_folder
from vipocc.data_manifests.tables import SequenceTable
from vipocc.errors import DataError
from vipocc.geometry.shapes import Float64

if TYPE_CHECKING:
    from vipocc.data_manifests.synthetic.exact import Box3D

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

    def box_files(self, root: Path, sequence: str) -> tuple[str, ...]:
        """See `Adapter.box_files`."""
        from vipocc.data_manifests.synthetic.drive import scene_path

        path = scene_path(root, sequence)
        return (path.relative_to(root).as_posix(),) if path.is_file() else ()

    def boxes(self, root: Path, sequence: str) -> BoxesAt | None:
        """See `Adapter.boxes`: of the exact scene, so training never asks for them."""
        from vipocc.data_manifests.synthetic.exact import ExactTruth

        if not self.box_files(root, sequence):
            return None
        truth = ExactTruth(root)

        def at(frame_id: int) -> list[ObjectBox]:
            return [
                ObjectBox(one.id, one.label, one.moving, _world_from_box(one.box), one.box.size)
                for one in truth.boxes(sequence, frame_id)
                if one.box is not None
            ]

        return at


def _world_from_box(box: Box3D) -> Float64:
    transform = np.eye(4)
    transform[:2, :2] = [[np.cos(box.yaw), -np.sin(box.yaw)], [np.sin(box.yaw), np.cos(box.yaw)]]
    transform[:3, 3] = box.centre
    return transform


ADAPTER = Synthetic()
