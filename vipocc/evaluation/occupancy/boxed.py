"""Which cells lie around objects, and around moving ones, by the 3D boxes of a dataset."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.boxes import BoxesAt, objects_among
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.evaluation.metrics import Mask
from vipocc.evaluation.occupancy.cells import around, camera_points
from vipocc.evaluation.protocols import OccupancyProtocol
from vipocc.geometry.poses import transform_points


class BoxedCells:
    """Cells around objects of any frame; boxes are read once for each sequence. May be called in several threads."""

    def __init__(self, manifest: Manifest, protocol: OccupancyProtocol) -> None:
        self._manifest, self._shape, self._points = manifest, protocol.shape, camera_points(protocol)
        self._boxes: dict[str, BoxesAt | None] = {}
        self._lock = Lock()

    def __call__(self, key: FrameKey) -> tuple[Mask, Mask] | None:
        """Return the cells around vehicles and people, and around those that move; None where there are no boxes.

        A cell is an object's if its centre lies in the box, the smaller one's where boxes overlap.

        Raises:
            DataError: the sequence's file of boxes is damaged.
        """
        with self._lock:
            if key.sequence not in self._boxes:
                self._boxes[key.sequence] = adapter(self._manifest.dataset).boxes(self._manifest.root, key.sequence)
            at = self._boxes[key.sequence]
            if at is None:
                return None
            boxes = objects_among(at(int(self._manifest.frame_ids(key.sequence)[key.row])))
        places = transform_points(self._manifest.world_from_camera(key.sequence, key.camera)[key.row], self._points)
        low, high = places.min(axis=0), places.max(axis=0)
        numbers: NDArray[np.int64] = np.zeros(len(places), np.int64)
        moving: dict[int, bool] = {}
        for box in sorted(boxes, key=lambda box: (-float(np.prod(box.size)), box.instance)):
            centre, reach = box.world_from_box[:3, 3], 0.5 * float(box.size.sum())
            if (centre + reach < low).any() or (centre - reach > high).any():
                continue
            numbers[box.contains(places)] = box.instance + 1
            moving[box.instance + 1] = box.moving
        arranged = numbers.reshape(self._shape)
        there = [int(number) for number in np.unique(numbers) if number]
        return around(arranged, there), around(arranged, [number for number in there if moving[number]])
