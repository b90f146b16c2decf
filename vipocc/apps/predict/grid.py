"""The voxels that occupancy is asked for: a cuboid in the level frame of the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.occupancy import level_from_world
from vipocc.errors import UsageError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.poses import invert, transform_points
from vipocc.geometry.shapes import Float64

MOST_CELLS = 30_000_000
"""About 1 GB of points, densities and what the network makes of them at a time."""
Range = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """Cubes of side `cell`; by default the paper's cuboid (supplement: 8 m wide, 1 m high, 4 to 20 m ahead).

    The level frame has the camera's centre as its origin, x right, y down, z forward; the camera looks `tilt` degrees
    down in it. KITTI-360's does so by 5 degrees (published_system.md 7.1).
    """

    x: Range = (-4.0, 4.0)
    y: Range = (0.0, 1.0)
    z: Range = (4.0, 20.0)
    cell: float = 0.1
    tilt: float = 5.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cell) and self.cell > 0):
            raise UsageError(f"--cell must be a positive length in metres, not {self.cell}")
        if not -90.0 < self.tilt < 90.0:
            raise UsageError(f"--tilt must be an angle between -90 and 90 degrees, not {self.tilt}")
        for name in ("x", "y", "z"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(f"--{name} must be two lengths in metres, the smaller first, not {low} {high}")
            count = (high - low) / self.cell
            if count < 0.999 or abs(count - round(count)) > 1e-6 * max(1.0, count):
                raise UsageError(
                    f"--{name} {low:g} {high:g} is no whole number of cells of {self.cell:g} m",
                    fix="change --cell or the range",
                )
        if self.cells > MOST_CELLS:
            raise UsageError(
                f"the grid has {self.cells:,} cells, the most is {MOST_CELLS:,}", fix="use a larger --cell or ranges"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along x, y and z."""
        counts = [round((high - low) / self.cell) for low, high in (self.x, self.y, self.z)]
        return counts[0], counts[1], counts[2]

    @property
    def cells(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def centres(self) -> tuple[Float64, Float64, Float64]:
        """Return the coordinates of the cells' centres along x, y and z, in metres."""
        x, y, z = (
            np.asarray(low + (np.arange(count) + 0.5) * self.cell, np.float64)
            for (low, _), count in zip((self.x, self.y, self.z), self.shape, strict=True)
        )
        return x, y, z

    @property
    def camera_from_grid(self) -> Float64:
        """[4, 4], from the level frame to the camera's."""
        return np.asarray(invert(level_from_world(np.eye(4), self.tilt)))

    def points(self) -> NDArray[np.float32]:
        """Return the cells' centres in the camera's frame, [cells, 3], z fastest, then y, then x."""
        x, y, z = np.meshgrid(*self.centres(), indexing="ij")
        stacked = np.stack([x, y, z], axis=-1).reshape(-1, 3)
        return np.asarray(transform_points(self.camera_from_grid, stacked), np.float32)

    def in_view(self, camera: Pinhole, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return bool [nx, ny, nz]: cells whose centre falls on a pixel of the view that the picture shows.

        Others were never looked at: what is predicted there is the network's guess from the border.
        """
        pixels = camera.project(self.points().astype(np.float64))
        at = np.nan_to_num(np.rint(pixels), nan=-1.0, posinf=-1.0, neginf=-1.0)
        inside = (at >= 0).all(-1) & (at[:, 0] < camera.width) & (at[:, 1] < camera.height)
        found = np.zeros(len(at), np.bool_)
        column, row = at[inside].astype(np.intp).T
        found[inside] = seen[row, column]
        return found.reshape(self.shape)

    def describe(self) -> dict[str, Any]:
        """Return the grid as JSON values."""
        return {
            "frame": "level frame of the camera: origin at its centre, x right, y down, z forward, metres; the camera "
            f"looks {self.tilt:g} degrees down in it",
            "x": list(self.x), "y": list(self.y), "z": list(self.z), "cell": self.cell, "tilt_degrees": self.tilt,
            "shape": list(self.shape),
            "index": "[i, j, k] is the cell with centre (x[i], y[j], z[k])",
            "camera_from_grid": self.camera_from_grid.tolist(),
        }  # fmt: skip
