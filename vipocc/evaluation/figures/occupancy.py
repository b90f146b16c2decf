"""Occupancy on the slice from above, and comparisons of methods in three dimensions (Figures 4 and 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID, SliceGrid
from vipocc.evaluation.figures.canvas import Axis, below, beside, grid, titled, with_axes
from vipocc.evaluation.figures.voxels import VOLUME, VolumeGrid, voxel_view
from vipocc.pictures import (
    FREE,
    HIDDEN_FREE,
    INVENTED,
    MISSED,
    OCCUPIED,
    Image,
    cells_picture,
    difference_picture,
    enlarge,
    legend_strip,
    to_width,
)

Mask = NDArray[np.bool_]

ERRORS = [
    (OCCUPIED, "occupied; found (TP)"),
    (MISSED, "missed (FN)"),
    (INVENTED, "invented (FP)"),
    (FREE, "free, seen"),
    (HIDDEN_FREE, "free, hidden"),
]
"""The legend of every picture from above; the colours differ in lightness, too."""


def above(
    predictions: Mapping[str, Mask], occupied: Mask, visible: Mask, scale: int = 2, where: SliceGrid = SLICE_GRID
) -> Image:
    """Draw the truth from above, then the errors of each prediction, forward up, with metres on the axes.

    Args:
        predictions: by the name of the method, [rows, columns] with row 0 farthest.
        occupied: the truth, as large; a cell that is occupied and visible counts as free, as the metrics have it.
        visible: cells that the camera sees.
        scale: pixels a cell.
        where: the slice.
    """
    truth = occupied & ~visible
    across = Axis(*where.x_range, 2.0, "right (m)")
    ahead = Axis(max(where.z_range), min(where.z_range), 4.0, "ahead (m)")
    panels = [titled(with_axes(enlarge(cells_picture(truth, visible), scale), across, ahead), "truth")]
    for name, predicted in predictions.items():
        picture = enlarge(difference_picture(predicted, truth, visible), scale)
        panels.append(titled(with_axes(picture, across, ahead), name))
    row = beside(panels)
    return below([row, legend_strip(ERRORS, max(row.shape[1], 240))], 2)


def comparison(
    images: Sequence[Image],
    volumes: Mapping[str, Sequence[Mask | None]],
    names: Sequence[str],
    volume: VolumeGrid = VOLUME,
    width: int = 320,
) -> Image:
    """Draw Figures 4 and 9: a row a frame, its image and each method's cubes.

    Args:
        images: [H, W, 3] of each frame.
        volumes: by method, a volume [ny, nz, nx] a frame; None where it has none.
        names: of the frames.
        volume: where the cells are.
        width: of a tile in pixels.
    """
    size = (round(0.66 * width), width)
    cells: list[list[Image | None]] = []
    for at, image in enumerate(images):
        tiles = [each[at] for each in volumes.values()]
        cells.append([image, *(None if one is None else voxel_view(one, volume, size) for one in tiles)])
    return grid(cells, ["image", *volumes], names, width)


def scene(
    image: Image, depth: Image | None, volume_picture: Image | None, from_above: Image | None, from_side: Image | None
) -> Image:
    """Put one frame's pictures together as Figure 1 does: image and depth, below them occupancy from three sides.

    Any but the image may be missing; each is finished by the function that draws it, and the depth has the image in it.
    """
    solid = [part for part in (volume_picture, from_side) if part is not None]
    if depth is None:
        solid.insert(0, titled(to_width(image, max(image.shape[1], 480)), "image"))
    parts = [*([below(solid)] if solid else []), *([] if from_above is None else [from_above])]
    rows = [*([] if depth is None else [depth]), *([beside(parts, 16)] if parts else [])]
    return below(rows)
