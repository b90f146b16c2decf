"""The exact truth of a synthetic world: depth, instances, boxes, occupancy and visibility, with no estimate in it.

For evaluation under the protocol `exact` and for simulated priors only; training never opens it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.drive import scene_path, truth_path, unpack_truth
from vipocc.data_manifests.synthetic.generate import FIRST_FRAME, read_config
from vipocc.data_manifests.synthetic.materials import Float32
from vipocc.data_manifests.synthetic.mesh import World
from vipocc.data_manifests.synthetic.rig import STEREO, rig
from vipocc.data_manifests.synthetic.scene import FIRST_OBJECT, GROUND_ID, LABELS, SKY_ID, Scene
from vipocc.errors import DataError, MissingInputError
from vipocc.geometry.poses import rotation_x
from vipocc.geometry.shapes import Float64

#: The slice grid of published_system.md 7.1, in the level frame of camera 0: x right, y down, z forward; row 0 is far.
SLICE_X = np.linspace(-4.0, 4.0, 80)
SLICE_Z = np.linspace(20.0, 4.0, 160)
SLICE_Y = 0.375
_LEVEL_FROM_CAMERA = rotation_x(np.deg2rad(-5.0))


@dataclass(frozen=True)
class Box3D:
    """A 3D box in world coordinates (z up)."""

    centre: Float64
    """[3] metres"""
    size: Float64
    """[3] along the object's own forward, left and up"""
    yaw: float
    """Radians about z from the world's x axis to the object's forward."""

    @property
    def corners(self) -> Float64:
        """[8, 3] corners in world coordinates."""
        signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        return np.asarray(signs * self.size @ turn.T + self.centre)


@dataclass(frozen=True)
class Instance:
    """An object; instance ids are unique and stable within a drive."""

    id: int
    label: str
    moving: bool
    area: int
    """Pixels of the mask that show it; 0 where it is not looked for in a picture."""
    box: Box3D | None
    """None for the ground."""


class SliceTruth(NamedTuple):
    """Truth on the slice grid, [160, 80] each."""

    occupied: NDArray[np.bool_]
    """Whether the point lies inside a solid."""
    visible: NDArray[np.bool_]
    """Whether nothing lies between camera 0 and the point."""


class ExactTruth:
    """Reads the truth of the synthetic world at `root`; sequences and frame ids as in its manifest."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.config = read_config(self.root)
        self.rig = rig(self.config.scale)
        self._load_scene = lru_cache(maxsize=4)(self._read_scene)
        self._load_world = lru_cache(maxsize=1)(lambda sequence: World(self.scene(sequence)))

    def depth(self, sequence: str, camera: str, frame_id: int) -> Float32:
        """Return metres along the optical axis at each pixel's centre [H, W]; inf where the sky is seen.

        Within 2^-17 relative of the ray caster's float32. Stereo cameras only.
        """
        return self._picture(sequence, camera, frame_id)[0]

    def instances(self, sequence: str, camera: str, frame_id: int) -> tuple[NDArray[np.uint16], list[Instance]]:
        """Return ids [H, W] (0 sky, 1 ground, then objects) and the objects that the picture shows, by id."""
        ids = self._picture(sequence, camera, frame_id)[1]
        area = np.bincount(ids.ravel())
        shown = [int(i) for i in np.flatnonzero(area) if i != SKY_ID]
        return ids, [self._instance(sequence, frame_id, i, int(area[i])) for i in shown]

    def boxes(self, sequence: str, frame_id: int, moving_only: bool = False) -> list[Instance]:
        """Return all objects of the drive with their boxes at a frame's time; `area` is 0."""
        scene = self.scene(sequence)
        numbers = np.flatnonzero(scene.moving) if moving_only else range(len(scene.label))
        found = [self._instance(sequence, frame_id, int(n) + FIRST_OBJECT, 0) for n in numbers]
        return [one for one in found if one.label != "ground"]

    def occupancy_at(self, points: NDArray[np.floating], sequence: str, frame_id: int) -> NDArray[np.bool_]:
        """Return whether world points [..., 3] lie inside a solid or below the ground at a frame's time."""
        return np.asarray(self.instance_at(points, sequence, frame_id) != SKY_ID)

    def instance_at(self, points: NDArray[np.floating], sequence: str, frame_id: int) -> NDArray[np.int32]:
        """Return whose solid world points [..., 3] lie in: an instance id, 1 below the ground, 0 in free space."""
        scene = self.scene(sequence)
        flat = np.asarray(points, np.float64).reshape(-1, 3) - scene.origin
        return scene.object_at(flat, self._row(sequence, frame_id)).reshape(np.shape(points)[:-1])

    def visible_at(
        self, points: NDArray[np.floating], sequence: str, frame_id: int, camera: str = "image_00"
    ) -> NDArray[np.bool_]:
        """Return whether the segment from a camera's centre to world points [..., 3] is free of surfaces.

        The camera's field of view is not considered.
        """
        scene, world = self.scene(sequence), self.world(sequence, frame_id)
        origin = self.world_from_camera(sequence, frame_id, camera)[:3, 3] - scene.origin
        towards = np.ascontiguousarray(
            np.asarray(points, np.float64).reshape(-1, 3) - scene.origin - origin, np.float32
        )
        blocked = world.blocked(origin.astype(np.float32), towards, np.ones(len(towards), np.float32))
        return ~blocked.reshape(np.shape(points)[:-1])

    def occupancy(self, sequence: str, frame_id: int) -> SliceTruth:
        """Return exact occupancy and visibility on the slice grid of a frame [160, 80]."""
        points = self.slice_points(sequence, frame_id)
        return SliceTruth(self.occupancy_at(points, sequence, frame_id), self.visible_at(points, sequence, frame_id))

    def slice_objects(self, sequence: str, frame_id: int) -> NDArray[np.int32]:
        """Return instance ids on the slice grid [160, 80], 0 in free space, 1 below the ground."""
        return self.instance_at(self.slice_points(sequence, frame_id), sequence, frame_id)

    def slice_points(self, sequence: str, frame_id: int) -> Float64:
        """Return the slice grid of a frame in world coordinates [160, 80, 3] (published_system.md 7.1).

        The level frame is camera 0's, turned by 5 degrees to be parallel to the road; the plane is y = 0.375 m.
        """
        x, z = np.meshgrid(SLICE_X, SLICE_Z)
        level = np.stack([x, np.full_like(x, SLICE_Y), z], axis=-1)
        pose = self.world_from_camera(sequence, frame_id, STEREO[0])
        return np.asarray(level @ _LEVEL_FROM_CAMERA @ pose[:3, :3].T + pose[:3, 3])

    def world_from_camera(self, sequence: str, frame_id: int, camera: str) -> Float64:
        """Return the 4x4 pose of a rectified stereo camera or a raw fisheye."""
        pose = self.scene(sequence).world_from_imu[self._row(sequence, frame_id)]
        return np.asarray(pose @ self.rig.imu_from_camera[camera])

    def world(self, sequence: str, frame_id: int) -> World:
        """Return the drive at a frame's time, ready for rays; the next call moves it on."""
        return self._load_world(sequence).at(self._row(sequence, frame_id))

    def scene(self, sequence: str) -> Scene:
        """Return the description of a drive."""
        return self._load_scene(sequence)

    def _read_scene(self, sequence: str) -> Scene:
        path = scene_path(self.root, sequence)
        if not path.is_file():
            raise MissingInputError(f"the synthetic world has no drive {sequence}", where=path, fix="generate it again")
        return Scene.load(path)

    def _row(self, sequence: str, frame_id: int) -> int:
        row = int(frame_id) - FIRST_FRAME
        if not 0 <= row < self.scene(sequence).frames:
            raise DataError(
                f"{sequence} has no frame {frame_id}",
                where=self.root,
                fix=f"ids are 1 to {self.scene(sequence).frames}",
            )
        return row

    def _picture(self, sequence: str, camera: str, frame_id: int) -> tuple[Float32, NDArray[np.uint16]]:
        path = truth_path(self.root, sequence, camera, frame_id)
        try:
            return unpack_truth(io.BytesIO(path.read_bytes()))
        except FileNotFoundError:
            what = f"no exact truth of {sequence} {camera} frame {frame_id}"
            raise MissingInputError(what, where=path, fix="only stereo frames of a generated world have one") from None
        except Exception as error:
            raise DataError("the exact truth is unreadable", where=path, fix="remove it and generate again") from error

    def _instance(self, sequence: str, frame_id: int, number: int, area: int) -> Instance:
        if number == GROUND_ID:
            return Instance(GROUND_ID, "ground", False, area, None)
        scene, at = self.scene(sequence), number - FIRST_OBJECT
        centre, size, yaw = scene.box(at, self._row(sequence, frame_id))
        box = Box3D(centre + scene.origin, size, yaw)
        return Instance(number, LABELS[scene.label[at]], bool(scene.moving[at]), area, box)
