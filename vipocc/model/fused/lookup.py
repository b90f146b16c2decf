"""Device functions that the kernels share: points on rays, projection, bilinear lookup, sines.

Maps are channels last, so that a corner of a bilinear lookup is one line of memory.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def points_on_ray(origins, directions, ray, t):
    """Points [S] at distances t along a ray, and whether it starts at the key camera's centre."""
    ox, oy, oz = tl.load(origins + ray * 3), tl.load(origins + ray * 3 + 1), tl.load(origins + ray * 3 + 2)
    dx, dy, dz = tl.load(directions + ray * 3), tl.load(directions + ray * 3 + 1), tl.load(directions + ray * 3 + 2)
    central = (ox == 0.0) & (oy == 0.0) & (oz == 0.0)
    return ox + dx * t, oy + dy * t, oz + dz * t, central


@triton.jit
def project(x, y, z, matrix, eps):
    """Normalised coordinates and depth, at least eps, of points [S] under a matrix [3, 4]."""
    qx = x * tl.load(matrix) + y * tl.load(matrix + 1) + z * tl.load(matrix + 2) + tl.load(matrix + 3)
    qy = x * tl.load(matrix + 4) + y * tl.load(matrix + 5) + z * tl.load(matrix + 6) + tl.load(matrix + 7)
    qz = x * tl.load(matrix + 8) + y * tl.load(matrix + 9) + z * tl.load(matrix + 10) + tl.load(matrix + 11)
    qz = tl.maximum(qz, eps)
    return qx / qz, qy / qz, qz


@triton.jit
def outside(u, v, z, eps):
    """Whether no pixel shows a point."""
    return (z <= eps) | (tl.abs(u) > 1.0) | (tl.abs(v) > 1.0)


@triton.jit
def corners(u, v, height, width):
    """Columns and rows of the four pixels around a place, clamped to the border; shares of the right and lower ones."""
    x = tl.minimum(tl.maximum(((u + 1.0) * width - 1.0) * 0.5, 0.0), width - 1.0)
    y = tl.minimum(tl.maximum(((v + 1.0) * height - 1.0) * 0.5, 0.0), height - 1.0)
    left, top = tl.floor(x), tl.floor(y)
    x0, y0 = left.to(tl.int32), top.to(tl.int32)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    return x0, x1, y0, y1, x - left, y - top


@triton.jit
def lookup(rows, x0, x1, y0, y1, right, lower, width, CHANNELS: tl.constexpr):
    """Bilinear lookup [S, CHANNELS] in the map that begins at `rows`, as float32."""
    channel = tl.arange(0, CHANNELS)[None, :]
    a = tl.load(rows + ((y0 * width + x0) * CHANNELS)[:, None] + channel).to(tl.float32)
    b = tl.load(rows + ((y0 * width + x1) * CHANNELS)[:, None] + channel).to(tl.float32)
    c = tl.load(rows + ((y1 * width + x0) * CHANNELS)[:, None] + channel).to(tl.float32)
    d = tl.load(rows + ((y1 * width + x1) * CHANNELS)[:, None] + channel).to(tl.float32)
    right, lower = right[:, None], lower[:, None]
    return (1.0 - lower) * ((1.0 - right) * a + right * b) + lower * ((1.0 - right) * c + right * d)


@triton.jit
def scatter(rows, gradient, x0, x1, y0, y1, right, lower, width, CHANNELS: tl.constexpr):
    """Add the gradient [S, CHANNELS] of a lookup to the float32 map that begins at `rows`."""
    channel = tl.arange(0, CHANNELS)[None, :]
    right, lower = right[:, None], lower[:, None]
    place = rows + ((y0 * width + x0) * CHANNELS)[:, None] + channel
    tl.atomic_add(place, gradient * (1.0 - right) * (1.0 - lower), sem="relaxed")
    place = rows + ((y0 * width + x1) * CHANNELS)[:, None] + channel
    tl.atomic_add(place, gradient * right * (1.0 - lower), sem="relaxed")
    place = rows + ((y1 * width + x0) * CHANNELS)[:, None] + channel
    tl.atomic_add(place, gradient * (1.0 - right) * lower, sem="relaxed")
    place = rows + ((y1 * width + x1) * CHANNELS)[:, None] + channel
    tl.atomic_add(place, gradient * right * lower, sem="relaxed")


@triton.jit
def sine_cosine(angle):
    """Sine and cosine to 1e-7 for any angle in radians that float32 can tell from its neighbours.

    The angle becomes turns by 1/(2 pi) in two parts, so that large ones (points behind the camera) keep the digits
    they have; then a Taylor series within an eighth of a turn.
    """
    whole = tl.floor(angle * 0.15915494309189535 + 0.5)
    turns = tl.fma(angle, 0.15915493667125702, -whole) + angle * 6.420638e-09
    quarter = tl.floor(turns * 4.0 + 0.5)
    a = (turns - quarter * 0.25) * 6.283185307179586
    q = a * a
    sine = a * (1.0 + q * (-1.0 / 6.0 + q * (1.0 / 120.0 + q * (-1.0 / 5040.0 + q * (1.0 / 362880.0)))))
    cosine = 1.0 + q * (-0.5 + q * (1.0 / 24.0 + q * (-1.0 / 720.0 + q * (1.0 / 40320.0))))
    k = quarter.to(tl.int32) & 3
    swapped = (k & 1) == 1
    first, second = tl.where(swapped, cosine, sine), tl.where(swapped, sine, cosine)
    return tl.where(k >= 2, -first, first), tl.where((k == 1) | (k == 2), -second, second)
