"""What `instances.zarr` holds of an image: padded records and one map of masks (design: section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vipocc.priors.config import MAX_INSTANCES


def _no_labels() -> NDArray[np.int16]:
    return np.zeros(0, np.int16)


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, best first."""

    boxes: NDArray[np.float32]
    """[K, 4] x0, y0, x1, y1 in pixels of the image, inside it."""
    scores: NDArray[np.float32]
    """[K] probability of the best token."""
    labels: NDArray[np.int16] = field(default_factory=_no_labels)
    """[K] index of the class."""

    def __len__(self) -> int:
        return len(self.boxes)


def paint(masks: NDArray[np.bool_], areas: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the map uint8 [H, W] of masks [K, H, W]: instance number + 1, 0 where there is none.

    The largest is painted first, so that a small instance in front of a large surface stays whole; of equals the
    later one (the less sure) lies below.
    """
    painted = np.zeros(masks.shape[1:], np.uint8)
    for index in sorted(range(len(masks)), key=lambda k: (-int(areas[k]), -k)):
        painted[masks[index]] = index + 1
    return painted


def pack(
    detections: Sequence[Detections], masks: Sequence[NDArray[np.bool_]], height: int, width: int
) -> dict[str, NDArray[np.generic]]:
    """Return the store's arrays for images with `detections` and their full, overlapping `masks` [K, height, width].

    Returns count [n], label [n, 254], score [n, 254], box [n, 254, 4], area [n, 254] and masks [n, height, width].
    An area counts the pixels of the mask before others are painted over it. An image without detections gets a record
    of its own, with count 0.
    """
    n = len(detections)
    arrays: dict[str, NDArray[np.generic]] = {
        "count": np.zeros(n, np.uint16),
        "label": np.full((n, MAX_INSTANCES), -1, np.int16),
        "score": np.zeros((n, MAX_INSTANCES), np.float32),
        "box": np.zeros((n, MAX_INSTANCES, 4), np.float32),
        "area": np.zeros((n, MAX_INSTANCES), np.uint32),
        "masks": np.zeros((n, height, width), np.uint8),
    }
    for row, (found, full) in enumerate(zip(detections, masks, strict=True)):
        k = len(found)
        if k > MAX_INSTANCES or full.shape != (k, height, width):
            raise ValueError(f"{k} detections with masks of shape {full.shape} for an image of {height}x{width}")
        if k == 0:
            continue
        areas = full.reshape(k, -1).sum(1)
        arrays["count"][row] = k
        arrays["label"][row, :k] = found.labels
        arrays["score"][row, :k] = found.scores
        arrays["box"][row, :k] = found.boxes
        arrays["area"][row, :k] = areas
        arrays["masks"][row] = paint(full, areas)
    return arrays
