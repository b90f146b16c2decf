"""Takes the pictures and the LiDAR sweeps: a ray per pixel, more rays at edges, the light they bring, the sensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.materials import LIDAR_LOSS, LIDAR_REFLECTANCE, Float32
from vipocc.data_manifests.synthetic.mesh import World
from vipocc.data_manifests.synthetic.rig import FISHEYES, STEREO, VIRTUAL_PITCH, Rig
from vipocc.data_manifests.synthetic.scene import SKY_ID
from vipocc.data_manifests.synthetic.shading import expose, radiance
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.poses import virtual_rotation
from vipocc.geometry.shapes import Float64

_RINGS = 64
_LIDAR_RANGE = 80.0
#: Further rays of a pixel on an edge, in pixels from its centre.
_SUBPIXELS = np.array([[-0.17, -0.36], [0.36, -0.1], [0.0, 0.36]])


@dataclass(frozen=True)
class View:
    """A camera's pixels that are rendered, and their rays."""

    camera: Pinhole | Mei
    pixels: Float64
    """[N, 2] x, y"""
    angle: float
    """Size of a pixel in radians, about."""

    @property
    def size(self) -> tuple[int, int]:
        """Image (height, width)."""
        return self.camera.height, self.camera.width

    def rays(self, pixels: Float64) -> Float64:
        """Return directions [N, 3] in the camera frame: z = 1 for a pinhole (hit distance = depth), else unit."""
        rays = self.camera.unproject(pixels)
        return rays / rays[:, 2:] if isinstance(self.camera, Pinhole) else rays

    @cached_property
    def centre_rays(self) -> Float32:
        """Directions [N, 3] through the pixels' centres."""
        return self.rays(self.pixels).astype(np.float32)

    @cached_property
    def subpixel_rays(self) -> Float32:
        """Directions [3, N, 3] of the further rays of each pixel; a fisheye's corner may lack them."""
        rays = np.stack([self.rays(self.pixels + shift).astype(np.float32) for shift in _SUBPIXELS])
        return np.where(np.isfinite(rays), rays, self.centre_rays)

    @cached_property
    def flat(self) -> NDArray[np.int64]:
        """Index [N] of each pixel in the flattened image."""
        return (self.pixels[:, 1] * self.size[1] + self.pixels[:, 0]).astype(np.int64)

    def image_of(self, values: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Return values [N, ...] of the pixels as an image [H, W, ...], with `fill` where nothing is rendered."""
        if len(values) == self.size[0] * self.size[1]:
            return values.reshape(*self.size, *values.shape[1:])
        whole = np.full((self.size[0] * self.size[1], *values.shape[1:]), fill, values.dtype)
        whole[self.flat] = values
        return whole.reshape(*self.size, *values.shape[1:])


def views(rig: Rig, full_fisheye: bool) -> dict[str, View]:
    """Return the four cameras' views; fisheyes are filled where the virtual camera looks, or whole."""
    result: dict[str, View] = {}
    for name in STEREO:
        result[name] = View(rig.stereo, _all_pixels(rig.stereo), 1.0 / rig.stereo.fx)
    for name in FISHEYES:
        camera = rig.fisheyes[name]
        pixels = _all_pixels(camera)
        rays = camera.unproject(pixels)
        with np.errstate(invalid="ignore", divide="ignore"):
            if full_fisheye:
                seen = rays[:, 2] > np.cos(np.deg2rad(93.0))
            else:
                ahead = rays @ virtual_rotation(VIRTUAL_PITCH)  # inverse of the rotation, applied to rows
                px = ahead[:, :2] / ahead[:, 2:] * [rig.stereo.fx, rig.stereo.fy] + [rig.stereo.cx, rig.stereo.cy]
                # A margin for interpolation: two fisheye pixels at the least magnified place.
                margin = 2.0 * rig.stereo.fx / camera.gamma1 * (1.0 + camera.xi) + 2.0
                size = np.array([rig.stereo.width, rig.stereo.height])
                seen = (ahead[:, 2] > 0) & np.all((px > -margin) & (px < size - 1 + margin), axis=1)
        result[name] = View(camera, pixels[seen], (1.0 + camera.xi) / camera.gamma1)
    return result


def _all_pixels(camera: Pinhole | Mei) -> Float64:
    grid = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
    return np.stack(grid, axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Picture:
    """An image and what is exactly behind its pixels."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB"""
    depth: Float32
    """[H, W] metres along the optical axis (pinhole) or the ray (fisheye); inf in the sky and where not rendered."""
    instance: NDArray[np.uint16]
    """[H, W]"""


def take(
    world: World,
    view: View,
    scene_from_camera: Float64,
    rng: np.random.Generator,
    image_noise: float,
    shadows: bool,
    antialias: bool,
) -> Picture:
    """Return what a camera sees of the world as it stands."""
    origin = scene_from_camera[:3, 3].astype(np.float32)
    rotation = scene_from_camera[:3, :3]
    directions = _turned(view.centre_rays, rotation)
    hits = world.cast(origin, directions)
    met = hits.face >= 0
    instance = np.where(met, world.faces.instance[hits.face], np.uint16(SKY_ID))
    depth, masks = view.image_of(hits.distance, np.inf), view.image_of(instance, SKY_ID)
    edge = np.zeros(0, np.int64)
    if antialias:
        parts = view.image_of(np.where(met, world.faces.material[hits.face], np.int16(-1)), -2)
        edge = np.flatnonzero(_edges(depth, masks, parts).reshape(-1)[view.flat])
        more = _turned(view.subpixel_rays[:, edge].reshape(-1, 3), rotation)
        hits = hits.joined(world.cast(origin, more))
        directions = np.concatenate([directions, more])
    colour = radiance(world, origin, directions, hits, view.angle, shadows)
    count = len(view.pixels)
    if len(edge):
        colour[edge] += colour[count:].reshape(len(_SUBPIXELS), -1, 3).sum(axis=0)
        colour[edge] /= 1 + len(_SUBPIXELS)
    image = expose(colour[:count], float(world.scene.look["exposure"]))
    grain = rng.standard_normal(image.shape, np.float32)
    grain *= np.float32(255.0 * image_noise) * (np.float32(0.6) + image * np.float32(0.8 / 255.0))
    image += grain
    np.clip(np.rint(image, out=image), 0, 255, out=image)
    return Picture(view.image_of(image.astype(np.uint8), 0), depth, masks)


def _turned(directions: Float32, rotation: Float64) -> Float32:
    """Return float32 directions [N, 3], each multiplied by the rotation.

    Not by numpy's product: its library starts a thread for every core and lets them spin, in each of the processes.
    """
    return np.asarray(cv2.transform(directions[:, None], rotation), np.float32)[:, 0]


def _edges(depth: Float32, masks: NDArray[np.uint16], parts: NDArray[Any]) -> NDArray[np.bool_]:
    """Return pixels beside a neighbour that shows another object or another material."""
    edge = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        first = [slice(None), slice(None)]
        second = [slice(None), slice(None)]
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(first), tuple(second)
        differs = (masks[a] != masks[b]) | (parts[a] != parts[b])
        near, far = np.minimum(depth[a], depth[b]), np.maximum(depth[a], depth[b])
        differs |= far > 1.15 * near + 0.3
        edge[a] |= differs
        edge[b] |= differs
    return edge


def sweep(
    world: World, scene_from_lidar: Float64, rng: np.random.Generator, points: int, range_noise: float, dropout: float
) -> Float32:
    """Return one LiDAR sweep [N, 4]: x, y, z in the LiDAR frame (x forward, y left, z up) and intensity in [0, 1].

    64 rings from +2 to -24.8 degrees, all rays at one instant; returns beyond 80 m and drop-outs are missing.
    """
    columns = points // _RINGS
    turn = -(np.arange(columns) + rng.random()) * (2 * np.pi / columns)
    rise = np.deg2rad(np.linspace(2.0, -24.8, _RINGS))[:, None]
    rings = np.empty((_RINGS, columns, 3), np.float32)
    rings[..., 0] = np.cos(rise) * np.cos(turn)
    rings[..., 1] = np.cos(rise) * np.sin(turn)
    rings[..., 2] = np.sin(rise)
    rays = rings.reshape(-1, 3)
    directions = _turned(rays, scene_from_lidar[:3, :3])
    hits = world.cast(scene_from_lidar[:3, 3].astype(np.float32), directions)
    draws = rng.random((2, len(rays)), np.float32)
    errors = rng.standard_normal(len(rays), np.float32) * np.float32(range_noise)
    material = world.faces.material[hits.face]
    lost = 1.0 - (1.0 - dropout) * (1.0 - LIDAR_LOSS[material])
    kept = (hits.face >= 0) & (hits.distance < _LIDAR_RANGE) & (draws[0] >= lost)
    distance = hits.distance[kept] + errors[kept]
    normal = world.faces.normals.reshape(-1, 9)[hits.face[kept]].T
    ahead = directions[kept].T
    cosine = np.abs(sum(normal[k] * ahead[k % 3] for k in range(9))) / np.float32(3.0)
    intensity = np.clip(
        LIDAR_REFLECTANCE[material[kept]] * (0.35 + 0.65 * cosine) * (0.85 + 0.3 * draws[1, kept]), 0.0, 0.99
    )
    return np.concatenate([rays[kept] * distance[:, None], intensity[:, None]], axis=1).astype(np.float32)
