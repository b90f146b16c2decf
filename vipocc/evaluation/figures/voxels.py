"""Occupancy in three dimensions: the grid that pictures are drawn of, a painter of cubes, the view from the side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.occupancy import level_from_world
from vipocc.evaluation.figures.canvas import Axis, with_axes
from vipocc.geometry.poses import invert, transform_points
from vipocc.pictures import INK, PAPER, Image, write_text

Mask = NDArray[np.bool_]
_SHADES = {"top": 1.0, "near": 0.80, "side": 0.62}
_SHIFT = 4  # of OpenCV's fixed-point coordinates


@dataclass(frozen=True)
class VolumeGrid:
    """Cubes in the level frame of the key camera (x right, y down, z forward, turned 5 degrees from the camera's).

    Wider than the paper's cuboid, which ends at the kerb, and down into the road, 1.55 m below the camera.
    """

    x: tuple[float, float] = (-8.0, 8.0)
    y: tuple[float, float] = (-1.75, 1.75)
    z: tuple[float, float] = (4.0, 24.0)
    cell: float = 0.25

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along y, z and x; y from above to below, z from near to far, x from left to right."""
        counts = [round((high - low) / self.cell) for low, high in (self.y, self.z, self.x)]
        return counts[0], counts[1], counts[2]

    def level_points(self) -> NDArray[np.float64]:
        """Return the centres [n, 3] in the level frame, in the order of `shape`."""
        y, z, x = (
            low + (np.arange(n) + 0.5) * self.cell
            for (low, _), n in zip((self.y, self.z, self.x), self.shape, strict=True)
        )
        yy, zz, xx = np.meshgrid(y, z, x, indexing="ij")
        return np.stack([xx, yy, zz], axis=-1).reshape(-1, 3)

    def camera_points(self) -> NDArray[np.float32]:
        """Return the centres [n, 3] in the key camera's frame."""
        return transform_points(invert(level_from_world(np.eye(4))), self.level_points()).astype(np.float32)

    def in_image(self, intrinsics_ndc: NDArray[Any]) -> Mask:
        """Return which centres project into an image with normalised intrinsics [3, 3], as `shape`."""
        points = self.camera_points().astype(np.float64)
        at = points @ np.asarray(intrinsics_ndc, np.float64).T
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = (np.abs(at[:, :2] / at[:, 2:]) <= 1).all(axis=1)
        return np.asarray(inside & (points[:, 2] > 0)).reshape(self.shape)


VOLUME = VolumeGrid()


def voxel_view(
    occupied: Mask, volume: VolumeGrid = VOLUME, size: tuple[int, int] = (360, 560), azimuth: float = 32.0,
    elevation: float = 30.0,
) -> Image:  # fmt: skip
    """Draw cubes coloured by height, low dark and high bright, seen from behind the camera, from the right and above.

    Orthographic and exact: cells are painted from the far end of every axis to the near one, and on an axis-aligned
    grid a cell that hides another always comes later in that order.

    Args:
        occupied: [ny, nz, nx] in the order of `VolumeGrid.shape`.
        volume: where the cells are.
        size: height and width of the picture; the grid fills it.
        azimuth: degrees to the right, 0 < azimuth < 90.
        elevation: degrees above the horizon, 0 < elevation < 90.
    """
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.array([np.cos(a), 0.0, np.sin(a)])
    up = np.array([-np.sin(e) * np.sin(a), -np.cos(e), np.sin(e) * np.cos(a)])
    corners = np.array([[x, y, z] for x in volume.x for y in volume.y for z in volume.z])
    flat = np.stack([corners @ right, -(corners @ up)], axis=1)
    low, high = flat.min(axis=0), flat.max(axis=0)
    room = np.array([size[1] - 24, size[0] - 40])
    scale = float((room / (high - low)).min())
    offset = np.array([12, 8]) + (room - scale * (high - low)) / 2 - scale * low

    def project(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.stack([points @ right, -(points @ up)], axis=-1) * scale + offset)

    # Twice as large, then averaged: the edges of cubes are smooth.
    canvas = np.full((2 * size[0], 2 * size[1], 3), PAPER, np.uint8)
    _base(canvas, volume, project)
    ny = occupied.shape[0]
    levels = np.rint(np.linspace(235, 10, ny)).astype(np.uint8)[:, None]
    palette = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1].astype(np.float64)
    cells = np.argwhere(occupied)
    cells = cells[np.lexsort((-cells[:, 0], cells[:, 2], -cells[:, 1]))]
    padded = np.pad(occupied, 1)
    c = volume.cell
    start = np.array([volume.x[0], volume.y[0], volume.z[0]])
    # Corners of the three faces that can be seen, in cells from a cube's least corner.
    faces = {
        "near": ((0, 0, -1), np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])),
        "side": ((1, 0, 0), np.array([[1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]])),
        "top": ((0, -1, 0), np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]])),
    }
    line = max(1, round(c * scale / 6))
    places = project(start + c * cells[:, [2, 0, 1]].astype(np.float64))
    polygons, colours, order = [], [], []
    for number, (name, ((dx, dy, dz), corner)) in enumerate(faces.items()):
        exposed = ~padded[cells[:, 0] + 1 + dy, cells[:, 1] + 1 + dz, cells[:, 2] + 1 + dx]
        shape = project(c * corner.astype(np.float64)) - project(np.zeros((1, 3)))
        polygons.append(places[exposed, None] + shape)
        colours.append(palette[cells[exposed, 0]] * _SHADES[name])
        order.append(np.flatnonzero(exposed) * len(faces) + number)
    turn = np.argsort(np.concatenate(order))
    points = np.rint(np.concatenate(polygons)[turn] * 2 * (1 << _SHIFT)).astype(np.int32)
    fills = np.concatenate(colours)[turn]
    for polygon, fill, edge in zip(points, fills.tolist(), (0.72 * fills).tolist(), strict=True):
        cv2.fillConvexPoly(canvas, polygon, fill, cv2.LINE_8, _SHIFT)
        if c * scale >= 2.5:
            cv2.polylines(canvas, [polygon], True, edge, line, cv2.LINE_8, _SHIFT)
    picture = np.asarray(cv2.resize(canvas, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.uint8)
    _metres(picture, volume, project)
    return picture


def side_view(occupied: Mask, volume: VolumeGrid = VOLUME, half_width: float = 4.0, scale: int = 5) -> Image:
    """Draw occupancy from the side, forward to the right: the darker, the more of the width is occupied there.

    Args:
        occupied: [ny, nz, nx] in the order of `VolumeGrid.shape`.
        volume: where the cells are.
        half_width: only cells this near to the middle in metres count.
        scale: pixels a cell.
    """
    x = volume.x[0] + (np.arange(occupied.shape[2]) + 0.5) * volume.cell
    share = occupied[:, :, np.abs(x) < half_width].mean(axis=2)
    level = np.rint(255 * (1 - share)).astype(np.uint8)
    colours = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_BONE)[..., ::-1], np.uint8)
    picture = np.repeat(np.repeat(colours, scale, axis=0), scale, axis=1)
    height = Axis(-volume.y[0], -volume.y[1], 1.0, "height (m)")
    return with_axes(picture, Axis(*volume.z, 4.0, f"ahead (m), |x| < {half_width:g} m"), height)


def _base(canvas: Image, volume: VolumeGrid, project: Any) -> None:
    """Draw the floor of the grid with a line every four metres."""
    bottom = volume.y[1]
    floor = np.array([[x, bottom, z] for x, z in _round_the_floor(volume)])
    points = np.rint(project(floor) * 2 * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(canvas, [points], (238, 240, 242), cv2.LINE_AA, _SHIFT)
    for z in np.arange(volume.z[0], volume.z[1] + 1e-6, 4.0):
        ends = project(np.array([[volume.x[0], bottom, z], [volume.x[1], bottom, z]]))
        first, last = (np.rint(ends * 2 * (1 << _SHIFT)).astype(int)).tolist()
        cv2.line(canvas, first, last, (206, 210, 214), 2, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, [points], True, (170, 175, 180), 2, cv2.LINE_AA, _SHIFT)


def _metres(picture: Image, volume: VolumeGrid, project: Any) -> None:
    """Write how far ahead the lines of the floor are, along its right edge, and how wide it is."""
    for z in np.arange(volume.z[0], volume.z[1] + 1e-6, 4.0):
        x, y = project(np.array([[volume.x[1], volume.y[1], z]]))[0]
        write_text(picture, f"{z:g} m", (round(x) + 5, round(y) + 8), 0.34)
    x, y = project(np.array([[0.0, volume.y[1], volume.z[0]]]))[0]
    write_text(picture, f"{volume.x[1] - volume.x[0]:g} m wide", (round(x), round(y) + 22), 0.34, "middle", INK)


def _round_the_floor(volume: VolumeGrid) -> list[tuple[float, float]]:
    (x0, x1), (z0, z1) = volume.x, volume.z
    return [(x0, z0), (x1, z0), (x1, z1), (x0, z1)]
