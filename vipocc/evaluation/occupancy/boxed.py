"""Which cells lie around objects, and around moving ones, by the 3D boxes of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.boxes import BoxesAt, ObjectBox, objects_among
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.evaluation.metrics import Mask
from vipocc.evaluation.occupancy.cells import around, camera_points
from vipocc.evaluation.protocols import OccupancyProtocol
from vipocc.geometry.poses import transform_points


class BoxedCells:
    """Cells around objects of any frame; boxes are read once for each sequence. May be called in several threads."""

    def __init__(self, manifest: Manifest, protocol: OccupancyProtocol) -> None:
        self._manifest, self._shape, self._points = manifest, protocol.shape, camera_points(protocol)
        # Of a block of cells, its corners bound it in any frame.
        ends = self._points.reshape(-1, protocol.rows, protocol.columns, 3)[:: max(1, len(protocol.heights) - 1)]
        self._corners = ends[:, :: protocol.rows - 1, :: protocol.columns - 1].reshape(-1, 3)
        self._boxes: dict[str, BoxesAt | None] = {}
        self._lock = Lock()

    def __call__(self, key: FrameKey) -> tuple[Mask, Mask] | None:
        """Return the cells around vehicles and people, and around those that move; None where there are no boxes.

        A cell is an object's if its centre lies in the box, the smaller one's where boxes overlap.

        Raises:
            DataError: the sequence's file of boxes is damaged.
        """
        boxes = self._near(key)
        if boxes is None:
            return None
        numbers = self._numbers(key, boxes)
        there = [int(number) for number in np.unique(numbers) if number]
        moving = {box.instance + 1 for box in boxes if box.moving}
        return around(numbers, there), around(numbers, [number for number in there if number in moving])

    def moving(self, key: FrameKey) -> Mask | None:
        """Return the cells around moving objects alone, at no cost where none is near; errors as `__call__`."""
        boxes = self._near(key)
        if boxes is None:
            return None
        moving = {box.instance + 1 for box in boxes if box.moving}
        if not moving:
            return np.zeros(self._shape, np.bool_)
        numbers = self._numbers(key, boxes)
        return around(numbers, [int(number) for number in np.unique(numbers) if int(number) in moving])

    def _near(self, key: FrameKey) -> list[ObjectBox] | None:
        """Return the objects whose box may hold a cell, the largest first."""
        with self._lock:
            if key.sequence not in self._boxes:
                self._boxes[key.sequence] = adapter(self._manifest.dataset).boxes(self._manifest.root, key.sequence)
            at = self._boxes[key.sequence]
            if at is None:
                return None
            boxes = objects_among(at(int(self._manifest.frame_ids(key.sequence)[key.row])))
        corners = transform_points(self._pose(key), self._corners)
        low, high = corners.min(axis=0), corners.max(axis=0)
        near = [
            box
            for box in boxes
            if (np.abs(box.world_from_box[:3, 3] - (low + high) / 2) <= (high - low) / 2 + _reach(box)).all()
        ]
        return sorted(near, key=lambda box: (-float(np.prod(box.size)), box.instance))

    def _numbers(self, key: FrameKey, boxes: Sequence[ObjectBox]) -> NDArray[np.int64]:
        """Return for each cell the instance that it lies in, plus 1, or 0."""
        places = transform_points(self._pose(key), self._points)
        numbers = np.zeros(len(places), np.int64)
        for box in boxes:
            close = np.flatnonzero((np.abs(places - box.world_from_box[:3, 3]) <= _reach(box)).all(axis=1))
            numbers[close[box.contains(places[close])]] = box.instance + 1
        return numbers.reshape(self._shape)

    def _pose(self, key: FrameKey) -> NDArray[np.float64]:
        return np.asarray(self._manifest.world_from_camera(key.sequence, key.camera)[key.row])


def _reach(box: ObjectBox) -> float:
    # Axes of unit length reach at most half the sum of the sizes from the centre, however they stand to one another.
    return 0.5 * float(box.size.sum())
