"""The cells that a protocol asks about: where they are, how they are arranged, which ring of distance they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.occupancy import SliceGrid, level_from_world, slice_grid
from vipocc.evaluation.metrics import Mask, object_cells
from vipocc.evaluation.protocols import OccupancyProtocol
from vipocc.geometry.poses import invert, transform_points


@dataclass(frozen=True)
class Cells:
    """Cells of one protocol, the same in every frame."""

    points: NDArray[np.float32]
    """[N, 3] metres in the key camera's frame (x right, y down, z forward)."""
    shape: tuple[int, ...]
    """How ground truth arranges them."""
    rings: tuple[Mask, ...]
    """Of that shape, a mask for each of the protocol's rings."""
    opacity_length: float
    """Metres over which a density becomes a cell's opacity."""


def layer_grids(protocol: OccupancyProtocol) -> list[SliceGrid]:
    """Return the grid of each plane of the protocol, from the highest to the lowest."""
    low, high = protocol.layer
    return [
        SliceGrid(protocol.x_range, protocol.z_range, (y + low, y + high), protocol.columns, protocol.rows)
        for y in protocol.heights
    ]


def camera_points(protocol: OccupancyProtocol) -> NDArray[np.float64]:
    """Return the cells [N, 3] of a slice, or of several, in the key camera's frame, metres.

    Layer after layer, rows from far to near, columns from left to right. The grid stands in the level frame, which the
    camera looks 5 degrees down in (golden G10).
    """
    return transform_points(invert(level_from_world(np.eye(4))), _level_points(protocol))


def plane_cells(protocol: OccupancyProtocol) -> Cells:
    """Return the cells of a slice or of a volume of several, see `camera_points`."""
    rings = rings_of(_level_points(protocol)[:, 2], protocol.rings)
    return Cells(
        camera_points(protocol).astype(np.float32),
        protocol.shape,
        tuple(ring.reshape(protocol.shape) for ring in rings),
        protocol.opacity_length,
    )


def _level_points(protocol: OccupancyProtocol) -> NDArray[np.float64]:
    return np.concatenate([slice_grid(grid) for grid in layer_grids(protocol)])


def rings_of(ahead: NDArray[Any], rings: Sequence[tuple[float, float]]) -> tuple[Mask, ...]:
    """Return for each ring which distances [N] lie in it; ends are exclusive but for the last."""
    last = len(rings) - 1
    return tuple(
        np.asarray((ahead >= low) & ((ahead <= high) if at == last else (ahead < high)))
        for at, (low, high) in enumerate(rings)
    )


def around(numbers: NDArray[Any], ids: Sequence[int]) -> Mask:
    """Return the cells around objects (`metrics.object_cells`); in a volume those over and under them, too.

    numbers: integers [rows, columns] or [layers, rows, columns].
    """
    if numbers.ndim == 2:
        return object_cells(numbers, ids)
    cells = np.zeros(numbers.shape[1:], np.bool_)
    for number in ids:
        cells |= object_cells((numbers == number).any(axis=0).astype(np.uint8), [1])
    return np.broadcast_to(cells, numbers.shape).copy()
