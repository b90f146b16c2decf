"""The unconditioned sampling density p(x) of Eq. 4: Gaussians at critical instances, uniform elsewhere.

Anchors are integer patch centres whose whole patch lies inside the image ("valid centres"), so the density is a
probability mass function on that grid: each Gaussian is evaluated at the valid centres and normalised over them,
which truncates the Gaussian of an object at the border, or of one larger than the image, instead of losing its
weight. A Gaussian with a diagonal covariance stays a product of two one-dimensional laws under that truncation, which
is what makes drawing from it cheap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import UsageError
from vipocc.priors.snog.config import SnogConfig

Float64 = NDArray[np.float64]

SMALLEST_AREA = 2.0
"""Instances below this many pixels are dropped: the logarithm of an area of one is no weight, of zero no number."""

SMALLEST_HALF_EXTENT = 0.5
"""A detected box is at least one pixel wide, else its Gaussian would have no width."""


@dataclass(frozen=True)
class Instances:
    """What is known of the K instances of one image."""

    boxes: NDArray[Any]
    """[K, 4] x0, y0, x1, y1 in pixels of the image."""
    areas: NDArray[Any]
    """[K] semantic areas s_k in pixels, measured before masks overlap."""
    gaussian: NDArray[np.bool_]
    """[K], whether the class is sampled by a Gaussian (car, pedestrian, ...) or uniformly (road, sky, ...)."""
    index: NDArray[np.uint8]
    """[H, W], number of the instance at a pixel plus one, 0 where there is none."""

    def __post_init__(self) -> None:
        count = len(self.areas)
        if self.boxes.shape != (count, 4) or self.gaussian.shape != (count,) or self.index.ndim != 2:
            raise UsageError(
                f"instances do not fit together: boxes {self.boxes.shape}, areas {self.areas.shape}, "
                f"kinds {self.gaussian.shape}, index map {self.index.shape}"
            )

    @property
    def critical(self) -> NDArray[np.bool_]:
        """[K], the Gaussian-kind instances that are large enough to have a weight."""
        usable = np.isfinite(self.boxes).all(axis=1) & (self.areas >= SMALLEST_AREA)
        return np.asarray(self.gaussian & usable, dtype=np.bool_)

    @property
    def critical_mask(self) -> NDArray[np.bool_]:
        """[H, W], the pixels of critical instances (the set S of Eq. A.5)."""
        table = np.zeros(256, dtype=np.bool_)
        table[1 + np.flatnonzero(self.critical)] = True
        return np.asarray(table[self.index], dtype=np.bool_)

    @classmethod
    def none(cls, size: tuple[int, int]) -> Instances:
        """Return the instances of an image (height, width) in which nothing was detected."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.bool_), np.zeros(size, dtype=np.uint8))


@dataclass(frozen=True)
class Mixture:
    """p(x) on the valid centres of one image, in the form that draws are made from."""

    size: tuple[int, int]
    """Height and width of the image."""
    patch: int
    weights: Float64
    """[K + 1] component weights, (1 - gamma) pi_k and last the uniform part's; they sum to one."""
    columns: Float64
    """[K, columns of valid centres], probability of each column under each Gaussian; rows sum to one."""
    rows: Float64
    """[K, rows of valid centres], likewise of each row."""
    area: NDArray[np.int32]
    """Flat indices, into the grid of valid centres, of the uniform part; never empty."""

    @property
    def origin(self) -> int:
        """Column and row of the first valid centre."""
        return self.patch // 2

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of valid centres."""
        return self.size[0] - self.patch + 1, self.size[1] - self.patch + 1

    @cached_property
    def cumulative(self) -> tuple[Float64, Float64]:
        """Flattened cumulative `columns` and `rows`, row k raised by k: one search serves draws of all Gaussians."""
        return _cumulative(self.columns), _cumulative(self.rows)


def mixture(instances: Instances, size: tuple[int, int], config: SnogConfig) -> Mixture:
    """Return p(x) of Eq. 4 with the parameters of Eq. 5 for an image of `size` (height, width).

    mu_k is the centre of the box, Sigma_k = diag(b b / 4) with b half its extents, pi_k = log s_k / sum log s_k over
    the Gaussian-kind instances of at least 2 pixels. Without one of those the mixture is uniform over the image. An
    empty uniform area (masks that cover every valid centre) means the whole image.

    Raises:
        UsageError: the image has no valid centre, or the index map is of another size.
    """
    height, width = size
    if instances.index.shape != (height, width):
        raise UsageError(f"the index map is {instances.index.shape}, the image {size}")
    origin, patch = config.patch // 2, config.patch
    rows, columns = height - patch + 1, width - patch + 1
    if rows < 1 or columns < 1:
        raise UsageError(f"an image of {height}x{width} has no place for a patch of {patch}x{patch}")

    chosen = instances.critical
    everywhere = np.arange(rows * columns, dtype=np.int32)
    if not chosen.any():
        return Mixture(size, patch, np.ones(1), np.zeros((0, columns)), np.zeros((0, rows)), everywhere)

    boxes = instances.boxes[chosen].astype(np.float64)
    logarithms = np.log(instances.areas[chosen].astype(np.float64))
    weights = np.append((1.0 - config.gamma) * logarithms / logarithms.sum(), config.gamma)
    across = _gaussian(boxes[:, 0], boxes[:, 2], origin, columns)
    down = _gaussian(boxes[:, 1], boxes[:, 3], origin, rows)
    area = everywhere
    if config.uniform_area == "outside_gaussian":
        outside = ~instances.critical_mask[origin : origin + rows, origin : origin + columns]
        free = np.flatnonzero(outside).astype(np.int32)
        area = free if len(free) else everywhere
    return Mixture(size, patch, weights, across, down, area)


def density(of: Mixture) -> Float64:
    """Return p(x) [H, W], the probability that the first anchor is at a pixel; zero at centres that are not valid."""
    rows, columns = of.grid
    inner = np.einsum("k,kr,kc->rc", of.weights[:-1], of.rows, of.columns, optimize=True)
    inner.reshape(-1)[of.area] += of.weights[-1] / len(of.area)
    whole = np.zeros(of.size)
    whole[of.origin : of.origin + rows, of.origin : of.origin + columns] = inner
    return whole


def _gaussian(low: Float64, high: Float64, origin: int, count: int) -> Float64:
    # Normalised from logarithms, so that a box far outside the valid centres keeps its weight at the nearest ones.
    half = np.maximum(np.abs(high - low) / 2.0, SMALLEST_HALF_EXTENT)
    deviation = (np.arange(origin, origin + count) - ((low + high) / 2.0)[:, None]) / (half / 2.0)[:, None]
    exponent = -0.5 * deviation**2
    values = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _cumulative(probabilities: Float64) -> Float64:
    table = np.cumsum(probabilities, axis=1)
    table[:, -1] = 1.0
    return np.asarray((table + np.arange(len(table))[:, None]).reshape(-1))
