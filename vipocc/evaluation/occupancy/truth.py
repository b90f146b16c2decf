"""Where the ground truth of occupancy comes from: stores, published files, the synthetic world."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np

from vipocc.data_manifests.ground_truth.boxes import FREE, STATIC
from vipocc.data_manifests.ground_truth.published import OBJECT_FOLDER, PublishedFiles
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.evaluation.inputs import RowReader, committed
from vipocc.evaluation.metrics import Mask, object_cells
from vipocc.evaluation.occupancy.boxed import BoxedCells
from vipocc.evaluation.occupancy.cells import around, camera_points
from vipocc.evaluation.protocols import EXACT_OCCUPANCY, OccupancyProtocol
from vipocc.geometry.poses import transform_points

OBJECT_LABELS = ("car", "person")
"""Of the synthetic world's objects, those that object metrics look around."""


class SliceTruth(NamedTuple):
    """Ground truth of one frame, as the protocol arranges its cells: [rows, columns] with row 0 farthest, of a volume
    [layers, rows, columns], of voxels [cells]."""

    occupied: Mask
    visible: Mask
    objects: Mask | None = None
    """Cells around objects, where they are known."""
    no_objects: str = "the ground truth has no objects"
    """Why they are not known."""
    moving: Mask | None = None
    """Those of them around moving objects, where that is known."""
    judged: Mask | None = None
    """Cells whose truth is known; by default all."""


TruthReader: TypeAlias = Callable[[FrameKey], "SliceTruth | str"]
"""Returns a key's ground truth, or the reason why there is none."""


def lidar_truth(reader: RowReader, protocol: OccupancyProtocol, manifest: Manifest | None = None) -> TruthReader:
    """Return a reader of the protocol's ground truth in `occupancy.zarr`.

    manifest: of the dataset, whose boxes tell which objects move; without it that is not known.
    """
    boxed = None if manifest is None else BoxedCells(manifest, protocol)

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
        moving = None if boxed is None else boxed.moving(key)
        return SliceTruth(occupied, visible, object_cells(objects, ids), moving=moving)

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


def exact_truth(manifest: Manifest, protocol: OccupancyProtocol = EXACT_OCCUPANCY) -> TruthReader:
    """Return a reader of the synthetic world's exact occupancy, which only a protocol of that truth may open."""
    from vipocc.data_manifests.synthetic.exact import ExactTruth

    truth = ExactTruth(manifest.root)
    # A drive's surfaces stand at one moment at a time, and frames are judged in several threads.
    lock, points = Lock(), camera_points(protocol)

    def read(key: FrameKey) -> SliceTruth:
        frame_id = int(manifest.frame_ids(key.sequence)[key.row])
        with lock:
            pose = truth.world_from_camera(key.sequence, frame_id, key.camera)
            places = transform_points(pose, points)
            numbers = truth.instance_at(places, key.sequence, frame_id).reshape(protocol.shape)
            visible = truth.visible_at(places, key.sequence, frame_id, key.camera).reshape(protocol.shape)
            boxes = truth.boxes(key.sequence, frame_id)
        known = {one.id: one for one in boxes if one.label in OBJECT_LABELS}
        wanted = [int(n) for n in np.unique(numbers) if int(n) in known]
        moving = [number for number in wanted if known[number].moving]
        return SliceTruth(numbers != 0, visible, around(numbers, wanted), moving=around(numbers, moving))

    return read
