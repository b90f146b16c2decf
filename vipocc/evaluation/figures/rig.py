"""The eight views of a sample and where they look, from above (Figure 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.figures.canvas import Axis, below, beside, grid, titled, with_axes
from vipocc.pictures import Image, legend_strip, write_text

Float64 = NDArray[np.float64]
PALETTE = [
    (0, 114, 178),
    (86, 180, 233),
    (213, 94, 0),
    (230, 159, 0),
    (0, 158, 115),
    (110, 190, 80),
    (204, 121, 167),
    (130, 90, 160),
]


@dataclass(frozen=True)
class DrawnView:
    """One image of a sample."""

    name: str
    image: Image
    key_from_camera: Float64
    """[4, 4], into the key camera's frame."""
    intrinsics_ndc: Float64
    """[3, 3], normalised: the image is -1 to 1 across and down."""


def views(sample: Sequence[DrawnView], reach: float = 14.0, width: int = 300, size: int = 420) -> Image:
    """Draw Figure 7: the views of a sample and their frusta from above, forward up.

    Args:
        sample: the key image first.
        reach: metres along the optical axis that frusta are drawn to.
        width: of a tile in pixels.
        size: of the map in pixels.
    """
    tiles = [one.image.copy() for one in sample]
    for number, tile in enumerate(tiles):
        thick = max(3, tile.shape[1] // 90)
        cv2.rectangle(tile, (0, 0), (tile.shape[1] - 1, tile.shape[0] - 1), _colour(number), 2 * thick)
    rows = [
        grid(
            [tiles[at : at + 2]],
            [f"{at + k + 1}: {one.name}" for k, one in enumerate(sample[at : at + 2])],
            width=width,
        )
        for at in range(0, len(tiles), 2)
    ]
    plan = titled(frusta(sample, reach, size), f"frusta from above, to {reach:g} m along the optical axis")
    legend = legend_strip([(_colour(n), f"{n + 1}: {one.name}") for n, one in enumerate(sample)], plan.shape[1])
    return beside([below(rows, 0), below([plan, legend], 0)], 16)


def frusta(sample: Sequence[DrawnView], reach: float = 14.0, size: int = 420) -> Image:
    """Draw the views' frusta on the ground plane of the key camera, with metres on the axes."""
    outlines = [footprint(one, reach) for one in sample]
    points = np.concatenate(outlines)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    half = 0.55 * float((points.max(axis=0) - points.min(axis=0)).max())
    low, high = middle - half, middle + half
    canvas = np.full((2 * size, 2 * size, 3), 255, np.uint8)

    def at(values: Float64) -> NDArray[np.int32]:
        share = (values - low) / (high - low)
        return np.asarray(np.rint(np.stack([share[:, 0], 1 - share[:, 1]], axis=1) * 2 * size), np.int32)

    for number, outline in enumerate(outlines):
        layer = canvas.copy()
        cv2.fillPoly(layer, [at(outline)], _colour(number))
        canvas = np.asarray(cv2.addWeighted(layer, 0.14, canvas, 0.86, 0), np.uint8)
    for number, outline in enumerate(outlines):
        cv2.polylines(canvas, [at(outline)], True, _colour(number), 4, cv2.LINE_AA)
        cv2.circle(canvas, at(outline[:1])[0].tolist(), 8, _colour(number), cv2.FILLED, cv2.LINE_AA)
    picture = np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    for number, outline in enumerate(outlines):
        # On the far edge, each at another place: views of one spot would write over one another.
        along = (number % 4 + 1) / 5
        x, y = at((1 - along) * outline[1:2] + along * outline[2:])[0] // 2
        place = (int(x), int(y))
        cv2.circle(picture, place, 9, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, place, 9, _colour(number), 2, cv2.LINE_AA)
        write_text(picture, str(number + 1), (place[0], place[1] + 5), 0.4, "middle")
    step = 5.0 if half < 25 else 10.0
    return with_axes(
        picture, Axis(float(low[0]), float(high[0]), step, "right (m)"),
        Axis(float(high[1]), float(low[1]), step, "ahead (m)"),
    )  # fmt: skip


def footprint(view: DrawnView, reach: float) -> Float64:
    """Return the triangle [3, 2] (right, ahead) in metres: camera centre, left and right border at `reach` ahead."""
    matrix = view.intrinsics_ndc
    sides = [(side - matrix[0, 2]) / matrix[0, 0] for side in (-1.0, 1.0)]
    points = np.array([[0, 0, 0, 1], *([reach * side, 0, reach, 1] for side in sides)], np.float64)
    return np.asarray((points @ view.key_from_camera.T)[:, [0, 2]])


def _colour(number: int) -> tuple[int, int, int]:
    return PALETTE[number % len(PALETTE)]
