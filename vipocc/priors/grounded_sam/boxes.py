"""Boxes in pixels: clipping, overlap, suppression of duplicates. All are x0, y0, x1, y1 with x1, y1 exclusive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def from_centres(boxes: NDArray[np.floating], height: int, width: int) -> Boxes:
    """Return boxes [K, 4] in pixels from normalised (centre x, centre y, width, height)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    scale = np.array([width, height, width, height])
    return np.asarray(np.concatenate([centre - half, centre + half], 1) * scale, np.float32)


def clip(boxes: Boxes, height: int, width: int) -> Boxes:
    """Return boxes [K, 4] cut to the image: x in [0, width], y in [0, height]."""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)


def overlap(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Return the intersection over union [K, L] of boxes [K, 4] and [L, 4]; 0 where a box is empty."""
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def suppress(
    boxes: Boxes,
    scores: NDArray[np.floating],
    classes: NDArray[np.integer],
    iou: float,
    most: int | None = None,
) -> NDArray[np.int64]:
    """Return the indices of the boxes that stay, best score first: greedy suppression within each class.

    A box goes if it overlaps a better one of its class by more than `iou`. Ties in score keep their order. At most
    `most` boxes stay.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    gone = np.zeros(len(boxes), bool)
    kept: list[int] = []
    for index in order:
        if len(kept) == most:
            break
        if not gone[index]:
            kept.append(int(index))
            # Of one class, and only where it is kept: the whole table of overlaps is mostly for nothing.
            rivals = np.flatnonzero(classes == classes[index])
            gone[rivals] |= overlap(boxes[index : index + 1], boxes[rivals])[0] > iou
    return np.array(kept, np.int64)
