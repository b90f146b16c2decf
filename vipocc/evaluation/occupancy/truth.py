"""Where the ground truth of occupancy comes from: stores, published files, the synthetic world."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from vipocc.data_manifests.ground_truth.boxes import FREE, STATIC
from vipocc.data_manifests.ground_truth.published import OBJECT_FOLDER, PublishedFiles
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.evaluation.inputs import RowReader, committed
from vipocc.evaluation.metrics import Mask, object_cells
from vipocc.evaluation.protocols import OccupancyProtocol

OBJECT_LABELS = ("car", "person")
"""Of the synthetic world's objects, those that object metrics look around."""


class SliceTruth(NamedTuple):
    """Ground truth of one frame, [rows, columns] with row 0 farthest."""

    occupied: Mask
    visible: Mask
    objects: Mask | None = None
    """Cells around objects, where they are known."""
    no_objects: str = "the ground truth has no objects"
    """Why they are not known."""


TruthReader: TypeAlias = Callable[[FrameKey], "SliceTruth | str"]
"""Returns a key's ground truth, or the reason why there is none."""


def lidar_truth(reader: RowReader, protocol: OccupancyProtocol) -> TruthReader:
    """Return a reader of the protocol's ground truth in `occupancy.zarr`."""

    def read(key: FrameKey) -> SliceTruth | str:
        group = f"{protocol.name}/{key.sequence}"
        if not committed(reader, group, key.row):
            return "no LiDAR ground truth"
        occupied = np.asarray(reader.read(group, key.row, "occupied")).astype(np.bool_)
        visible = np.asarray(reader.read(group, key.row, "visible")).astype(np.bool_)
        if not reader.read(group, key.row, "objects_known"):
            return SliceTruth(occupied, visible, no_objects=f"{key.sequence} had no 3D boxes when it was prepared")
        objects = np.asarray(reader.read(group, key.row, "object"))
        ids = [int(number) for number in np.unique(objects) if number not in (FREE, STATIC)]
        return SliceTruth(occupied, visible, object_cells(objects, ids))

    return read


def published_truth(manifest: Manifest, files: PublishedFiles) -> TruthReader:
    """Return a reader of the published GT_Occ and Object_Label files."""

    def read(key: FrameKey) -> SliceTruth | str:
        frame_id = int(manifest.frame_ids(key.sequence)[key.row])
        if not files.has(key.sequence, frame_id):
            return "no published ground truth"
        occupied, visible, objects = files.read(key.sequence, frame_id)
        if objects is None:
            return SliceTruth(occupied, visible, no_objects=f"there is no {OBJECT_FOLDER} file")
        # As released: the sorted values but the first and the last, whatever those are.
        return SliceTruth(occupied, visible, object_cells(objects))

    return read


def exact_truth(manifest: Manifest) -> TruthReader:
    """Return a reader of the synthetic world's exact occupancy, which nothing but the protocol `exact` may open."""
    from vipocc.data_manifests.synthetic.exact import ExactTruth

    truth = ExactTruth(manifest.root)

    def read(key: FrameKey) -> SliceTruth:
        frame_id = int(manifest.frame_ids(key.sequence)[key.row])
        found = truth.occupancy(key.sequence, frame_id)
        numbers = truth.slice_objects(key.sequence, frame_id)
        labels = {one.id: one.label for one in truth.boxes(key.sequence, frame_id)}
        wanted = [int(n) for n in np.unique(numbers) if labels.get(int(n)) in OBJECT_LABELS]
        return SliceTruth(found.occupied, found.visible, object_cells(numbers, wanted))

    return read
