"""Lays out one drive: street, buildings, greenery, furniture, parked cars, traffic, light and the car's own path."""

from __future__ import annotations

from typing import Any

import numpy as np

from vipocc.data_manifests.synthetic import furniture
from vipocc.data_manifests.synthetic.config import WorldConfig
from vipocc.data_manifests.synthetic.furniture import Colour
from vipocc.data_manifests.synthetic.randomness import generator
from vipocc.data_manifests.synthetic.rig import IMU_HEIGHT
from vipocc.data_manifests.synthetic.scene import Builder, Scene
from vipocc.data_manifests.synthetic.street import KERB_HEIGHT, Float, Street, lay_out
from vipocc.geometry.shapes import Float64

SPLITS = ("train", "val", "test")

#: Half a car, its mirrors and a margin: what stays free on either side of a path that is driven.
_LANE = 1.15

_WALLS: dict[str, list[Colour]] = {
    "train": [(0.62, 0.56, 0.44), (0.66, 0.64, 0.60), (0.50, 0.36, 0.24), (0.58, 0.50, 0.28), (0.42, 0.46, 0.48)],
    "val": [(0.60, 0.46, 0.38), (0.50, 0.54, 0.44), (0.70, 0.55, 0.58), (0.33, 0.38, 0.50)],
    "test": [(0.46, 0.50, 0.58), (0.72, 0.70, 0.46), (0.56, 0.40, 0.32), (0.50, 0.60, 0.46)],
}
_GRASS: dict[str, Colour] = {"train": (0.12, 0.19, 0.04), "val": (0.16, 0.17, 0.05), "test": (0.08, 0.19, 0.07)}
#: Heights of the sun in radians; no two splits share any.
_SUN: dict[str, tuple[float, float]] = {"train": (0.55, 0.95), "val": (0.38, 0.50), "test": (1.0, 1.15)}
_LEAVES: dict[str, list[Colour]] = {
    "train": [(0.09, 0.17, 0.03), (0.06, 0.12, 0.03), (0.14, 0.19, 0.05)],
    "val": [(0.10, 0.15, 0.03), (0.05, 0.13, 0.05), (0.20, 0.16, 0.04)],
    "test": [(0.07, 0.15, 0.04), (0.15, 0.17, 0.03), (0.13, 0.06, 0.05)],
}


def drives(config: WorldConfig) -> list[tuple[str, str, int]]:
    """Return (drive name, split, frames) of every drive of the world, in order."""
    counts = (config.train_drives, config.val_drives, config.test_drives)
    frames = (config.train_frames, config.val_frames, config.test_frames)
    kinds = [(split, n) for split, count, n in zip(SPLITS, counts, frames, strict=True) for _ in range(count)]
    return [(f"synthetic_drive_{i:04d}_sync", split, n) for i, (split, n) in enumerate(kinds)]


def build(config: WorldConfig, index: int) -> Scene:
    """Return the scene of drive number `index`."""
    _, split, frames = drives(config)[index]
    rng = generator(config.seed, f"layout {split}", index)
    half_width = float(rng.uniform(2.8, 4.0))
    style = {
        "half_width": half_width,
        "ego": -float(np.clip(half_width - 2.55, 0.3, 1.05)),
        "pavement": float(rng.uniform(0.9, 2.0)),
        "trees": float(rng.uniform(0.25, 0.8)),
        "setback": float(rng.uniform(1.0, 5.0)),
        "terrace": float(rng.random() < 0.3),
    }
    length = config.metres_per_frame * frames * 1.1
    crossings = int(1 + length // 90)
    street = lay_out(rng, length, style["half_width"], style["pavement"], crossings)
    builder = Builder(rng, frames)
    walls, leaves = _WALLS[split], _LEAVES[split]
    for side in (1, -1):
        _plots(builder, street, style, side, walls, leaves)
        _kerbside(builder, street, style, side, leaves)
        _parked(builder, street, style, side)
    _street_end(builder, street, walls, leaves)
    s, path = _drive(config, index, frames, street, style["ego"])
    _traffic(builder, config, street, s, style["ego"])
    origin = np.round(rng.uniform(-2500.0, 2500.0, 3) * (1.0, 1.0, 0.05), 2)
    world_from_imu = path.copy()
    world_from_imu[:, :3, 3] += origin
    return builder.scene(street, _look(rng, split, street), _as_printed(world_from_imu), origin)


def _place(
    street: Street, s: float, d: float, turn: float = 0.0, z: float = KERB_HEIGHT
) -> tuple[float, float, float, float]:
    x, y, heading = street.place(s, d)
    return x, y, z, heading + turn


def _spans(street: Street, margin: float) -> list[tuple[float, float]]:
    """Return the stretches of s between side streets, `margin` metres away from them."""
    edges = [street.start + 2.0]
    for low, high in street.crossings:
        edges += [float(low) - margin, float(high) + margin]
    edges.append(street.end - 12.0)
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 4.0]


def _plots(
    builder: Builder, street: Street, style: dict[str, float], side: int, walls: list[Colour], leaves: list[Colour]
) -> None:
    """Houses with their gardens, hedges, fences and paths, on one side."""
    rng = builder.rng
    border = street.half_width + street.pavement
    for first, last in _spans(street, 3.5):
        s = first
        while s < last - 7.0:
            width = min(float(rng.uniform(8.0, 15.0)), last - s)
            depth = float(rng.uniform(8.0, 11.0))
            setback = style["setback"] * float(rng.uniform(0.7, 1.5))
            gap = 0.0 if style["terrace"] and rng.random() < 0.7 else float(rng.uniform(2.5, 7.0))
            middle = s + width / 2
            front = border + setback
            # A house's front is its +y; on the left of the street it faces right, hence the half turn.
            turn = np.pi if side > 0 else 0.0
            built = rng.random() < 0.9
            if built:
                house_width = width - (0.0 if gap == 0.0 else 0.5)
                pose = _place(street, middle, side * (front + depth / 2), turn)
                builder.add("building", pose, furniture.house(rng, walls, house_width, depth))
                door = middle + float(rng.uniform(-0.3, 0.3)) * width
                path = furniture.slab(
                    float(rng.uniform(1.2, 3.2)), setback, furniture.vary(rng, (0.3, 0.28, 0.25), 0.3)
                )
                builder.add("ground", _place(street, door, side * (border + setback / 2)), path)
            else:
                door = middle
            if setback > 1.4:
                _border(builder, street, side, border, s, s + width + gap, door, leaves)
            for _ in range(int(rng.integers(0, 3))):
                if setback > 2.2:
                    at = s + float(rng.uniform(0.5, width))
                    d = border + float(rng.uniform(1.2, setback - 0.6))
                    builder.add(
                        "vegetation",
                        _place(street, at, side * d),
                        furniture.bush(rng, leaves[int(rng.integers(len(leaves)))]),
                    )
            for _ in range(int(rng.integers(1, 4))):
                at, d = s + float(rng.uniform(0, width + gap)), front + depth + float(rng.uniform(2.5, 12.0))
                builder.add(
                    "vegetation",
                    _place(street, at, side * d),
                    furniture.tree(rng, leaves[int(rng.integers(len(leaves)))]),
                )
            s += width + gap


def _border(
    builder: Builder,
    street: Street,
    side: int,
    border: float,
    first: float,
    last: float,
    door: float,
    leaves: list[Colour],
) -> None:
    """A hedge or a fence along the pavement, open at the door and left out of one plot in five."""
    rng = builder.rng
    if rng.random() < 0.2:
        return
    hedged = rng.random() < 0.6
    leaf = leaves[int(rng.integers(len(leaves)))]
    for a, b in ((first, door - 1.3), (door + 1.3, last)):
        at = a
        while b - at > 0.8:
            # Short pieces follow the street's bends.
            piece = min(6.0, b - at)
            pose = _place(street, at + piece / 2, side * (border + 0.55))
            if hedged:
                builder.add("vegetation", pose, furniture.hedge(rng, leaf, piece))
            else:
                builder.add("fence", pose, furniture.fence(rng, piece))
            at += piece


def _kerbside(builder: Builder, street: Street, style: dict[str, float], side: int, leaves: list[Colour]) -> None:
    """Lamps, signs, bins and street trees on the pavement."""
    rng = builder.rng
    edge = street.half_width + 0.45
    for first, last in _spans(street, 1.5):
        for s in np.arange(first + float(rng.uniform(0, 12)), last, 24.0):
            if side > 0:
                builder.add("pole", _place(street, float(s), side * edge, -np.pi / 2 * side), furniture.lamp(rng))
            if rng.random() < 0.4:
                builder.add(
                    "sign", _place(street, float(s) + 3.0, side * edge, 0.0 if side < 0 else np.pi), furniture.sign(rng)
                )
            if rng.random() < 0.5:
                builder.add(
                    "bin",
                    _place(street, float(s) + 8.0, side * (street.half_width + street.pavement - 0.4)),
                    furniture.bin_(rng),
                )
        at = first + float(rng.uniform(1, 8))
        while at < last and street.pavement > 1.5:
            if rng.random() < style["trees"]:
                leaf = leaves[int(rng.integers(len(leaves)))]
                builder.add("vegetation", _place(street, at, side * (edge + 0.2)), furniture.tree(rng, leaf))
            at += float(rng.uniform(8.0, 14.0))


def _two_way(half_width: float) -> bool:
    """Return whether cars can meet between the parked ones."""
    return half_width >= 3.6


def _parked(builder: Builder, street: Street, style: dict[str, float], side: int) -> None:
    """Cars at the kerb, in rows with gaps, denser here than there; where the street is narrow, half on the pavement."""
    rng = builder.rng
    # The innermost lane edge on this side: the recording car's, or the oncoming cars' on the left of a two-way street.
    lane = style["ego"] * side + _LANE + (2 * _LANE if side > 0 and _two_way(street.half_width) else 0.0)
    d = max(street.half_width - 0.8, lane + 1.0)
    z = 0.0 if d < street.half_width - 0.6 else KERB_HEIGHT / 2
    for first, last in _spans(street, 5.0):
        s, zone_end, density = first + float(rng.uniform(0, 6)), first, 0.0
        while s < last - 2.5:
            if s >= zone_end:
                zone_end, density = s + float(rng.uniform(20.0, 45.0)), float(rng.choice([0.1, 0.5, 0.85, 0.95]))
            if rng.random() < density:
                turn = (0.0 if side < 0 else np.pi) + float(rng.normal(0, 0.02))
                pose = _place(street, s, side * (d + float(rng.uniform(0.0, 0.2))), turn, z)
                builder.add("car", pose, furniture.car(rng))
                s += float(rng.uniform(5.4, 6.6))
            else:
                s += float(rng.uniform(4.0, 8.0))


def _street_end(builder: Builder, street: Street, walls: list[Colour], leaves: list[Colour]) -> None:
    """Close the view at both ends, as a T-junction would."""
    rng = builder.rng
    for end, turn in ((street.end - 5.0, np.pi / 2), (street.start - 6.0, -np.pi / 2)):
        for d in (-15.0, 0.0, 15.0):
            pose = _place(street, end, d + float(rng.uniform(-2, 2)), turn, z=0.0)
            builder.add("building", pose, furniture.house(rng, walls, float(rng.uniform(11, 14)), 9.0))
        for d in np.arange(-40.0, 41.0, 8.0):
            beyond = end + (9.0 if turn > 0 else -9.0)
            pose = _place(street, beyond, float(d) + float(rng.uniform(-2, 2)), 0.0, z=0.0)
            builder.add("vegetation", pose, furniture.tree(rng, leaves[int(rng.integers(len(leaves)))]))


def _drive(config: WorldConfig, index: int, frames: int, street: Street, ego_d: float) -> tuple[Float64, Float64]:
    """Return s [frames] and scene_from_imu [frames, 4, 4]: driving with small changes of speed, lane and attitude."""
    rng = generator(config.seed, "path", index)
    t = np.arange(frames)

    def wave(amplitude: float, period: float) -> Float64:
        return np.asarray(amplitude * np.sin(2 * np.pi * (t / period + rng.random())))

    s = np.cumsum(config.metres_per_frame * (1.0 + wave(0.06, 57.0))) + wave(0.05, 9.0)
    s -= s[0]
    d = ego_d + wave(0.12, 83.0) + wave(0.03, 21.0)
    poses = np.zeros((frames, 4, 4))
    places = np.array([street.place(float(a), float(b)) for a, b in zip(s, d, strict=True)])
    yaw = places[:, 2] + np.gradient(d) / np.gradient(s) + wave(0.002, 13.0)
    pitch, roll = wave(0.004, 17.0) + wave(0.003, 7.0), wave(0.005, 23.0)
    forward = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1)
    level = np.stack([np.sin(yaw), -np.cos(yaw), np.zeros(frames)], axis=1)
    up = np.cross(level, forward)
    right = np.cos(roll)[:, None] * level + np.sin(roll)[:, None] * up
    poses[:, :3, 0], poses[:, :3, 1], poses[:, :3, 2] = forward, right, np.cross(forward, right)
    poses[:, :2, 3], poses[:, 2, 3], poses[:, 3, 3] = places[:, :2], IMU_HEIGHT + wave(0.01, 11.0), 1.0
    return s, poses


def _traffic(builder: Builder, config: WorldConfig, street: Street, ego: Float64, ego_d: float) -> None:
    """Oncoming and crossing cars, one car ahead, people walking along and across. Nobody meets the recording car."""
    rng = builder.rng
    frames, t = len(ego), np.arange(len(ego))
    amount = config.traffic

    def along(s: Float, d: Float | float, z: float, turn: float = 0.0) -> Float64:
        d = np.broadcast_to(np.asarray(d, np.float64), s.shape)
        return np.array([_place(street, float(a), float(b), turn, z) for a, b in zip(s, d, strict=True)])

    other = ego_d + 2 * _LANE
    if _two_way(street.half_width):
        gap = 42.0 / max(amount, 1e-6)
        position = float(rng.uniform(15.0, 50.0))
        speed = float(rng.uniform(0.6, 0.9))
        while amount > 0 and position < ego[-1] * 2 + 60.0:
            s = position - speed * t
            builder.add("car", along(s, other, 0.0, np.pi), furniture.car(rng))
            position += gap * float(rng.uniform(0.6, 1.6))
    if rng.random() < 0.5 * amount:
        lead = ego + float(rng.uniform(17.0, 32.0)) + 2.0 * np.sin(t / 31.0)
        builder.add("car", along(lead, ego_d, 0.0), furniture.car(rng))
    for low, high in street.crossings:
        # A car crosses when the recording car is still about 20 m away from the side street.
        arrives = int(np.argmin(np.abs(ego - (low - rng.uniform(16.0, 24.0)))))
        if amount > 0 and 0 < arrives < frames - 1 and rng.random() < 0.9:
            way = 1.0 if rng.random() < 0.5 else -1.0
            s = np.full(frames, (low + high) / 2 + way * (high - low) * 0.22)
            d = way * float(rng.uniform(0.5, 0.75)) * (t - arrives)
            d = np.clip(d, -44.0, 44.0)
            builder.add("car", along(s, d, 0.0, way * np.pi / 2), furniture.car(rng))
    walkers = int(rng.poisson(amount * (ego[-1] + 60.0) / 9.0))
    for _ in range(walkers):
        side, way = rng.choice([-1.0, 1.0]), rng.choice([-1.0, 1.0])
        start = float(rng.uniform(-5.0, ego[-1] + 60.0))
        step = float(rng.uniform(0.08, 0.16))
        d = side * (street.half_width + street.pavement - float(rng.uniform(0.3, 0.45)))
        s = start + way * step * t
        if not np.any(street.crosses(s, 0.5)):
            builder.add("person", along(s, d, KERB_HEIGHT, 0.0 if way > 0 else np.pi), furniture.person(rng))
    for low, _ in street.crossings:
        if rng.random() < 0.6 * amount:
            way = rng.choice([-1.0, 1.0])
            arrives = int(np.argmin(np.abs(ego - (low - rng.uniform(18.0, 26.0)))))
            d = np.clip(way * 0.13 * (t - arrives), -(street.half_width + 1.0), street.half_width + 1.0)
            z = np.where(np.abs(d) > street.half_width, KERB_HEIGHT, 0.0)
            pose = along(np.full(frames, float(low) - 2.5), d, 0.0, float(way) * np.pi / 2)
            pose[:, 2] = z
            # Still on the carriageway when the recording car arrives, it would be run over: it waits on the far side.
            if abs(d[int(np.argmin(np.abs(ego - (low - 5.0))))] - ego_d) > 1.8:
                builder.add("person", pose, furniture.person(rng))


def _look(rng: np.random.Generator, split: str, street: Street) -> dict[str, Any]:
    """Light, sky and ground colours of a drive."""
    azimuth, height = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(*_SUN[split]))
    overcast = float(rng.uniform(0.0, 0.55))
    sun = [np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]
    warm = 1.0 - 0.35 * (1.05 - height)
    strength = 3.2 * (1.0 - 0.75 * overcast)
    return {
        "sun": [float(v) for v in sun],
        "sun_colour": [strength, strength * (0.55 + 0.42 * warm), strength * (0.25 + 0.65 * warm)],
        "ambient": [0.30 + 0.35 * overcast, 0.37 + 0.32 * overcast, 0.50 + 0.25 * overcast],
        "zenith": [0.20 + 0.5 * overcast, 0.42 + 0.4 * overcast, 0.95],
        "horizon": [0.95, 1.05, 1.15],
        "clouds": float(rng.uniform(0.2, 0.9)),
        "haze": float(rng.uniform(400.0, 1500.0)),
        "exposure": float(rng.uniform(0.8, 1.1)),
        "asphalt": [float(v) for v in furniture.vary(rng, (0.16, 0.16, 0.165), 0.08)],
        "pavement": [float(v) for v in furniture.vary(rng, (0.27, 0.26, 0.25), 0.15)],
        "grass": [float(v) for v in furniture.vary(rng, _GRASS[split], 0.35)],
        "marking": float(rng.choice([0.0, 1.0, 1.0])),
        "half_width": street.half_width,
    }


def _as_printed(world_from_imu: Float64) -> Float64:
    """Round poses as poses.txt prints them, so that the pictures agree with the file to the last digit."""
    flat = [[float(f"{value:.10g}") for value in pose.ravel()] for pose in world_from_imu[:, :3]]
    result = world_from_imu.copy()
    result[:, :3] = np.array(flat).reshape(-1, 3, 4)
    return result
