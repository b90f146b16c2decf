"""Materials: procedural reflectance with detail from metres to centimetres, faded where a pixel cannot show it."""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.synthetic.randomness import generator

Float32 = NDArray[np.float32]
Float = NDArray[np.floating[Any]]


def rgb(values: Any) -> Float32:
    """Return a colour, or any short row of numbers, as float32."""
    return np.array(values, np.float32)


class Material(IntEnum):
    """What a face is made of; scene files hold these numbers."""

    ASPHALT = 0
    PAVEMENT = 1
    KERB = 2
    GRASS = 3
    FACADE = 4
    FACADE_BRICK = 5
    TILES = 6
    BARK = 7
    LEAVES = 8
    HEDGE = 9
    METAL = 10
    CAR_PAINT = 11
    CAR_GLASS = 12
    CAR_SIDE = 13
    CAR_FRONT = 14
    TYRE = 15
    SKIN = 16
    CLOTH = 17
    PLANKS = 18
    BRICK = 19
    CONCRETE = 20
    SIGN = 21
    PAVING = 22
    GARAGE = 23


#: Wavelengths of the octaves of noise, in metres.
WAVELENGTHS = (9.0, 2.6, 0.75, 0.22, 0.065, 0.02)

#: Relative amplitude of each octave.
_AMPLITUDES: dict[Material, tuple[float, float, float, float, float, float]] = {
    Material.ASPHALT: (0.16, 0.18, 0.18, 0.16, 0.22, 0.30),
    Material.PAVEMENT: (0.10, 0.14, 0.16, 0.16, 0.18, 0.20),
    Material.KERB: (0.08, 0.12, 0.20, 0.18, 0.18, 0.20),
    Material.GRASS: (0.30, 0.30, 0.36, 0.40, 0.45, 0.40),
    Material.FACADE: (0.06, 0.08, 0.09, 0.08, 0.08, 0.10),
    Material.FACADE_BRICK: (0.08, 0.12, 0.14, 0.16, 0.16, 0.14),
    Material.TILES: (0.10, 0.16, 0.20, 0.20, 0.16, 0.10),
    Material.BARK: (0.0, 0.12, 0.25, 0.35, 0.40, 0.30),
    Material.LEAVES: (0.10, 0.25, 0.75, 0.95, 0.85, 0.60),
    Material.HEDGE: (0.12, 0.22, 0.40, 0.65, 0.75, 0.60),
    Material.METAL: (0.0, 0.06, 0.10, 0.10, 0.10, 0.08),
    Material.CAR_PAINT: (0.0, 0.10, 0.08, 0.04, 0.03, 0.02),
    Material.CAR_GLASS: (0.0, 0.45, 0.60, 0.40, 0.15, 0.05),
    Material.CAR_SIDE: (0.0, 0.10, 0.08, 0.04, 0.03, 0.02),
    Material.CAR_FRONT: (0.0, 0.10, 0.08, 0.06, 0.04, 0.02),
    Material.TYRE: (0.0, 0.0, 0.10, 0.15, 0.20, 0.20),
    Material.SKIN: (0.0, 0.0, 0.05, 0.10, 0.10, 0.05),
    Material.CLOTH: (0.0, 0.10, 0.18, 0.25, 0.22, 0.15),
    Material.PLANKS: (0.06, 0.12, 0.18, 0.20, 0.22, 0.20),
    Material.BRICK: (0.06, 0.12, 0.16, 0.18, 0.16, 0.14),
    Material.CONCRETE: (0.08, 0.14, 0.16, 0.14, 0.14, 0.14),
    Material.SIGN: (0.0, 0.0, 0.02, 0.03, 0.03, 0.02),
    Material.PAVING: (0.08, 0.14, 0.18, 0.18, 0.20, 0.20),
    Material.GARAGE: (0.06, 0.08, 0.09, 0.08, 0.08, 0.10),
}
AMPLITUDES = np.array([_AMPLITUDES[m] for m in Material], np.float32)

#: Share of LiDAR returns that a material loses on top of the configured drop-outs, and its reflectance at 905 nm.
LIDAR_LOSS = np.array([{12: 0.75, 11: 0.12, 13: 0.10, 14: 0.08}.get(int(m), 0.0) for m in Material], np.float32)
LIDAR_REFLECTANCE = np.array(
    [
        *(0.18, 0.30, 0.32, 0.45, 0.45, 0.35, 0.30, 0.30, 0.55, 0.55, 0.35, 0.40),
        *(0.08, 0.40, 0.55, 0.06, 0.45, 0.45, 0.40, 0.35, 0.35, 0.95, 0.30, 0.40),
    ],
    np.float32,
)

_TILE = 1024
_CELLS = 256


@cache
def noise_tile() -> Float32:
    """Return a tileable field of value noise [1024, 1024], 256 cells a side, mean 0, most of it in [-1, 1]."""
    cells = generator(0, "noise tile").uniform(-1.0, 1.0, (_CELLS, _CELLS)).astype(np.float32)
    wide = cv2.copyMakeBorder(cells, 4, 4, 4, 4, cv2.BORDER_WRAP)
    factor = _TILE // _CELLS
    large = cv2.resize(wide, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    tile = large[4 * factor : -4 * factor, 4 * factor : -4 * factor]
    return np.ascontiguousarray((tile - tile.mean()) / (2.0 * tile.std()), np.float32)


def noise(u: Float, v: Float, wavelength: float) -> Float32:
    """Return value noise [N] at texture coordinates in metres; one cell is half a wavelength."""
    n = len(u)
    width = 1024
    rows = -(-n // width)
    texels = np.float32(_TILE / _CELLS * 2.0 / wavelength)
    maps = np.empty((2, rows * width), np.float32)
    maps[:, n:] = 0.0
    np.multiply(u, texels, out=maps[0, :n])
    np.multiply(v, texels, out=maps[1, :n])
    # Fold into one tile first: cv2.remap's own wrapping is slow and its coordinates are limited.
    turns = maps * np.float32(1.0 / _TILE)
    np.floor(turns, out=turns)
    turns *= np.float32(_TILE)
    maps -= turns
    found = cv2.remap(
        noise_tile(),
        maps[0].reshape(rows, width),
        maps[1].reshape(rows, width),
        cv2.INTER_LINEAR,
        None,
        cv2.BORDER_WRAP,
    )
    return np.asarray(found, np.float32).reshape(-1)[:n]


def fractal(u: Float, v: Float, seed: Float, material: int, footprint: Float) -> Float:
    """Return the relative deviation of one material's reflectance [N].

    Octaves finer than the pixel's footprint (metres) fade out.
    """
    total = np.zeros_like(u)
    offset_u, offset_v = u + seed * np.float32(173.0), v + seed * np.float32(91.0)
    sharpness = np.float32(1.0 / 1.6) / footprint
    for k, wavelength in enumerate(WAVELENGTHS):
        amplitude = AMPLITUDES[material, k]
        if amplitude == 0.0:
            continue
        weight = amplitude * np.clip(np.float32(wavelength) * sharpness - np.float32(0.6), 0.0, 1.0)
        some = np.flatnonzero(weight)
        if len(some) == 0:
            break  # finer octaves have faded, too
        if len(some) > 0.7 * len(u):
            total += weight * noise(offset_u + np.float32(7.3 * k), offset_v - np.float32(3.1 * k), wavelength)
        else:
            at_u, at_v = offset_u[some] + np.float32(7.3 * k), offset_v[some] - np.float32(3.1 * k)
            total[some] += weight[some] * noise(at_u, at_v, wavelength)
    return total


def _band(x: Float, low: float | Float, high: float | Float, soft: Float) -> Float:
    """Return 1 inside [low, high] and 0 outside, with edges as soft as the footprint."""
    rise = np.clip((x - low) / soft + 0.5, 0.0, 1.0)
    fall = np.clip((high - x) / soft + 0.5, 0.0, 1.0)
    return np.asarray(rise * fall)


def _grid(x: Float, period: float | Float, joint: float, soft: Float) -> Float:
    """Return how much of a joint of width `joint`, every `period` metres, covers each pixel; far off its mean share."""
    phase = np.abs(x / period - np.round(x / period)) * period
    line = np.clip((joint / 2 - phase) / soft + 0.5, 0.0, 1.0)
    far = np.clip(2.0 - 3.0 * soft / period, 0.0, 1.0)
    return np.asarray(line * far + (1.0 - far) * (joint / period))


def _hash(a: Float, b: Float, seed: Float) -> Float:
    """Return a value in [0, 1) for every whole-numbered cell (a, b) of a surface."""
    value = np.sin(a * 12.9898 + b * 78.233 + seed * 437.585) * 43758.5453
    return np.asarray(value - np.floor(value), np.float32)


def channels(values: Any) -> Float32:
    """Return a colour as float32 [3, 1], to go with arrays [3, N]."""
    return np.array(values, np.float32)[:, None]


def _mix(colour: Float, other: Any, share: Float) -> Float:
    towards = other if isinstance(other, np.ndarray) else channels(other)
    return np.asarray(colour + share * (towards - colour))


def paint(
    material: int,
    colour: Float,
    u: Float,
    v: Float,
    extent: Float,
    seed: Float,
    soft: Float,
    look: dict[str, Any],
) -> Float:
    """Return the reflectance [3, N] of one material's pattern before noise.

    `u`, `v` are metres on the face (v from the bottom of a wall), `extent` [2, N] the face's size, `soft` the
    footprint of a pixel.
    """
    match material:
        case Material.ASPHALT:
            return _asphalt(colour, u, v, soft, look)
        case Material.PAVEMENT | Material.PAVING:
            cell = _hash(np.floor(u / 0.5), np.floor(v / 0.5), seed)
            joints = np.maximum(_grid(u, 0.5, 0.02, soft), _grid(v, 0.5, 0.02, soft))
            return colour * (0.82 + 0.36 * cell - 0.45 * joints)
        case Material.KERB:
            return colour * (1.0 - 0.5 * _grid(u, 1.0, 0.025, soft))
        case Material.FACADE | Material.FACADE_BRICK | Material.GARAGE:
            return _facade(material, colour, u, v, extent, seed, soft)
        case Material.BRICK:
            return _bricks(colour, u, v, soft, seed)
        case Material.TILES:
            rows = _grid(v, 0.33, 0.05, soft)
            cell = _hash(np.floor(u / 0.25), np.floor(v / 0.33), seed)
            return colour * (0.8 + 0.4 * cell - 0.4 * rows)
        case Material.PLANKS:
            cell = _hash(np.floor(u / 0.16), np.zeros_like(u), seed)
            return colour * (0.75 + 0.5 * cell - 0.6 * _grid(u, 0.16, 0.02, soft))
        case Material.CAR_SIDE:
            seam = np.maximum(_band(np.abs(u), 0.0, 0.012, soft), _band(np.abs(u - 0.95), 0.0, 0.012, soft))
            sill = _band(v, -1.0, 0.1, soft)
            handle = _band(np.abs(np.abs(u - 0.45) - 0.1), 0.0, 0.06, soft) * _band(
                v, extent[1] - 0.2, extent[1] - 0.16, soft
            )
            return _mix(colour, (0.03, 0.03, 0.03), np.clip(seam * 0.8 + sill + handle, 0.0, 1.0))
        case Material.CAR_FRONT:
            lamp = _band(np.abs(u), extent[0] / 2 - 0.42, extent[0] / 2 - 0.08, soft) * _band(v, 0.36, 0.52, soft)
            plate = _band(np.abs(u), 0.0, 0.26, soft) * _band(v, 0.2, 0.31, soft)
            grille = _band(np.abs(u), 0.0, 0.55, soft) * _band(v, 0.33, 0.46, soft)
            bumper = _band(v, -1.0, 0.12, soft)
            colour = _mix(colour, (0.03, 0.03, 0.03), np.maximum(grille * 0.8, bumper))
            lens = np.where(seed > 0.5, channels([0.8, 0.8, 0.75]), channels([0.5, 0.03, 0.02]))
            return _mix(_mix(colour, lens, lamp), (0.75, 0.75, 0.7), plate)
        case Material.CAR_GLASS:
            pillar = np.maximum(
                _band(np.abs(u), extent[0] / 2 - 0.2, 9.0, soft),
                _band(np.abs(u + 0.05 * extent[0]), 0.0, 0.05, soft),
            )
            rim = np.maximum(_band(v, extent[1] - 0.06, 9.0, soft), _band(v, -1.0, 0.03, soft))
            glass = channels([0.05, 0.06, 0.065])
            return _mix(glass, colour, np.maximum(rim, pillar * 0.9))
        case Material.SIGN:
            radius = np.hypot(u, v - extent[1] / 2) / (extent[0] / 2)
            inner = _band(radius, -1.0, 0.62, soft * 3)
            bar = _band(np.abs(v - extent[1] / 2), 0.0, 0.06, soft) * inner
            return _mix(_mix(colour, (0.75, 0.75, 0.75), inner), (0.05, 0.05, 0.05), bar)
    return colour


def _asphalt(colour: Float, s: Float, d: Float, soft: Float, look: dict[str, Any]) -> Float:
    half = float(look["half_width"])
    patch = _hash(np.floor(s / 7.0), np.floor(d / 2.4), rgb([0.3]))
    worn = noise(s, d, 3.1) + 0.5 * noise(s, d * 3.0, 1.1)
    mended = np.select([patch < 0.22, patch > 0.85], [np.float32(0.16), np.float32(-0.12)], np.float32(0.0))
    shade = 1.0 + mended + 0.06 * worn
    crack_at = noise(s * 0.6 + 11.0, d + 5.0, 2.4)
    crack = np.clip(1.0 - np.abs(crack_at) / (0.012 + 0.4 * soft), 0.0, 1.0) * np.clip(0.06 / soft, 0.0, 1.0)
    tracks = 0.06 * np.cos((np.abs(d) - 1.0) * 3.6)
    drain = _grid(s, 18.0, 0.45, soft) * _band(np.abs(d), half - 0.5, half - 0.12, soft)
    base = colour * (shade - tracks - 0.45 * crack)
    base = _mix(base, (0.03, 0.03, 0.03), 0.8 * drain)
    dash = _band(np.mod(s, 6.0), 0.0, 3.0, soft) * _band(np.abs(d), 0.0, 0.06, soft) * float(look["marking"])
    gutter = _band(np.abs(d), half - 0.28, half, soft) * 0.35
    faded = np.clip(0.85 + 0.5 * noise(s, d, 0.5), 0.3, 1.0)
    return _mix(_mix(base, colour * 1.5, gutter), (0.62, 0.62, 0.58), np.clip(dash * faded, 0.0, 1.0))


def _bricks(colour: Float, u: Float, v: Float, soft: Float, seed: Float) -> Float:
    row = np.floor(v / 0.085)
    shifted = u + np.mod(row, 2.0) * 0.125
    joints = np.maximum(_grid(v, 0.085, 0.014, soft), _grid(shifted, 0.25, 0.014, soft))
    cell = _hash(np.floor(shifted / 0.25), row, seed)
    visible = np.clip(0.1 / soft - 0.5, 0.0, 1.0)
    return _mix(colour * (1.0 + 0.5 * (cell - 0.5) * visible), (0.4, 0.38, 0.35), joints * 0.6)


def _facade(material: int, colour: Float, u: Float, v: Float, extent: Float, seed: Float, soft: Float) -> Float:
    """A wall with a plinth and a grid of windows; ground-floor cells may hold a door, a garage has its gate."""
    if material == Material.FACADE_BRICK:
        wall = _bricks(colour, u, v, soft, seed)
    else:
        streaks = 0.06 * noise(u * 4.0, v * 0.4, 2.0) - 0.10 * np.exp(-np.maximum(v, 0.0) / 0.5)
        wall = colour * (1.0 + streaks)
    wall = _mix(wall, (0.20, 0.19, 0.18), _band(v, -9.0, 0.45, soft) * 0.9)
    if material == Material.GARAGE:
        gate = _band(np.abs(u), 0.0, np.minimum(1.25, extent[0] / 2 - 0.3), soft) * _band(v, -1.0, 2.15, soft)
        slats = 1.0 - 0.35 * _grid(v, 0.22, 0.03, soft)
        tone = (0.12 + 0.4 * _hash(seed, seed, seed)) * slats
        return _mix(wall, np.broadcast_to(tone, colour.shape), gate)
    columns = np.maximum(np.round(extent[0] / (2.5 + seed)), 1.0)
    pitch = extent[0] / columns
    column = np.floor((u + extent[0] / 2) / pitch)
    x = (u + extent[0] / 2) - (column + 0.5) * pitch
    floor = np.floor((v - 0.4) / 2.8)
    y = v - 0.4 - floor * 2.8
    cell = _hash(column, floor, seed)
    half = 0.36 + 0.22 * _hash(seed * 9.0, seed, seed)
    door = (floor == 0) & (column == np.floor(columns * _hash(seed, seed * 3.0, seed)))
    top = np.where(door, np.float32(2.15), np.float32(2.2))
    bottom = np.where(door, np.float32(-0.1), np.float32(0.85))
    fits = (v < np.floor((extent[1] - 0.4 + 0.05) / 2.8) * 2.8 + 0.4) & (cell > 0.06) & (pitch > 1.5)
    fits = fits.astype(np.float32)
    frame = _band(np.abs(x), 0.0, half + 0.09, soft) * _band(y, bottom - 0.09, top + 0.09, soft) * fits
    pane = _band(np.abs(x), 0.0, half, soft) * _band(y, bottom, top, soft) * fits
    bars = np.maximum(_band(np.abs(x), 0.0, 0.03, soft), _band(np.abs(y - 1.75), 0.0, 0.025, soft))
    shutters = _band(np.abs(np.abs(x) - half - 0.32), 0.0, 0.2, soft) * _band(y, 0.8, 2.25, soft) * fits
    shutters = shutters * ((np.mod(seed * 17.0, 1.0) < 0.35) & ~door)
    shutter_colour = np.stack([0.1 + 0.3 * seed, 0.18 - 0.1 * seed, 0.1 + 0.05 * seed])
    slats = 1.0 - 0.35 * _grid(y, 0.1, 0.02, soft)
    glass = np.stack([0.05 + 0.12 * cell, 0.07 + 0.12 * cell, 0.09 + 0.13 * cell])
    curtain = _band(y, np.where(cell > 0.6, np.float32(1.3), np.float32(9.0)), 9.0, soft)
    glass = glass * (1.0 - curtain) + curtain * channels([0.55, 0.53, 0.48])
    wood = np.stack([0.12 + 0.2 * cell, 0.1 + 0.08 * seed, 0.07 + 0.1 * cell])
    filling = np.where(door, wood, glass)
    wall = _mix(wall, shutter_colour * slats, shutters)
    wall = _mix(wall, (0.66, 0.65, 0.62), frame)
    return _mix(wall, filling, pane * (1.0 - 0.9 * bars * ~door))
