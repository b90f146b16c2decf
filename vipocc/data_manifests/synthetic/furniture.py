"""What stands in a street and moves along it: each function returns the parts of one object in its own frame."""

from __future__ import annotations

import numpy as np

from vipocc.data_manifests.synthetic.materials import Material as M
from vipocc.data_manifests.synthetic.scene import Part

Colour = tuple[float, float, float]

_CAR_COLOURS: list[Colour] = [
    (0.62, 0.62, 0.62), (0.28, 0.29, 0.30), (0.03, 0.03, 0.035), (0.75, 0.75, 0.73), (0.35, 0.03, 0.025),
    (0.04, 0.09, 0.30), (0.05, 0.17, 0.09), (0.45, 0.40, 0.30), (0.55, 0.22, 0.02), (0.10, 0.22, 0.32),
]  # fmt: skip


def vary(rng: np.random.Generator, colour: Colour, amount: float = 0.15) -> Colour:
    """Return a colour a little lighter or darker, and a little shifted."""
    light, *shift = rng.uniform(-1.0, 1.0, 4).tolist()
    channels = (c * (1.0 + amount * light) * (1.0 + amount / 2 * own) for c, own in zip(colour, shift, strict=True))
    r, g, b = (min(max(c, 0.01), 0.95) for c in channels)
    return r, g, b


def car(rng: np.random.Generator, colours: list[Colour] | None = None) -> list[Part]:
    """Return a car, an estate or a van; x forward, on the ground, about 4.3 x 1.8 x 1.5 m."""
    palette = colours or _CAR_COLOURS
    paint = vary(rng, palette[int(rng.integers(len(palette)))], 0.1)
    van = rng.random() < 0.22
    length, width = (rng.uniform(4.7, 5.2), 1.95) if van else (rng.uniform(3.7, 4.7), rng.uniform(1.68, 1.84))
    waist, roof = (1.15, rng.uniform(1.9, 2.1)) if van else (rng.uniform(0.86, 0.96), rng.uniform(1.42, 1.58))
    wheel = 0.68 if van else 0.62
    estate = van or rng.random() < 0.5
    cabin_length = length * (0.78 if estate else 0.62)
    cabin_x = -length * (0.1 if estate else 0.06)
    glass = (M.CAR_GLASS, M.CAR_GLASS, M.CAR_PAINT)
    body = (M.CAR_FRONT, M.CAR_SIDE, M.CAR_PAINT)
    body_height = waist - 0.2
    parts = [
        Part("car_body", (0, 0, 0.2 + body_height / 2), (length, width, body_height), body, paint),
        Part(
            "van_cabin" if estate else "cabin",
            (cabin_x, 0, (waist + roof) / 2 - 0.02),
            (cabin_length, width * 0.94, roof - waist + 0.04),
            glass,
            paint,
        ),
    ]  # fmt: skip
    for x in (0.31 * length, -0.31 * length):
        for y in (width / 2 - 0.09, -width / 2 + 0.09):
            parts.append(Part("wheel", (x, y, wheel / 2), (wheel, 0.22, wheel), M.TYRE, (0.03, 0.03, 0.032)))
    for side in (1, -1):
        mirror = (cabin_x + cabin_length * 0.3, side * (width / 2 + 0.06), waist + 0.08)
        parts.append(Part("box", mirror, (0.14, 0.2, 0.14), M.CAR_PAINT, paint))
    return parts


def person(rng: np.random.Generator) -> list[Part]:
    """Return a standing or walking person facing +x, about 1.75 m tall."""
    height = rng.uniform(1.55, 1.9)
    scale = height / 1.75
    tops: list[Colour] = [(0.5, 0.06, 0.05), (0.05, 0.1, 0.35), (0.6, 0.6, 0.58), (0.05, 0.05, 0.05), (0.6, 0.45, 0.05)]
    legs: list[Colour] = [(0.04, 0.06, 0.14), (0.06, 0.06, 0.06), (0.25, 0.2, 0.14)]
    top = vary(rng, tops[int(rng.integers(len(tops)))], 0.2)
    leg = vary(rng, legs[int(rng.integers(len(legs)))], 0.2)
    skin = vary(rng, (0.5, 0.3, 0.2), 0.35)
    stride = rng.uniform(0.1, 0.3)
    part = []
    for y in (1, -1):
        limb = (0, y * 0.1 * scale, 0.43 * scale), (0.17 * scale, 0.17 * scale, 0.9 * scale)
        part.append(Part("cylinder", *limb, M.CLOTH, leg, 0, y * stride))
        limb = (0, y * 0.25 * scale, 1.15 * scale), (0.11 * scale, 0.11 * scale, 0.62 * scale)
        part.append(Part("cylinder", *limb, M.CLOTH, top, 0, -y * stride))
    part.append(Part("torso", (0, 0, 1.15 * scale), (0.3 * scale, 0.42 * scale, 0.66 * scale), M.CLOTH, top))
    part.append(Part("ball", (0.01, 0, 1.61 * scale), (0.21 * scale, 0.18 * scale, 0.27 * scale), M.SKIN, skin))
    hair = vary(rng, (0.08, 0.05, 0.03), 0.5)
    part.append(Part("ball", (-0.02, 0, 1.67 * scale), (0.22 * scale, 0.2 * scale, 0.2 * scale), M.CLOTH, hair))
    return part


def tree(rng: np.random.Generator, leaf: Colour) -> list[Part]:
    """Return a tree of 5 to 11 m: a trunk and a crown of overlapping clumps of leaves."""
    height = rng.uniform(5.0, 11.0)
    trunk = height * rng.uniform(0.28, 0.42)
    width = rng.uniform(0.22, 0.45)
    bark = vary(rng, (0.13, 0.10, 0.075), 0.3)
    parts = [Part("cylinder", (0, 0, height * 0.3), (width, width, height * 0.6), M.BARK, bark)]
    conical = rng.random() < 0.2
    crown = height - trunk
    spread = min(crown * rng.uniform(0.32, 0.5), 2.9)
    for k in range(int(rng.integers(14, 20))):
        level = (k + 0.5) / 15 if conical else rng.random()
        level = min(level, 1.0)
        reach = spread * ((1.0 - level) if conical else np.sqrt(max(1.0 - (1.9 * level - 0.95) ** 2, 0.05)))
        angle = rng.uniform(0, 2 * np.pi)
        out = reach * np.sqrt(rng.random()) * 0.8
        size = spread * rng.uniform(0.75, 1.25) * (1.1 - 0.5 * level * conical)
        position = (out * np.cos(angle), out * np.sin(angle), trunk + crown * (0.1 + 0.8 * level))
        parts.append(
            Part(
                "ball",
                position,
                (size * rng.uniform(0.9, 1.3), size * rng.uniform(0.9, 1.3), size * rng.uniform(0.7, 1.1)),
                M.LEAVES,
                vary(rng, leaf, 0.25),
                rng.uniform(0, 3),
            )
        )
    return parts


def bush(rng: np.random.Generator, leaf: Colour) -> list[Part]:
    """Return a bush of 0.6 to 1.8 m."""
    height = rng.uniform(0.6, 1.8)
    return [
        Part(
            "ball",
            (rng.uniform(-0.5, 0.5) * height, rng.uniform(-0.3, 0.3) * height, height * rng.uniform(0.3, 0.5)),
            (height * rng.uniform(0.7, 1.1), height * rng.uniform(0.7, 1.0), height * rng.uniform(0.8, 1.0)),
            M.LEAVES,
            vary(rng, leaf, 0.3),
            rng.uniform(0, 3),
        )
        for _ in range(int(rng.integers(3, 6)))
    ]


def hedge(rng: np.random.Generator, leaf: Colour, length: float) -> list[Part]:
    """Return a hedge along x, of uneven blocks, 1 to 2.1 m high."""
    height, depth = rng.uniform(1.0, 2.1), rng.uniform(0.5, 1.0)
    count = max(1, round(length / 1.6))
    step = length / count
    return [
        Part(
            "box",
            (-length / 2 + step * (k + 0.5), rng.uniform(-0.05, 0.05), height / 2 + rng.uniform(-0.05, 0.05)),
            (step * 1.02, depth * rng.uniform(0.9, 1.1), height * rng.uniform(0.95, 1.05)),
            M.HEDGE,
            vary(rng, leaf, 0.12),
        )
        for k in range(count)
    ]


def fence(rng: np.random.Generator, length: float) -> list[Part]:
    """Return a wooden fence or a low wall along x."""
    if rng.random() < 0.5:
        height = rng.uniform(0.5, 1.1)
        return [
            Part("box", (0, 0, height / 2), (length, 0.24, height), M.BRICK, vary(rng, (0.30, 0.13, 0.08), 0.3)),
            Part("box", (0, 0, height + 0.03), (length, 0.32, 0.07), M.CONCRETE, (0.35, 0.34, 0.32)),
        ]
    height = rng.uniform(0.9, 1.7)
    wood = vary(rng, (0.22, 0.14, 0.08), 0.35)
    parts = [Part("box", (0, 0, height / 2 + 0.05), (length, 0.05, height - 0.1), M.PLANKS, wood)]
    for k in range(int(length // 2) + 1):
        parts.append(Part("box", (-length / 2 + 2.0 * k, 0, height / 2), (0.12, 0.12, height + 0.1), M.BARK, wood))
    return parts


def lamp(rng: np.random.Generator) -> list[Part]:
    """Return a street lamp, its arm along +x."""
    height, arm = rng.uniform(5.5, 7.0), rng.uniform(0.8, 1.6)
    grey = vary(rng, (0.22, 0.24, 0.23), 0.3)
    return [
        Part("cylinder", (0, 0, height / 2), (0.14, 0.14, height), M.METAL, grey),
        Part("cylinder", (0, 0, 0.5), (0.22, 0.22, 1.0), M.METAL, grey),
        Part("box", (arm / 2, 0, height), (arm, 0.08, 0.08), M.METAL, grey),
        Part("box", (arm, 0, height - 0.03), (0.6, 0.26, 0.14), M.METAL, (0.5, 0.5, 0.48)),
    ]


def sign(rng: np.random.Generator) -> list[Part]:
    """Return a traffic sign whose face looks along -x."""
    height = rng.uniform(2.2, 2.6)
    colours: list[Colour] = [(0.55, 0.03, 0.03), (0.03, 0.10, 0.45), (0.6, 0.6, 0.6), (0.65, 0.45, 0.02)]
    size = rng.uniform(0.5, 0.75)
    return [
        Part("cylinder", (0, 0, height / 2), (0.07, 0.07, height), M.METAL, (0.35, 0.35, 0.35)),
        Part("box", (-0.05, 0, height - size / 2), (0.03, size, size), M.SIGN, colours[int(rng.integers(4))]),
    ]


def bin_(rng: np.random.Generator) -> list[Part]:
    """Return a wheeled bin."""
    colours: list[Colour] = [(0.06, 0.07, 0.06), (0.05, 0.18, 0.06), (0.10, 0.12, 0.25), (0.35, 0.22, 0.02)]
    colour = vary(rng, colours[int(rng.integers(4))])
    return [
        Part("box", (0, 0, 0.5), (0.55, 0.5, 0.95), M.METAL, colour),
        Part("box", (0.02, 0, 1.0), (0.65, 0.56, 0.09), M.METAL, vary(rng, colour)),
    ]


def house(rng: np.random.Generator, walls: list[Colour], width: float, depth: float) -> list[Part]:
    """Return a house: its front looks along +y, `width` along x; 1 to 4 floors under a gabled or flat roof."""
    floors = int(rng.choice([1, 2, 2, 2, 3, 4]))
    height = 0.4 + 2.8 * floors
    wall = vary(rng, walls[int(rng.integers(len(walls)))], 0.12)
    kind = M.FACADE_BRICK if rng.random() < 0.25 else M.FACADE
    if kind == M.FACADE_BRICK:
        wall = vary(rng, (0.28, 0.12, 0.075), 0.25)
    parts = [Part("box", (0, 0, height / 2), (width, depth, height), (kind, kind, M.CONCRETE), wall)]
    tiles = vary(rng, (0.26, 0.09, 0.055) if rng.random() < 0.65 else (0.11, 0.10, 0.10), 0.3)
    if rng.random() < 0.82:
        rise = rng.uniform(0.3, 0.55) * depth
        top = (0, 0, height + rise / 2)
        parts.append(Part("gable", top, (width + 0.5, depth + 0.9, rise), (kind, M.TILES, M.TILES), tiles))
        chimney = (width * rng.uniform(-0.3, 0.3), depth * 0.1, height + rise * 0.85)
        parts.append(Part("box", chimney, (0.6, 0.6, rise * 0.7 + 0.8), M.BRICK, (0.25, 0.11, 0.08)))
        if rng.random() < 0.5:
            dormer = (width * rng.uniform(-0.25, 0.25), depth * 0.27, height + rise * 0.42)
            parts.append(Part("box", dormer, (1.9, depth * 0.3, 1.4), (M.CONCRETE, M.FACADE, M.TILES), wall))
    else:
        parts.append(Part("box", (0, 0, height + 0.15), (width + 0.3, depth + 0.3, 0.3), M.CONCRETE, (0.3, 0.3, 0.3)))
    if rng.random() < 0.5:
        porch = (width * rng.uniform(-0.25, 0.25), depth / 2 + 0.6, 1.3)
        parts.append(Part("box", porch, (2.2, 1.2, 2.6), (kind, kind, M.TILES), vary(rng, wall)))
    if rng.random() < 0.4:
        balcony = (width * rng.uniform(-0.25, 0.25), depth / 2 + 0.5, 3.4)
        parts.append(Part("box", balcony, (2.6, 1.0, 0.9), M.CONCRETE, vary(rng, (0.5, 0.48, 0.45))))
    if rng.random() < 0.35:
        side = (width / 2 + 1.5) * (1 if rng.random() < 0.5 else -1)
        parts.append(
            Part(
                "box",
                (side, depth * 0.1, 1.3),
                (3.0, depth * 0.7, 2.6),
                (M.CONCRETE, M.GARAGE, M.CONCRETE),
                vary(rng, wall),
            )
        )
    return parts


def slab(width: float, length: float, colour: Colour) -> list[Part]:
    """Return a paved path of 2 cm on the ground, along y."""
    return [Part("box", (0, 0, 0.0), (width, length, 0.04), M.PAVING, colour)]
