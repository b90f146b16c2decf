"""Occupied voxels as files that other programs open: coloured points and the exact surface, as binary PLY.

PLY files are in a viewer's frame, metres: x right, y forward, z up, origin at the camera's centre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vipocc.apps.predict.grid import Grid
from vipocc.geometry.shapes import Float64
from vipocc.pictures import height_colours

_COMMENT = "vipocc: metres, origin at the camera, x right, y forward, z up (level); colour is height"
# Of a cell, the corners of the side towards each neighbour, seen from outside against the clock; (i, j, k) as the grid.
_SIDES: dict[tuple[int, int], tuple[tuple[int, int, int], ...]] = {
    (0, -1): ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    (0, 1): ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)),
    (1, -1): ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    (1, 1): ((0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)),
    (2, -1): ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
    (2, 1): ((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
}


def to_viewer(points: Float64) -> Float64:
    """Return points [..., 3] of the level frame (x right, y down, z forward) as x right, y forward, z up."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def points_ply(occupied: NDArray[np.bool_], grid: Grid) -> bytes:
    """Return the centres of the occupied cells [nx, ny, nz] as a PLY file of points coloured by height."""
    at = np.argwhere(occupied)
    centres = np.stack([axis[at[:, k]] for k, axis in enumerate(grid.centres())], axis=-1)
    return _ply(to_viewer(centres), grid)


def mesh_ply(occupied: NDArray[np.bool_], grid: Grid) -> bytes:
    """Return the surface of the occupied cells as a PLY file of squares, coloured by height."""
    vertices, faces = surface(occupied, grid)
    return _ply(to_viewer(vertices), grid, faces)


def surface(occupied: NDArray[np.bool_], grid: Grid) -> tuple[Float64, NDArray[np.int32]]:
    """Return the sides of occupied cells that no occupied cell touches.

    Corners that sides share are one vertex, so a body whose cells touch along sides alone is closed.

    Returns:
        vertices [V, 3] in the level frame, metres, and squares int32 [F, 4], against the clock seen from
        outside.
    """
    padded = np.pad(occupied, 1)
    corners = []
    for (axis, step), offsets in _SIDES.items():
        neighbour = np.roll(padded, -step, axis)[1:-1, 1:-1, 1:-1]
        at = np.argwhere(occupied & ~neighbour)
        corners.append(at[:, None] + np.asarray(offsets)[None])
    every = np.concatenate(corners).reshape(-1, 3)
    span = np.asarray(grid.shape) + 1
    number = np.ravel_multi_index(tuple(every.T), tuple(span)) if len(every) else np.zeros(0, np.int64)
    used, faces = np.unique(number, return_inverse=True)
    index = np.stack(np.unravel_index(used, tuple(span)), axis=-1)
    vertices = np.asarray([grid.x[0], grid.y[0], grid.z[0]]) + index * grid.cell
    return vertices, faces.reshape(-1, 4).astype(np.int32)


def _ply(points: Float64, grid: Grid, faces: NDArray[np.int32] | None = None) -> bytes:
    vertex = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows = np.empty(len(points), vertex)
    rows["xyz"] = points
    rows["rgb"] = height_colours(points[:, 2], -grid.y[1], -grid.y[0])
    lines = ["ply", "format binary_little_endian 1.0", f"comment {_COMMENT}", f"element vertex {len(points)}"]
    lines += [f"property float {name}" for name in "xyz"]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    body = rows.tobytes()
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        squares = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", "<i4", 4)]))
        squares["count"], squares["corners"] = 4, faces
        body += squares.tobytes()
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii") + body
