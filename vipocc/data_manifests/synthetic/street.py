"""The street: a curved centre line, the ground around it, and street coordinates (s along, d to the left)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.materials import Material
from vipocc.geometry.shapes import Float64

Float = NDArray[np.floating[Any]]

#: Height of kerbs, pavements and gardens over the road; of the land beyond the gardens.
KERB_HEIGHT = 0.12
LAND_HEIGHT = -0.3
GARDEN_EDGE = 45.0
KERB_WIDTH = 0.16
STEP = 1.0


@dataclass(frozen=True)
class Street:
    """A street in scene coordinates (z up, metres), and where side streets cross it."""

    start: float
    """Street coordinate s of the first station; stations are STEP apart."""
    xy: Float64
    """[N, 2] centre line at the stations."""
    heading: Float64
    """[N] its direction in radians."""
    half_width: float
    pavement: float
    """Width of either pavement."""
    crossings: Float64
    """[C, 2] first and last s of each side street's carriageway, at stations."""

    @property
    def end(self) -> float:
        """Street coordinate of the last station."""
        return self.start + STEP * (len(self.xy) - 1)

    def place(self, s: float, d: float) -> tuple[float, float, float]:
        """Return x, y and heading at street coordinates (s, d)."""
        at = min(max((s - self.start) / STEP, 0.0), len(self.xy) - 1.0)
        i = min(int(at), len(self.xy) - 2)
        share = at - i
        heading = (1 - share) * self.heading[i] + share * self.heading[i + 1]
        centre = (1 - share) * self.xy[i] + share * self.xy[i + 1]
        beyond = s - (self.start + STEP * at)
        x = centre[0] + np.cos(heading) * beyond - np.sin(heading) * d
        y = centre[1] + np.sin(heading) * beyond + np.cos(heading) * d
        return float(x), float(y), float(heading)

    def coordinates(self, xy: Float64) -> tuple[Float64, Float64]:
        """Return street coordinates (s, d) of points [N, 2]; exact to a few millimetres on the carriageway."""
        s, d = np.empty(len(xy)), np.empty(len(xy))
        for first in range(0, len(xy), 4096):
            part = xy[first : first + 4096]
            nearest = np.argmin(((part[:, None] - self.xy[None]) ** 2).sum(-1), axis=1)
            offset = part - self.xy[nearest]
            cos, sin = np.cos(self.heading[nearest]), np.sin(self.heading[nearest])
            s[first : first + 4096] = self.start + nearest * STEP + offset[:, 0] * cos + offset[:, 1] * sin
            d[first : first + 4096] = offset[:, 1] * cos - offset[:, 0] * sin
        return s, d

    def crosses(self, s: Float | float, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return whether s lies on a side street, or within `margin` of one."""
        at = np.asarray(s, np.float64)[..., None]
        low, high = self.crossings[:, 0] - margin, self.crossings[:, 1] + margin
        return np.asarray(np.any((at > low) & (at < high), axis=-1))

    def below_ground(self, points: Float64) -> NDArray[np.bool_]:
        """Return which points [N, 3] lie below the surface of road, pavement or land."""
        below = points[:, 2] < LAND_HEIGHT
        unsure = np.flatnonzero((points[:, 2] >= LAND_HEIGHT) & (points[:, 2] < KERB_HEIGHT))
        if len(unsure):
            s, d = self.coordinates(points[unsure, :2])
            on_strip = (np.abs(d) < GARDEN_EDGE) & (s > self.start) & (s < self.end)
            road = (np.abs(d) < self.half_width) | self.crosses(s)
            height = np.where(on_strip, np.where(road, 0.0, KERB_HEIGHT), LAND_HEIGHT)
            below[unsure] = points[unsure, 2] < height
        return below

    def ground(self) -> tuple[Float64, NDArray[np.int64], Float64]:
        """Return the ground mesh: triangles [F, 3, 3], material [F], texture coordinates at the corners [F, 3, 2].

        Texture coordinates are (s, d) in metres, on vertical faces (s or d, z).
        """
        w, p = self.half_width, self.half_width + self.pavement
        edges = np.array([-GARDEN_EDGE, -p, -w - KERB_WIDTH, -w, w, w + KERB_WIDTH, p, GARDEN_EDGE])
        bands = [Material.GRASS, Material.PAVEMENT, Material.KERB, Material.ASPHALT]
        bands += bands[2::-1]
        s = self.start + STEP * np.arange(len(self.xy) - 1)
        crossing = self.crosses(s + STEP / 2)
        beside = self.crosses(s + STEP / 2, margin=2.0) & ~crossing
        quads: list[Float64] = []
        materials: list[NDArray[np.int64]] = []
        texture: list[Float64] = []

        def strip(s0: Float, s1: Float, low: tuple[float, Float], high: tuple[float, Float], m: Any) -> None:
            """Add quads between (d, z) `low` and `high`, from s0 to s1."""
            corners = [(s0, *low), (s1, *low), (s1, *high), (s0, *high)]
            quads.append(np.stack([self._points(at, d, z) for at, d, z in corners], axis=1))
            vertical = low[0] == high[0]
            uv = [np.stack([at, z if vertical else np.full_like(at, d)], axis=-1) for at, d, z in corners]
            texture.append(np.stack(uv, axis=1))
            materials.append(np.broadcast_to(np.asarray(m, np.int64), s0.shape))

        for band, (d0, d1) in zip(bands, itertools.pairwise(edges), strict=True):
            height = np.where(crossing | (band is Material.ASPHALT), 0.0, KERB_HEIGHT)
            kind = np.where(crossing, Material.ASPHALT, band)
            if band is Material.GRASS:
                kind = np.where(beside, Material.PAVEMENT, kind)
            strip(s, s + STEP, (d0, height), (d1, height), kind)
        z0, z1 = np.zeros_like(s), np.where(crossing, 0.0, KERB_HEIGHT)
        strip(s, s + STEP, (-w, z1), (-w, z0), np.full(len(s), Material.KERB))
        strip(s, s + STEP, (w, z0), (w, z1), np.full(len(s), Material.KERB))
        for edge, low, high in ((-GARDEN_EDGE, np.full_like(s, LAND_HEIGHT), z1), (GARDEN_EDGE, z1, z0 + LAND_HEIGHT)):
            strip(s, s + STEP, (edge, low), (edge, high), np.full(len(s), Material.GRASS))
        # Where a side street begins or ends, kerbs face it from d = w outwards.
        for at, sign in [(c, k) for pair in self.crossings for c, k in zip(pair, (1, -1), strict=True)]:
            for d0, d1 in ((-GARDEN_EDGE, -w), (w, GARDEN_EDGE)):
                d0, d1 = (d0, d1) if sign > 0 else (d1, d0)
                here, ds = np.full(1, at), np.array([d0, d1])
                pts = [self._points(here, d, np.full(1, z)) for d, z in ((d0, 0.0), (d1, 0.0), (d1, KERB_HEIGHT))]
                pts.append(self._points(here, d0, np.full(1, KERB_HEIGHT)))
                quads.append(np.stack(pts, axis=1))
                uv = [[ds[0], 0.0], [ds[1], 0.0], [ds[1], KERB_HEIGHT], [ds[0], KERB_HEIGHT]]
                texture.append(np.array([uv]))
                materials.append(np.full(1, Material.KERB, np.int64))
        far = 900.0
        corners = self.xy.mean(0) + np.array([[-far, -far], [far, -far], [far, far], [-far, far]])
        quads.append(np.insert(corners, 2, LAND_HEIGHT, axis=1)[None])
        texture.append(corners[None])
        materials.append(np.full(1, Material.GRASS, np.int64))
        quad, uv_all, kinds = np.concatenate(quads), np.concatenate(texture), np.concatenate(materials)
        triangles = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
        corners_uv = np.concatenate([uv_all[:, [0, 1, 2]], uv_all[:, [0, 2, 3]]])
        area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1)
        real = area > 1e-9
        return triangles[real], np.concatenate([kinds, kinds])[real], corners_uv[real]

    def _points(self, s: Float, d: float, z: Float) -> Float64:
        index = np.clip(np.rint((s - self.start) / STEP).astype(np.int64), 0, len(self.xy) - 1)
        normal = np.stack([-np.sin(self.heading[index]), np.cos(self.heading[index])], axis=-1)
        return np.concatenate([self.xy[index] + d * normal, z[:, None]], axis=1)


def lay_out(rng: np.random.Generator, length: float, half_width: float, pavement: float, crossings: int) -> Street:
    """Return a gently curving street of `length` metres with side streets, all drawn from `rng`."""
    start = -40.0
    s = start + STEP * np.arange(int(np.ceil((length - start + 160.0) / STEP)) + 1)
    heading = np.full(len(s), rng.uniform(-np.pi, np.pi))
    for wavelength in (260.0, 130.0):
        # The sharpest bend has a radius of 62 m: with gardens 45 m deep, no edge folds over.
        amplitude = rng.uniform(0.25, 0.8) * wavelength / (2 * np.pi * 100.0)
        heading += amplitude * np.sin(2 * np.pi * s / wavelength + rng.uniform(0, 2 * np.pi))
    middle = (heading[:-1] + heading[1:]) / 2
    steps = STEP * np.stack([np.cos(middle), np.sin(middle)], axis=1)
    xy = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    xy -= xy[int(-start / STEP)]
    spans = []
    at = rng.uniform(25.0, 50.0)
    for _ in range(crossings):
        width = float(rng.integers(5, 8))
        spans.append((np.floor(at), np.floor(at) + width))
        at += rng.uniform(60.0, 110.0)
    kept = [span for span in spans if span[1] < length + 120.0]
    return Street(start, xy, heading, half_width, pavement, np.array(kept, np.float64).reshape(-1, 2))
