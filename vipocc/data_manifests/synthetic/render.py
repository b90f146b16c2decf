"""Takes the pictures and the LiDAR sweeps: a ray per pixel, shading at the hit, more rays at edges, the sensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.materials import (
    LIDAR_LOSS,
    LIDAR_REFLECTANCE,
    Float32,
    Material,
    fractal,
    noise,
    paint,
    rgb,
)
from vipocc.data_manifests.synthetic.mesh import Hits, World
from vipocc.data_manifests.synthetic.rig import FISHEYES, STEREO, VIRTUAL_PITCH, Rig
from vipocc.data_manifests.synthetic.scene import SKY_ID
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.poses import virtual_rotation
from vipocc.geometry.shapes import Float64

_RINGS = 64
_LIDAR_RANGE = 80.0
_SHINY = (Material.CAR_PAINT, Material.CAR_GLASS, Material.CAR_SIDE, Material.CAR_FRONT)
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
    def centre_rays(self) -> Float64:
        """Directions through the pixels' centres."""
        return self.rays(self.pixels)


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
    directions = np.ascontiguousarray(view.centre_rays @ rotation.T, np.float32)
    hits = world.cast(origin, directions)
    colour = _shade(world, origin, directions, hits, view.angle, shadows)
    instance = np.where(hits.face >= 0, world.faces.instance[hits.face], SKY_ID).astype(np.uint16)
    flat = (view.pixels[:, 1] * view.size[1] + view.pixels[:, 0]).astype(np.int64)

    def image_of(values: NDArray[Any], fill: Any) -> NDArray[Any]:
        if len(values) == view.size[0] * view.size[1]:
            return values.reshape(*view.size, *values.shape[1:])
        whole = np.full((view.size[0] * view.size[1], *values.shape[1:]), fill, values.dtype)
        whole[flat] = values
        return whole.reshape(*view.size, *values.shape[1:])

    depth = image_of(hits.distance, np.inf)
    masks = image_of(instance, SKY_ID)
    if antialias:
        parts = image_of(np.where(hits.face >= 0, world.faces.material[hits.face], -1), -2)
        edge = np.flatnonzero(_edges(depth, masks, parts).reshape(-1)[flat])
        pixels = (view.pixels[edge] + _SUBPIXELS[:, None]).reshape(-1, 2)
        more = np.ascontiguousarray(view.rays(pixels) @ rotation.T, np.float32)
        more = np.where(np.isfinite(more), more, np.tile(directions[edge], (len(_SUBPIXELS), 1)))
        extra = _shade(world, origin, more, world.cast(origin, more), view.angle, shadows)
        colour[edge] += extra.reshape(len(_SUBPIXELS), -1, 3).sum(axis=0)
        colour[edge] /= 1 + len(_SUBPIXELS)
    image = _expose(colour, float(world.scene.look["exposure"]))
    image += (
        rng.standard_normal(image.shape, np.float32) * np.float32(255.0 * image_noise) * (0.6 + image * (0.8 / 255.0))
    )
    return Picture(image_of(np.clip(np.rint(image), 0, 255).astype(np.uint8), 0), depth, masks)


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


def _shade(world: World, origin: Float32, directions: Float32, hits: Hits, angle: float, shadows: bool) -> Float32:
    """Return linear radiance [N, 3] along each ray."""
    look = world.scene.look
    lengths = np.sqrt(np.einsum("ij,ij->i", directions, directions))
    colour = np.empty((len(directions), 3), np.float32)
    met = np.flatnonzero(hits.face >= 0)
    missed = np.flatnonzero(hits.face < 0)
    if len(missed):
        colour[missed] = _sky(directions[missed] / lengths[missed, None], look)
    if len(met):
        unit = directions[met] / lengths[met, None]
        distance = hits.distance[met] * lengths[met]
        colour[met] = _surface(world, origin, unit, distance, hits.face[met], hits.weights[met], angle, shadows)
        clear = np.exp(-distance / np.float32(look["haze"]))[:, None]
        colour[met] = colour[met] * clear + (1.0 - clear) * rgb(look["horizon"])
    return colour


def _surface(
    world: World,
    origin: Float32,
    unit: Float32,
    distance: Float32,
    face: NDArray[np.int32],
    weights: Float32,
    angle: float,
    shadows: bool,
) -> Float32:
    faces, look = world.faces, world.scene.look
    points = origin + unit * distance[:, None]
    corner = faces.normals[face]
    normal = (
        corner[:, 0] + weights[:, :1] * (corner[:, 1] - corner[:, 0]) + weights[:, 1:] * (corner[:, 2] - corner[:, 0])
    )
    normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None]
    facing = np.einsum("ij,ij->i", normal, unit)
    normal *= np.where(facing > 0, -1.0, 1.0).astype(np.float32)[:, None]
    cosine = np.abs(facing)
    affine = faces.texture[face]
    uv = np.einsum("nkj,nj->nk", affine[:, :, :3], points) + affine[:, :, 3]
    u, v = np.ascontiguousarray(uv[:, 0]), np.ascontiguousarray(uv[:, 1])
    material, seed = faces.material[face], faces.seed[face]
    # The footprint of a pixel, between its width across and its length along the line of sight.
    footprint = (distance * np.float32(angle) / np.sqrt(np.maximum(cosine, 0.04))).astype(np.float32)
    albedo = faces.colour[face]
    order = np.argsort(material, kind="stable")
    kinds, starts = np.unique(material[order], return_index=True)
    for kind, which in zip(kinds, np.split(order, starts[1:]), strict=True):
        albedo[which] = paint(
            int(kind), albedo[which], u[which], v[which], faces.extent[face[which]], seed[which], footprint[which], look
        )
    albedo *= np.maximum(1.0 + fractal(u, v, seed, material, footprint), 0.12)[:, None]

    sun = rgb(look["sun"])
    towards = normal @ sun
    leafy = (material == Material.LEAVES) | (material == Material.HEDGE)
    # Leaves scatter light around their clump's edge.
    towards = np.where(leafy, (towards + 0.35) / 1.35, towards)
    direct = np.maximum(towards, 0.0).astype(np.float32)
    if shadows:
        lit = np.flatnonzero(direct > 0)
        starts_at = points[lit] + normal[lit] * np.float32(0.02) + sun * np.float32(0.01)
        dark = world.blocked(starts_at, np.ascontiguousarray(np.broadcast_to(sun, starts_at.shape), np.float32))
        direct[lit[dark]] = 0.0
    sky_light = (0.62 + 0.38 * normal[:, 2]).astype(np.float32)[:, None] * rgb(look["ambient"])
    colour = albedo * (sky_light + direct[:, None] * rgb(look["sun_colour"]))
    shiny = np.flatnonzero(np.isin(material, _SHINY))
    if len(shiny):
        mirrored = unit[shiny] + 2.0 * cosine[shiny, None] * normal[shiny]
        fresnel = (0.05 + 0.55 * (1.0 - cosine[shiny]) ** 4)[:, None]
        above = np.clip(mirrored[:, 2:] * 3.0 + 0.4, 0.0, 1.0)
        reflected = above * _sky(mirrored, look) + (1.0 - above) * rgb([0.12, 0.12, 0.12])
        colour[shiny] += fresnel * reflected
    return np.asarray(colour, np.float32)


def _sky(unit: Float32, look: dict[str, Any]) -> Float32:
    height = np.maximum(unit[:, 2], 0.0)
    share = np.sqrt(height)[:, None]
    colour = (1.0 - share) * rgb(look["horizon"]) + share * rgb(look["zenith"])
    flat = 1.0 / (height + 0.12)
    x, y = unit[:, 0] * flat * 400.0, unit[:, 1] * flat * 400.0
    cloud = noise(x, y, 1800.0) + 0.5 * noise(x, y, 700.0) + 0.3 * noise(x, y, 260.0) + 0.15 * noise(x, y, 90.0)
    cover = np.clip(0.9 * cloud + 1.4 * (float(look["clouds"]) - 0.5), 0.0, 1.0) * np.clip(height * 6.0, 0.0, 1.0)
    colour += cover[:, None] * (rgb([0.92, 0.93, 0.95]) - colour)
    glow = np.maximum(unit @ rgb(look["sun"]), 0.0)
    colour += (0.35 * glow**24 + 3.0 * glow**1500)[:, None] * rgb([1.0, 0.95, 0.85])
    turn = np.arctan2(unit[:, 1], unit[:, 0]).astype(np.float32) * 100.0
    ridge = 0.012 + 0.016 * (noise(turn, np.zeros_like(turn), 60.0) + 1.0) + 0.004 * noise(turn, turn, 6.0)
    hills = np.clip((ridge - unit[:, 2]) / 0.004, 0.0, 1.0)[:, None]
    return np.asarray(colour * (1.0 - hills) + hills * rgb([0.26, 0.33, 0.34]), np.float32)


def _expose(colour: Float32, exposure: float) -> Float32:
    """Return display values [N, 3] in 0..255: a soft shoulder, then the usual gamma."""
    light = np.linspace(0.0, 2.0, 4096) ** 2
    table = (255.0 * (1.0 - np.exp(-1.5 * exposure * light)) ** (1 / 1.9)).astype(np.float32)
    index = np.minimum(np.sqrt(colour) * np.float32(4095.0 / 2.0), 4095.0).astype(np.int32)
    return np.asarray(table[index])


def sweep(
    world: World, scene_from_lidar: Float64, rng: np.random.Generator, points: int, range_noise: float, dropout: float
) -> Float32:
    """Return one LiDAR sweep [N, 4]: x, y, z in the LiDAR frame (x forward, y left, z up) and intensity in [0, 1].

    64 rings from +2 to -24.8 degrees, all rays at one instant; returns beyond 80 m and drop-outs are missing.
    """
    columns = points // _RINGS
    azimuth = (np.arange(columns) + rng.random()) * (2 * np.pi / columns)
    elevation = np.deg2rad(np.linspace(2.0, -24.8, _RINGS))
    turn, rise = np.meshgrid(-azimuth, elevation)
    rays = np.stack([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)], axis=-1).reshape(-1, 3)
    directions = np.ascontiguousarray(rays @ scene_from_lidar[:3, :3].T, np.float32)
    hits = world.cast(scene_from_lidar[:3, 3].astype(np.float32), directions)
    draws = rng.random((2, len(rays)))
    errors = rng.standard_normal(len(rays)) * range_noise
    material = world.faces.material[hits.face]
    lost = 1.0 - (1.0 - dropout) * (1.0 - LIDAR_LOSS[material])
    kept = (hits.face >= 0) & (hits.distance < _LIDAR_RANGE) & (draws[0] >= lost)
    distance = hits.distance[kept] + errors[kept]
    normal = world.faces.normals[hits.face[kept]].mean(axis=1)
    cosine = np.abs(np.einsum("ij,ij->i", normal, directions[kept]))
    intensity = np.clip(
        LIDAR_REFLECTANCE[material[kept]] * (0.35 + 0.65 * cosine) * (0.85 + 0.3 * draws[1, kept]), 0.0, 0.99
    )
    return np.concatenate([rays[kept] * distance[:, None], intensity[:, None]], axis=1).astype(np.float32)
