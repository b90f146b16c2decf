"""From solids to triangles with everything that shading needs per face, and casting rays at them with Embree."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.materials import Float32, Material
from vipocc.data_manifests.synthetic.scene import FIRST_OBJECT, GROUND_ID, LABELS, Scene
from vipocc.data_manifests.synthetic.shapes import NAMES, shape

#: Texture axes (u, v) of faces that look along x, y and z.
_AXES = np.array([[1, 2], [0, 2], [0, 1]])


@dataclass(frozen=True)
class Faces:
    """Triangles in scene coordinates and their attributes."""

    corners: Float32
    """[F, 3, 3]"""
    normals: Float32
    """[F, 3, 3] shading normals at the corners."""
    texture: Float32
    """[F, 2, 4] u and v in metres as affine functions of the point."""
    extent: Float32
    """[F, 2] size in metres of the solid's side along u and v."""
    colour: Float32
    """[F, 3]"""
    material: NDArray[np.int16]
    """[F]"""
    seed: Float32
    """[F]"""
    instance: NDArray[np.uint16]
    """[F] id in the instance masks."""

    def joined(self, other: Faces) -> Faces:
        """Return both, these first."""
        return Faces(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


def solid_faces(scene: Scene, frame: int, moving: bool) -> Faces:
    """Return the faces of the objects that move, or of those that never do."""
    wanted = np.flatnonzero(scene.moving[scene.owner] == moving)
    rotation, position = scene.solids(frame, wanted)
    owner = scene.owner[wanted]
    instance = np.where(scene.label[owner] == LABELS.index("ground"), GROUND_ID, owner + FIRST_OBJECT)
    pieces: list[tuple[Any, ...]] = []
    for kind, name in enumerate(NAMES):
        template = shape(name)
        some = np.flatnonzero(scene.shape[wanted] == kind)
        which = wanted[some]
        turn, at, size = rotation[some], position[some], scene.size[which]
        count, faces = len(which), len(template.faces)
        vertices = np.einsum("pij,pvj->pvi", turn, template.vertices * size[:, None]) + at[:, None]
        normals = np.einsum("pij,pfcj->pfci", turn, template.normals / size[:, None, None])
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        axes = _AXES[template.group]
        linear = np.swapaxes(turn, 1, 2)[:, axes]  # rows of the inverse rotation, [P, F, 2, 3]
        offset = -np.einsum("pfki,pi->pfk", linear, at)
        upright = template.group != 2
        offset[:, upright, 1] += size[:, None, 2] / 2
        repeat = np.repeat(np.arange(count), faces)
        pieces.append(
            (
                vertices[:, template.faces].reshape(-1, 3, 3),
                normals.reshape(-1, 3, 3),
                np.concatenate([linear, offset[..., None]], axis=-1).reshape(-1, 2, 4),
                size[:, axes].reshape(-1, 2),
                scene.colour[which][repeat],
                scene.material[which][:, template.group].reshape(-1),
                scene.seed[which][repeat],
                instance[some][repeat],
            )
        )
    columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    return _faces(*columns)


def ground_faces(scene: Scene) -> Faces:
    """Return the faces of the ground."""
    corners, material, uv = scene.street.ground()
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(edge_1, edge_2)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    # The gradient of u within the plane: a dot edge_k = difference of u along edge_k, a dot normal = 0.
    basis = np.stack([edge_1, edge_2, normal], axis=1)
    differences = np.stack([uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0], np.zeros_like(uv[:, 0])], axis=1)
    gradient = np.swapaxes(np.linalg.solve(basis, differences), 1, 2)
    offset = uv[:, 0] - np.einsum("fki,fi->fk", gradient, corners[:, 0])
    palette = np.zeros((len(Material), 3))
    for kind, key in ((Material.ASPHALT, "asphalt"), (Material.PAVEMENT, "pavement"), (Material.GRASS, "grass")):
        palette[kind] = scene.look[key]
    palette[Material.KERB] = np.asarray(scene.look["pavement"]) * 1.15
    count = len(corners)
    return _faces(
        corners,
        np.repeat(normal[:, None], 3, axis=1),
        np.concatenate([gradient, offset[..., None]], axis=-1),
        np.ones((count, 2)),
        palette[material],
        material,
        np.full(count, 0.37),
        np.full(count, GROUND_ID),
    )


def _faces(
    corners: Any, normals: Any, texture: Any, extent: Any, colour: Any, material: Any, seed: Any, instance: Any
) -> Faces:
    def small(array: Any) -> Float32:
        return np.ascontiguousarray(array, np.float32)

    return Faces(
        corners=small(corners),
        normals=small(normals),
        texture=small(texture),
        extent=small(extent),
        colour=small(colour),
        material=np.asarray(material, np.int16),
        seed=small(seed),
        instance=np.asarray(instance, np.uint16),
    )


@dataclass(frozen=True)
class Hits:
    """Where rays met the scene."""

    distance: Float32
    """[N] in units of the ray's direction vector; inf where nothing was met."""
    face: NDArray[np.int32]
    """[N] index into the faces, -1 where nothing was met."""
    weights: Float32
    """[N, 2] barycentric weights of the second and third corner."""

    def joined(self, other: Hits) -> Hits:
        """Return both, these first."""
        return Hits(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


class World:
    """The scene at one frame, ready for rays. What never moves is built once and shared between frames."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        still = ground_faces(scene).joined(solid_faces(scene, 0, moving=False))
        self._still_tree = _tree(still.corners)
        self._still_count = len(still.corners)
        self._moving_tree: EmbreeScene | None = None
        self._frame = 0
        moving = solid_faces(scene, 0, moving=True)
        self.faces = still.joined(moving)
        """All faces; those that move come last and are overwritten from frame to frame."""
        if len(moving.corners):
            self._moving_tree = _tree(moving.corners)

    def at(self, frame: int) -> World:
        """Move everything to where it is at `frame`."""
        if frame != self._frame and self._moving_tree is not None:
            moving = solid_faces(self.scene, frame, moving=True)
            for column in fields(moving):
                getattr(self.faces, column.name)[self._still_count :] = getattr(moving, column.name)
            self._moving_tree = _tree(moving.corners)
        self._frame = frame
        return self

    def cast(self, origins: Float32, directions: Float32) -> Hits:
        """Return the first hit of each ray; origins [N, 3] or [3], directions [N, 3] of any length."""
        origins = np.ascontiguousarray(np.broadcast_to(origins, directions.shape), np.float32)
        found = self._still_tree.run(origins, directions, output=True)
        face = found["primID"].astype(np.int32)
        distance = np.where(face >= 0, found["tfar"], np.inf).astype(np.float32)
        weights = np.stack([found["u"], found["v"]], axis=1)
        if self._moving_tree is not None:
            other = self._moving_tree.run(origins, directions, output=True)
            nearer = np.flatnonzero((other["primID"] >= 0) & (other["tfar"] < distance))
            face[nearer] = other["primID"][nearer] + self._still_count
            distance[nearer] = other["tfar"][nearer]
            weights[nearer] = np.stack([other["u"][nearer], other["v"][nearer]], axis=1)
        return Hits(distance, face, weights)

    def blocked(self, origins: Float32, directions: Float32, reach: Float32 | None = None) -> NDArray[np.bool_]:
        """Return whether anything lies within `reach` [N] direction lengths of each origin, by default at all."""
        origins = np.ascontiguousarray(np.broadcast_to(origins, directions.shape), np.float32)
        options: dict[str, Any] = {"query": "OCCLUDED"}
        if reach is not None:
            options["dists"] = np.ascontiguousarray(reach, np.float32)
        blocked = np.asarray(self._still_tree.run(origins, directions, **options) == 0)
        if self._moving_tree is not None:
            blocked |= np.asarray(self._moving_tree.run(origins, directions, **options) == 0)
        return blocked


def _tree(corners: Float32) -> EmbreeScene:
    tree = EmbreeScene()
    count = len(corners)
    TriangleMesh(tree, corners.reshape(-1, 3), np.arange(3 * count, dtype=np.int32).reshape(-1, 3))
    return tree
