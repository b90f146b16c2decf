"""The description of one drive: what stands and moves where, as exact solids. Rendering and truth read only this."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.shapes import NAMES, inside, shape
from vipocc.data_manifests.synthetic.street import Street
from vipocc.errors import DataError
from vipocc.geometry.shapes import Float64

#: What an object can be; index 0 stands for the ground. Masks number objects from FIRST_OBJECT on.
LABELS = ("ground", "building", "vegetation", "car", "person", "pole", "sign", "fence", "bin")
SKY_ID, GROUND_ID, FIRST_OBJECT = 0, 1, 2


@dataclass(frozen=True)
class Part:
    """One solid of an object, in the object's frame (x forward, y left, z up)."""

    shape: str
    position: tuple[float, float, float]
    size: tuple[float, float, float]
    material: int | tuple[int, int, int]
    """One material, or one for each of the faces looking along x, y and z."""
    colour: tuple[float, float, float]
    """Linear RGB reflectance."""
    yaw: float = 0.0
    pitch: float = 0.0


@dataclass
class Builder:
    """Collects objects; `scene` freezes them into arrays."""

    rng: np.random.Generator
    frames: int
    parts: list[tuple[int, Part]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    poses: list[Float64] = field(default_factory=list)

    def add(self, label: str, pose: tuple[float, float, float, float] | Float64, parts: Sequence[Part]) -> int:
        """Add an object at (x, y, z, yaw), or moving with one such pose per frame [frames, 4]; return its number."""
        number = len(self.labels)
        self.labels.append(LABELS.index(label))
        self.poses.append(np.broadcast_to(np.asarray(pose, np.float64), (self.frames, 4)))
        self.parts += [(number, part) for part in parts]
        return number

    def scene(self, street: Street, look: dict[str, Any], world_from_imu: Float64, origin: Float64) -> Scene:
        """Return the scene; `origin` [3] is where the scene's origin lies in the world."""
        parts = [part for _, part in self.parts]
        cos_sin = np.array([[np.cos(p.yaw), np.sin(p.yaw), np.cos(p.pitch), np.sin(p.pitch)] for p in parts])
        cy, sy, cp, sp = cos_sin.T
        zero = np.zeros(len(parts))
        rotation = np.stack([cy * cp, -sy, cy * sp, sy * cp, cy, sy * sp, -sp, zero, cp], axis=1).reshape(-1, 3, 3)
        material = [p.material if isinstance(p.material, tuple) else (p.material,) * 3 for p in parts]
        poses = np.stack(self.poses)
        return Scene(
            street=street,
            look=look,
            origin=origin,
            world_from_imu=world_from_imu,
            shape=np.array([NAMES.index(p.shape) for p in parts], np.int8),
            rotation=rotation,
            position=np.array([p.position for p in parts]),
            size=np.array([p.size for p in parts]),
            material=np.array(material, np.int8),
            colour=np.array([p.colour for p in parts], np.float32),
            seed=self.rng.random(len(parts)).astype(np.float32),
            owner=np.array([number for number, _ in self.parts], np.int32),
            label=np.array(self.labels, np.int16),
            moving=np.any(poses != poses[:, :1], axis=(1, 2)),
            poses=poses,
        )


@dataclass(frozen=True)
class Scene:
    """One drive. Scene coordinates are metres with z up; world = scene + origin."""

    street: Street
    look: dict[str, Any]
    """Light and palette: `sun` direction, colours, haze."""
    origin: Float64
    world_from_imu: Float64
    """[frames, 4, 4] poses of the car, as its files print them."""
    shape: NDArray[np.int8]
    """[P] template of each solid, an index into shapes.NAMES."""
    rotation: Float64
    """[P, 3, 3] of the solid in its object's frame."""
    position: Float64
    """[P, 3]"""
    size: Float64
    """[P, 3] metres"""
    material: NDArray[np.int8]
    """[P, 3] by the local axis a face looks along."""
    colour: NDArray[np.float32]
    """[P, 3]"""
    seed: NDArray[np.float32]
    """[P]"""
    owner: NDArray[np.int32]
    """[P] number of the object that the solid belongs to."""
    label: NDArray[np.int16]
    """[O] index into LABELS."""
    moving: NDArray[np.bool_]
    """[O]"""
    poses: Float64
    """[O, frames, 4] x, y, z, yaw of each object."""

    @property
    def frames(self) -> int:
        """Number of frames of the drive."""
        return len(self.world_from_imu)

    def solids(self, frame: int, which: NDArray[np.int64] | slice = slice(None)) -> tuple[Float64, Float64]:
        """Return rotation [P, 3, 3] and position [P, 3] of every solid, or of some, in scene coordinates at a frame."""
        pose = self.poses[self.owner[which], frame]
        cos, sin, zero, one = np.cos(pose[:, 3]), np.sin(pose[:, 3]), np.zeros(len(pose)), np.ones(len(pose))
        turn = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)
        return turn @ self.rotation[which], (turn @ self.position[which][:, :, None])[..., 0] + pose[:, :3]

    def object_at(self, points: Float64, frame: int) -> NDArray[np.int32]:
        """Return whose solid each scene point [N, 3] lies in: an instance id, GROUND_ID, or SKY_ID for free space.

        Exact: the solids are the convex polyhedra that are rendered, the ground is solid below its surface.
        """
        found = np.where(self.street.below_ground(points), GROUND_ID, SKY_ID).astype(np.int32)
        rotation, position = self.solids(frame)
        radius = np.linalg.norm(self.size, axis=1) / 2
        low, high = points.min(0, initial=np.inf), points.max(0, initial=-np.inf)
        for i in np.flatnonzero(
            np.all((position > low - radius[:, None]) & (position < high + radius[:, None]), axis=1)
        ):
            near = np.flatnonzero(((points - position[i]) ** 2).sum(1) < radius[i] ** 2)
            if len(near):
                local = (points[near] - position[i]) @ rotation[i] / self.size[i]
                hit = near[inside(local, shape(NAMES[self.shape[i]]))]
                found[hit] = self.owner[i] + FIRST_OBJECT
        return found

    def box(self, number: int, frame: int) -> tuple[Float64, Float64, float]:
        """Return centre [3] (scene), size [3] and yaw of an object's 3D box, along its own axes, at a frame."""
        mine = np.flatnonzero(self.owner == number)
        points = np.concatenate(
            [
                (shape(NAMES[self.shape[i]]).vertices * self.size[i]) @ self.rotation[i].T + self.position[i]
                for i in mine
            ]
        )
        low, high = points.min(0), points.max(0)
        x, y, z, yaw = self.poses[number, frame]
        middle = (low + high) / 2
        cos, sin = np.cos(yaw), np.sin(yaw)
        centre = np.array([x + cos * middle[0] - sin * middle[1], y + sin * middle[0] + cos * middle[1], z + middle[2]])
        return centre, high - low, float(yaw)

    def to_bytes(self) -> bytes:
        """Return the scene as an .npz file; the same scene gives the same bytes."""
        static = self.poses[:, 0].copy()
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {"static_poses": static, "moving_poses": self.poses[self.moving]}
        arrays |= {f"street_{name}": np.asarray(value) for name, value in vars(self.street).items()}
        arrays["look"] = np.frombuffer(json.dumps(self.look, sort_keys=True).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path) -> Scene:
        """Read a scene that `to_bytes` wrote."""
        try:
            with np.load(path) as file:
                arrays = dict(file)
            street = {name: arrays.pop(f"street_{name}") for name in Street.__dataclass_fields__}
            scalars = {name: float(street[name]) for name in ("start", "half_width", "pavement")}
            look = json.loads(arrays.pop("look").tobytes())
            moving = arrays["moving"]
            poses = np.repeat(arrays.pop("static_poses")[:, None], len(arrays["world_from_imu"]), axis=1)
            poses[moving] = arrays.pop("moving_poses")
            return cls(street=Street(**(street | scalars)), look=look, poses=poses, **arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(
                "the scene description is unreadable", where=path, fix="generate the world again"
            ) from error


_ARRAYS = (
    *("origin", "world_from_imu", "shape", "rotation", "position", "size"),
    *("material", "colour", "seed", "owner", "label", "moving"),
)
