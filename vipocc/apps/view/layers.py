"""Layers from arrays: cells by height, LiDAR, pseudo-depth, boxes, cameras. Everything in the level frame, metres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.apps.view.scene import Colours, Cubes, Float, Lines, Picture, Points, surface
from vipocc.geometry.poses import transform_points
from vipocc.pictures import FREE, HIDDEN_FREE, INVENTED, MISSED, OCCUPIED, height_colours

LOWEST, HIGHEST = 1.7, -2.5
"""Values of y between which colours by height run: the road, and well above a car."""
RIGHT = (94, 140, 106)
FRUSTUM = 0.8
"""Metres from a camera's centre to the picture that it holds."""


def colours_above_road(points: Float) -> Colours:
    """Return colours [N, 3] of points [N, 3] by height above the road, the same in every scene."""
    return height_colours(-points[:, 1], -LOWEST, -HIGHEST)


def cells(name: str, occupied: NDArray[np.bool_], centres: Float, cell: float, **about: Any) -> Cubes:
    """Return the occupied cells of a grid that can be seen, coloured by height.

    Args:
        name: of the layer.
        occupied: [X, Y, Z].
        centres: [X, Y, Z, 3].
        cell: metres along an edge.
        about: `shown`, `note`.
    """
    chosen = centres[surface(occupied)]
    return Cubes(name, chosen, colours_above_road(chosen), (cell, cell, cell), **about)


def differences(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], judged: NDArray[np.bool_], centres: Float, cell: float
) -> Cubes:
    """Return where a prediction and the truth agree on occupied, and where they do not, on the cells `judged`."""
    kinds = (
        (predicted & truth & judged, RIGHT),
        (~predicted & truth & judged, MISSED),
        (predicted & ~truth & judged, INVENTED),
    )
    chosen = [(centres[where & surface(where)], colour) for where, colour in kinds]
    colours = np.concatenate([np.tile(np.array(colour, np.uint8), (len(some), 1)) for some, colour in chosen])
    return Cubes(
        "errors",
        np.concatenate([some for some, _ in chosen]),
        colours,
        (cell, cell, cell),
        shown=False,
        note="green: right, red: missed, yellow: invented",
    )


def slice_tiles(occupied: NDArray[np.bool_], visible: NDArray[np.bool_], centres: Float, shown: bool) -> Cubes:
    """Return the ground truth of a slice as flat tiles: dark occupied, light free, blue free but hidden.

    occupied, visible: [rows, columns]; centres [rows, columns, 3].
    """
    colours = np.where(visible[..., None], np.array(FREE, np.uint8), np.array(HIDDEN_FREE, np.uint8))
    colours[occupied & ~visible] = OCCUPIED
    return Cubes(
        "ground truth slice",
        centres.reshape(-1, 3),
        np.ascontiguousarray(colours.reshape(-1, 3).astype(np.uint8)),
        (float(centres[0, 1, 0] - centres[0, 0, 0]), 0.02, float(abs(centres[1, 0, 2] - centres[0, 0, 2]))),
        shown=shown,
        note="dark: occupied, blue: free but hidden, light: free and seen",
    )


def lidar(points: Float, level_from_lidar: Float) -> Points:
    """Return a sweep [N, 3] of the LiDAR's frame, coloured by height."""
    level = transform_points(level_from_lidar, points.astype(np.float64))
    return Points("LiDAR", level, colours_above_road(level))


def depth_points(
    name: str, depth: Float, image: NDArray[np.uint8], intrinsics: Float, level_from_camera: Float, step: int = 2
) -> Points:
    """Return a depth map [H, W] as points in the image's colours, every `step`-th row and column, up to 80 m.

    intrinsics: [3, 3] in pixels, pixel centres at whole numbers.
    """
    v, u = np.mgrid[0 : depth.shape[0] : step, 0 : depth.shape[1] : step]
    z = depth[v, u].astype(np.float64)
    good = np.isfinite(z) & (z > 0) & (z < 80.0)
    rays = np.stack([u[good], v[good], np.ones(int(good.sum()))], axis=1) @ np.linalg.inv(intrinsics).T
    points = transform_points(level_from_camera, rays * z[good][:, None])
    return Points(name, points, np.ascontiguousarray(image[v[good], u[good]]), shown=False)


def boxes(level_from_box: Sequence[tuple[Float, Float]]) -> Lines:
    """Return the edges of boxes, each a pose [4, 4] in the level frame and sizes [3]."""
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    edges = [(a, b) for a in range(8) for b in range(a + 1, 8) if np.count_nonzero(signs[a] != signs[b]) == 1]
    ends = [transform_points(pose, signs * size)[np.array(edges)] for pose, size in level_from_box]
    return Lines("boxes", np.concatenate(ends) if ends else np.zeros((0, 2, 3)), (214, 96, 60), shown=False)


def camera_corners(intrinsics: Float, size: tuple[int, int], level_from_camera: Float) -> Float:
    """Return the corners [4, 3] of a camera's picture, `FRUSTUM` metres in front of it.

    intrinsics: [3, 3] in pixels, pixel centres at whole numbers; size: (height, width).
    """
    left, top, right, bottom = -0.5, -0.5, size[1] - 0.5, size[0] - 0.5
    corners = np.array([[left, top, 1.0], [right, top, 1.0], [right, bottom, 1.0], [left, bottom, 1.0]])
    rays = corners @ np.linalg.inv(intrinsics).T
    return transform_points(level_from_camera, rays * FRUSTUM)


def cameras(every: Sequence[tuple[Float, Float]]) -> Lines:
    """Return the outlines of cameras, each its centre [3] and its picture's corners [4, 3]."""
    ends = []
    for centre, corners in every:
        ends += [np.stack([centre, corner]) for corner in corners]
        ends += [np.stack([corners[i], corners[(i + 1) % 4]]) for i in range(4)]
    return Lines("cameras", np.stack(ends) if ends else np.zeros((0, 2, 3)), (43, 108, 176))


def picture(image: NDArray[np.uint8], corners: Float) -> Picture:
    """Return the image in its camera."""
    return Picture("image", image, corners)
