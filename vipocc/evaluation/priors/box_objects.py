"""True objects from 3D boxes: as much of a picture's objects as annotators of a drive know.

A box says nothing of what hides it, so that only objects that the key frame's own LiDAR sweep hits are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.boxes import BoxesAt, ObjectBox
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.evaluation.priors.instances import Objects, class_numbers, least_pixels
from vipocc.geometry.poses import invert
from vipocc.priors.config import InstanceClass

NEAREST = 0.5
"""Metres; a box with a corner nearer to the camera's plane, or behind it, has no box in the image."""
FEWEST_POINTS = 10
"""LiDAR points in a box from which on it is asked for."""


def box_in_image(
    box: ObjectBox, camera_from_world: NDArray[np.float64], intrinsics: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64] | None:
    """Return x0, y0, x1, y1 (ends exclusive) of the pixels that a 3D box spans, None if it is not wholly in front.

    Args:
        box: in the world.
        camera_from_world: [4, 4].
        intrinsics: [3, 3] in pixels, pixel (0, 0) being centred at 0.
        size: of the image, which the result is clipped to; empty where the box lies beside it.
    """
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    camera_from_box = camera_from_world @ box.world_from_box
    corners = signs * box.size @ camera_from_box[:3, :3].T + camera_from_box[:3, 3]
    if corners[:, 2].min() < NEAREST:
        return None
    pixels = corners @ intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:] + 0.5  # from the image's corner, as the ends of boxes are
    height, width = size
    return np.concatenate([pixels.min(0), pixels.max(0)]).clip(0, [width, height, width, height])


class BoxObjects:
    """Reads the objects of drives that have 3D boxes."""

    title = "Instances against 3D boxes, where the LiDAR hits them (boxes alone: no masks)"

    def __init__(
        self, manifest: Manifest, config: DataConfig, boxes: Mapping[str, BoxesAt], numbers: Mapping[str, int]
    ) -> None:
        self.manifest, self.config, self._boxes, self._class_of = manifest, config, boxes, numbers

    @classmethod
    def open(
        cls,
        manifest: Manifest,
        config: DataConfig,
        classes: Sequence[InstanceClass],
        labels: Sequence[str],
        keys: Sequence[FrameKey],
    ) -> BoxObjects | None:
        """Open the boxes of the keys' drives; None unless every drive has some."""
        reader = adapter(manifest.dataset)
        found = {drive: reader.boxes(manifest.root, drive) for drive in sorted({key.sequence for key in keys})}
        opened = {drive: boxes for drive, boxes in found.items() if boxes is not None}
        return cls(manifest, config, opened, class_numbers(classes, labels)) if len(opened) == len(found) else None

    def read(self, key: FrameKey, size: tuple[int, int]) -> Objects:
        """Return the objects of a key image whose label is a label or phrase of the prompt, see `ObjectReader`."""
        manifest, frame = self.manifest, int(self.manifest.frame_ids(key.sequence)[key.row])
        camera_from_world = invert(manifest.world_from_camera(key.sequence, key.camera)[key.row])
        intrinsics = prepared_intrinsics(manifest, key.sequence, key.camera, self.config)
        points = self._points(key)
        labels, places, counts = [], [], []
        for box in self._boxes[key.sequence](frame):
            if box.label not in self._class_of:
                continue
            place = box_in_image(box, camera_from_world, intrinsics, size)
            if place is None or (place[2:] <= place[:2]).any():
                continue
            large = np.prod(place[2:] - place[:2]) >= least_pixels(size)
            labels.append(self._class_of[box.label])
            places.append(place)
            counts.append(large and (points is None or np.count_nonzero(box.contains(points)) >= FEWEST_POINTS))
        boxes = np.array(places, np.float64).reshape(-1, 4)
        return Objects(np.array(labels, np.int64), boxes, np.array(counts, bool), None)

    def _points(self, key: FrameKey) -> NDArray[np.float64] | None:
        """The key frame's sweep in the world [n, 3]; None if there is none, and then every box is asked for."""
        path = self.manifest.lidar_path(key.sequence, key.row)
        if path is None:
            return None
        points = adapter(self.manifest.dataset).read_scan(path).astype(np.float64)
        pose = self.manifest.world_from_lidar(key.sequence)[key.row]
        return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])
