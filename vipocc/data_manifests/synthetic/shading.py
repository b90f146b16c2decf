"""Shading: the light that comes back along rays, from surfaces with their pattern, the sun, its shadows and the sky.

Rays are sorted by the material they meet and shaded in runs of one material that fit a core's cache. Colours and
vectors of a run are arrays [3, N], one channel or axis after the other, which numpy works on several times faster than
on [N, 3].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.materials import Float32, Material, channels, fractal, noise, paint
from vipocc.data_manifests.synthetic.mesh import Hits, World

_SHINY = (Material.CAR_PAINT, Material.CAR_GLASS, Material.CAR_SIDE, Material.CAR_FRONT)
_LEAFY = (Material.LEAVES, Material.HEDGE)
_SKY = -1
#: Rays of one run.
_RUN = 16384


def radiance(
    world: World, origin: Float32, directions: Float32, hits: Hits, angle: float, shadows: bool, run: int = _RUN
) -> Float32:
    """Return linear radiance [N, 3] along each ray; it does not depend on how many rays make a `run`.

    Args:
        world: as it stood when the rays were cast.
        origin: [3] where all rays begin.
        directions: [N, 3] of any length.
        hits: what they met.
        angle: between neighbouring rays, in radians; finer detail is faded out.
        shadows: cast one more ray to the sun from each lit point.
        run: rays shaded at a time.
    """
    kinds = np.where(hits.face >= 0, world.faces.material[hits.face], np.int16(_SKY))
    order = np.argsort(kinds, kind="stable")
    counts = np.bincount(kinds - np.int16(_SKY), minlength=1)
    ends = np.cumsum(counts)
    colour = np.empty((len(directions), 3), np.float32)
    for number in np.flatnonzero(counts).tolist():
        kind, end = number + _SKY, int(ends[number])
        for start in range(end - int(counts[number]), end, run):
            some = order[start : min(start + run, end)]
            unit = np.ascontiguousarray(directions[some].T)
            length = np.sqrt(_dot(unit, unit))
            unit /= length
            if kind == _SKY:
                colour[some] = sky(unit, world.scene.look).T
            else:
                distance = hits.distance[some] * length
                weights = np.ascontiguousarray(hits.weights[some].T)
                shaded = _surface(world, origin, unit, distance, hits.face[some], weights, kind, angle, shadows)
                colour[some] = shaded.T
    return colour


def _dot(a: Float32, b: Float32) -> Float32:
    """Return the products [N] of vectors [3, N]."""
    total = a[0] * b[0]
    total += a[1] * b[1]
    total += a[2] * b[2]
    return np.asarray(total)


def _along(a: Float32, direction: Sequence[float]) -> Float32:
    """Return the products [N] of vectors [3, N] and one vector."""
    x, y, z = (np.float32(value) for value in direction)
    total = a[0] * x
    total += a[1] * y
    total += a[2] * z
    return np.asarray(total)


def _rows(table: NDArray[np.float32], index: NDArray[np.integer[Any]]) -> Float32:
    """Return the numbers of some rows of a table, one column after the other [columns, N]."""
    return np.ascontiguousarray(table.reshape(len(table), -1)[index].T)


def _surface(
    world: World,
    origin: Float32,
    unit: Float32,
    distance: Float32,
    face: NDArray[np.int32],
    weights: Float32,
    kind: int,
    angle: float,
    shadows: bool,
) -> Float32:
    """Return radiance [3, N] from points of one material along `unit` [3, N]."""
    faces, look = world.faces, world.scene.look
    points = unit * distance
    points += origin[:, None]
    corner = _rows(faces.normals, face)
    normal = corner[:3] * (np.float32(1.0) - weights[0] - weights[1])
    normal += corner[3:6] * weights[0]
    normal += corner[6:] * weights[1]
    normal /= np.sqrt(_dot(normal, normal))
    facing = _dot(normal, unit)
    normal *= np.copysign(np.float32(1.0), -facing)
    cosine = np.abs(facing)
    a = _rows(faces.texture, face)
    u = a[0] * points[0] + a[1] * points[1] + a[2] * points[2] + a[3]
    v = a[4] * points[0] + a[5] * points[1] + a[6] * points[2] + a[7]
    seed = faces.seed[face]
    # The footprint of a pixel, between its width across and its length along the line of sight.
    footprint = distance * np.float32(angle) / np.sqrt(np.maximum(cosine, np.float32(0.04)))
    albedo = paint(kind, _rows(faces.colour, face), u, v, _rows(faces.extent, face), seed, footprint, look)
    albedo = albedo * np.maximum(1.0 + fractal(u, v, seed, kind, footprint), np.float32(0.12))

    sun = channels(look["sun"])
    direct = _along(normal, look["sun"])
    if kind in _LEAFY:
        # Leaves scatter light around their clump's edge.
        direct = (direct + np.float32(0.35)) * np.float32(1 / 1.35)
    direct = np.maximum(direct, np.float32(0.0))
    if shadows:
        lit = np.flatnonzero(direct > 0)
        starts_at = points[:, lit] + normal[:, lit] * np.float32(0.02) + sun * np.float32(0.01)
        towards = np.ascontiguousarray(np.broadcast_to(sun[:, 0], (len(lit), 3)), np.float32)
        direct[lit[world.blocked(np.ascontiguousarray(starts_at.T), towards)]] = 0.0
    light = (np.float32(0.62) + np.float32(0.38) * normal[2]) * channels(look["ambient"])
    light += direct * channels(look["sun_colour"])
    colour = np.asarray(albedo * light, np.float32)
    if kind in _SHINY:
        mirrored = unit + 2.0 * cosine * normal
        fresnel = 0.05 + 0.55 * (1.0 - cosine) ** 4
        above = np.clip(mirrored[2] * 3.0 + 0.4, 0.0, 1.0)
        colour += fresnel * (above * sky(mirrored, look) + (1.0 - above) * np.float32(0.12))
    clear = np.exp(distance * np.float32(-1.0 / look["haze"]))
    horizon = channels(look["horizon"])
    colour -= horizon
    colour *= clear
    colour += horizon
    return np.asarray(colour, np.float32)


def sky(unit: Float32, look: dict[str, Any]) -> Float32:
    """Return the sky's radiance [3, N] in directions [3, N]: its gradient, clouds, the sun and hills at its foot."""
    height = np.maximum(unit[2], np.float32(0.0))
    share = np.sqrt(height)
    horizon, zenith = channels(look["horizon"]), channels(look["zenith"])
    colour = horizon + share * (zenith - horizon)
    flat = np.float32(400.0) / (height + np.float32(0.12))
    x, y = unit[0] * flat, unit[1] * flat
    cloud = noise(x, y, 1800.0) + 0.5 * noise(x, y, 700.0) + 0.3 * noise(x, y, 260.0) + 0.15 * noise(x, y, 90.0)
    cover = np.clip(0.9 * cloud + 1.4 * (float(look["clouds"]) - 0.5), 0.0, 1.0) * np.clip(height * 6.0, 0.0, 1.0)
    colour += cover * (channels([0.92, 0.93, 0.95]) - colour)
    glow = np.maximum(_along(unit, look["sun"]), np.float32(0.0))
    eighth = glow * glow
    eighth *= eighth
    eighth *= eighth
    halo = np.float32(0.35) * eighth * eighth * eighth
    disc = np.flatnonzero(glow > 0.98)  # beyond, the disc's share is below 1e-12
    halo[disc] += 3.0 * glow[disc] ** 1500
    colour += halo * channels([1.0, 0.95, 0.85])
    low = np.flatnonzero(unit[2] < 0.05)  # no hill rises higher
    if len(low):
        turn = np.arctan2(unit[1, low], unit[0, low]).astype(np.float32) * np.float32(100.0)
        ridge = 0.012 + 0.016 * (noise(turn, np.zeros_like(turn), 60.0) + 1.0) + 0.004 * noise(turn, turn, 6.0)
        hills = np.clip((ridge - unit[2, low]) / np.float32(0.004), 0.0, 1.0)
        colour[:, low] += hills * (channels([0.26, 0.33, 0.34]) - colour[:, low])
    return np.asarray(colour, np.float32)


def expose(colour: Float32, exposure: float) -> Float32:
    """Return display values in 0..255 of radiance: a soft shoulder, then the usual gamma."""
    light = np.linspace(0.0, 2.0, 4096) ** 2
    table = (255.0 * (1.0 - np.exp(-1.5 * exposure * light)) ** (1 / 1.9)).astype(np.float32)
    index = np.sqrt(colour)
    index *= np.float32(4095.0 / 2.0)
    return np.asarray(table[np.minimum(index, np.float32(4095.0)).astype(np.int32)])
