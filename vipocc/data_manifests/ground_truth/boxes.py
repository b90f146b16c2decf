"""3D boxes of objects, and the map of which cells of the slice lie in which object.

The encoding is that of the published Object_Label maps (published_system.md 7.1 item 8). How those were drawn is not
known (section 13.2 there), so the rule here is our own, and object figures on it are comparable with one another, not
with published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID, SliceGrid, slice_grid
from vipocc.errors import UsageError
from vipocc.geometry.poses import invert
from vipocc.geometry.shapes import Float64, expect_shape

FREE, STATIC = 0, 255
"""Values of an object map that are no object: free, and occupied by something else."""
MOST_OBJECTS = 254
"""Objects that one map can tell apart."""

OBJECT_LABELS = frozenset(
    (
        *("bicycle", "bus", "car", "caravan", "motorcycle", "person", "rider", "trailer", "train", "truck"),
        "unknown vehicle",
    )
)
"""What counts as an object: vehicles and people, by the names of KITTI-360's labels."""


@dataclass(frozen=True)
class ObjectBox:
    """The box around one object at one moment."""

    instance: int
    """Its number, the same for one object throughout a drive."""
    label: str
    moving: bool
    world_from_box: Float64
    """[4, 4], the box's centre being the origin. Its columns have unit length; of a hand-drawn box they need not be
    perpendicular."""
    size: Float64
    """[3] metres along the box's own axes."""

    def contains(self, points: Float64) -> NDArray[np.bool_]:
        """Return which of the world points [..., 3] lie in the box, its surface included."""
        box_from_world = invert(self.world_from_box)
        local = points @ box_from_world[:3, :3].T + box_from_world[:3, 3]
        return np.asarray((np.abs(local) <= 0.5 * self.size).all(axis=-1))


#: The boxes at a frame id, of a sequence that was opened.
BoxesAt: TypeAlias = Callable[[int], list[ObjectBox]]


def objects_among(boxes: Iterable[ObjectBox], labels: Collection[str] = OBJECT_LABELS) -> list[ObjectBox]:
    """Return the boxes of vehicles and people."""
    return [box for box in boxes if box.label in labels]


def object_map(
    boxes: Iterable[ObjectBox], level_from_world: ArrayLike, occupied: NDArray[np.bool_], grid: SliceGrid = SLICE_GRID
) -> NDArray[np.uint8]:
    """Return which object each cell of the slice lies in, uint8 [rows, columns].

    0 is free, 255 occupied and of no object, 1 to 254 an object. A cell is an object's if its centre lies in the box,
    whether or not it is called occupied: sweeps see through where a car has driven off. Where boxes overlap, the cell
    is the smaller one's. Objects are numbered by rising instance, those without a cell not at all; one that is partly
    outside has the cells that are inside. Of more than 254 objects, those with the fewest cells are not told apart and
    become 255.

    Args:
        boxes: the objects at the frame's time, see `objects_among`; several boxes of one instance are one object.
        level_from_world: [4, 4] of the key camera, see `occupancy.level_from_world`.
        occupied: the cells that ground truth calls occupied, [rows, columns].
        grid: the slice.

    Raises:
        UsageError: `occupied` is not of the grid's shape.
    """
    if occupied.shape != grid.shape:
        raise UsageError(f"occupied cells must be {grid.shape}, not {occupied.shape}")
    transform = np.asarray(level_from_world, np.float64)
    expect_shape("level_from_world", transform, 4, 4)
    world_from_level = invert(transform)
    cells = slice_grid(grid) @ world_from_level[:3, :3].T + world_from_level[:3, 3]
    found = np.where(occupied, STATIC, FREE).astype(np.uint8)
    owner = np.full(len(cells), -1)
    # The largest first, so that what it holds is painted over it.
    largest_first = sorted(boxes, key=lambda box: (-float(np.prod(box.size)), box.instance))
    for box in largest_first:
        near = _near(cells, box)
        owner[near[box.contains(cells[near])]] = box.instance
    instances, counts = np.unique(owner[owner >= 0], return_counts=True)
    kept = np.sort(instances[np.argsort(-counts, kind="stable")[:MOST_OBJECTS]])
    numbers = np.full(len(cells), FREE, np.uint8)
    told = np.isin(owner, kept)
    numbers[told] = np.searchsorted(kept, owner[told]) + 1
    numbers[(owner >= 0) & ~told] = STATIC
    return np.where(numbers > 0, numbers, found.reshape(-1)).reshape(grid.shape)


def _near(cells: Float64, box: ObjectBox) -> NDArray[np.intp]:
    # Axes of unit length reach at most half the sum of the sizes from the centre, however they stand to one another.
    radius = 0.5 * float(box.size.sum())
    return np.flatnonzero((np.abs(cells - box.world_from_box[:3, 3]) <= radius).all(axis=-1))
