"""Unit solids that everything in the world is built of: convex polyhedra, so that inside and outside are exact.

A template fits in the cube [-0.5, 0.5]^3; a primitive scales it by its size in metres and moves it by a rigid pose.
The rendered mesh and the half-spaces of the inside test are the same polyhedron.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import trimesh
from numpy.typing import NDArray

SIDE_X, SIDE_Y, SIDE_Z = 0, 1, 2


@dataclass(frozen=True)
class Shape:
    """A convex polyhedron in the unit cube."""

    vertices: NDArray[np.float64]
    """[V, 3]"""
    faces: NDArray[np.int64]
    """[F, 3] triangles, counter-clockwise from outside."""
    normals: NDArray[np.float64]
    """[F, 3, 3] unit normals at the corners of each face (equal where the solid is faceted)."""
    group: NDArray[np.int64]
    """[F] the local axis that the face looks along most: 0 x, 1 y, 2 z. Materials are given per group."""
    planes: NDArray[np.float64]
    """[Q, 4] half-spaces: inside where planes[:, :3] @ x + planes[:, 3] <= 0 for all."""


def _shape(mesh: trimesh.Trimesh, *, smooth: str = "none") -> Shape:
    vertices = np.asarray(mesh.vertices, np.float64)
    faces = np.asarray(mesh.faces, np.int64)
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    outward = np.sign(np.sum(flat * (corners.mean(1) - vertices.mean(0)), axis=1))
    flat *= outward[:, None]
    faces = np.where(outward[:, None] > 0, faces, faces[:, ::-1])
    normals = np.repeat(flat[:, None], 3, axis=1)
    if smooth == "ball":
        normals = vertices[faces] * 2.0
    elif smooth == "side":
        round_face = np.abs(flat[:, 2]) < 0.5
        radial = vertices[faces] * (1.0, 1.0, 0.0)
        radial /= np.maximum(np.linalg.norm(radial, axis=2, keepdims=True), 1e-9)
        normals = np.where(round_face[:, None, None], radial, normals)
    offset = -np.sum(flat * corners[:, 0], axis=1)
    planes = np.unique(np.round(np.concatenate([flat, offset[:, None]], axis=1), 9), axis=0)
    return Shape(vertices, faces, normals, np.argmax(np.abs(flat), axis=1), planes)


def _profile(points: list[tuple[float, float]]) -> trimesh.Trimesh:
    """Extrude a convex polygon of (x, z) along y."""
    xz = np.array(points)
    n = len(xz)
    ends = [np.insert(xz, 1, y, axis=1) for y in (-0.5, 0.5)]
    faces = [[0, i, i + 1] for i in range(1, n - 1)] + [[n, n + i, n + i + 1] for i in range(1, n - 1)]
    for i in range(n):
        j = (i + 1) % n
        faces += [[i, j, n + j], [i, n + j, n + i]]
    return trimesh.Trimesh(np.concatenate(ends), faces, process=False)


def _frustum(front: float, back: float, side: float) -> trimesh.Trimesh:
    """A box whose top is drawn in by shares of its length at +x and -x, and of its width at either side."""
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    vertices = np.array(box.vertices)
    top = vertices[:, 2] > 0
    vertices[top & (vertices[:, 0] > 0), 0] -= front
    vertices[top & (vertices[:, 0] < 0), 0] += back
    vertices[top, 1] *= 1.0 - 2.0 * side
    return trimesh.Trimesh(vertices, box.faces, process=False)


def _ball() -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(subdivisions=1, radius=0.5)
    return trimesh.Trimesh(ball.vertices, ball.faces, process=False)


#: Names in the order of the ids that scene files hold.
NAMES = ("box", "cylinder", "ball", "gable", "car_body", "cabin", "van_cabin", "wheel", "torso")


@cache
def shape(name: str) -> Shape:
    """Return a template by name."""
    match name:
        case "box":
            return _shape(trimesh.creation.box((1.0, 1.0, 1.0)))
        case "cylinder":
            return _shape(trimesh.creation.cylinder(radius=0.5, height=1.0, sections=12), smooth="side")
        case "ball":
            return _shape(_ball(), smooth="ball")
        case "gable":  # ridge along x
            roof = _profile([(-0.5, -0.5), (0.5, -0.5), (0.0, 0.5)])
            turn = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
            return _shape(trimesh.Trimesh(np.asarray(roof.vertices) @ turn.T, roof.faces, process=False))
        case "car_body":  # bonnet at +x, boot at -x
            outline = [(-0.47, -0.5), (0.47, -0.5), (0.5, -0.2), (0.49, 0.12), (0.44, 0.3), (0.18, 0.5), (-0.44, 0.5)]
            return _shape(_profile([*outline, (-0.5, 0.1), (-0.5, -0.25)]))
        case "cabin":
            return _shape(_frustum(0.2, 0.1, 0.1))
        case "van_cabin":
            return _shape(_frustum(0.1, 0.02, 0.05))
        case "wheel":  # axle along y
            tyre = trimesh.creation.cylinder(radius=0.5, height=1.0, sections=14)
            turn = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
            return _shape(trimesh.Trimesh(np.asarray(tyre.vertices) @ turn.T, tyre.faces, process=False))
        case "torso":
            return _shape(_profile([(-0.35, -0.5), (0.35, -0.5), (0.5, 0.3), (0.3, 0.5), (-0.3, 0.5), (-0.5, 0.3)]))
    raise KeyError(name)


def inside(points: NDArray[np.float64], template: Shape) -> NDArray[np.bool_]:
    """Return which of `points` [N, 3] in the template's own frame lie in the solid."""
    result: NDArray[np.bool_] = np.all(points @ template.planes[:, :3].T + template.planes[:, 3] <= 0.0, axis=1)
    return result
