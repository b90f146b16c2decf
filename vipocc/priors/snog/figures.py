"""How well anchors use their rays: N_v, N_vc (Eq. A.5) and psi_v (Eq. A.6) of Table 10."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SamplerFigures:
    """Means over iterations."""

    iterations: int
    valid: float
    """N_v, distinct rays of an iteration."""
    critical: float
    """N_vc, distinct rays of an iteration that lie on critical instances."""
    share: float
    """psi_v, the mean over iterations of the share of the distinct rays that lie on critical instances; 0 to 1."""


def covered_rays(anchors: NDArray[Any], size: tuple[int, ...], patch: int) -> NDArray[np.bool_]:
    """Return which pixels of an image of `size` (height, width) the patches around anchors [n, 2] (x, y) cover."""
    covered = np.zeros(size, dtype=np.bool_)
    low = patch // 2
    for x, y in anchors.tolist():
        covered[y - low : y - low + patch, x - low : x - low + patch] = True
    return covered


def valid_rays(anchors: NDArray[Any], critical: NDArray[np.bool_], patch: int) -> tuple[int, int]:
    """Return (distinct rays, those among them on critical instances) of one set of anchors.

    Args:
        anchors: [n, 2] patch centres (x, y), all valid.
        critical: [H, W], the pixels of critical instances.
        patch: side of a patch in pixels.
    """
    covered = covered_rays(anchors, critical.shape, patch)
    return int(np.count_nonzero(covered)), int(np.count_nonzero(covered & critical))


def summarise(counts: Iterable[tuple[int, int]]) -> SamplerFigures:
    """Return the figures of (distinct, critical) counts, one pair for each iteration."""
    table = np.asarray(list(counts), dtype=np.float64).reshape(-1, 2)
    if not len(table):
        return SamplerFigures(0, float("nan"), float("nan"), float("nan"))
    return SamplerFigures(
        len(table), float(table[:, 0].mean()), float(table[:, 1].mean()), float((table[:, 1] / table[:, 0]).mean())
    )
