"""Means of frames drawn anew with replacement, from which confidence intervals are read.

Of n frames a resample is n draws, so for a thousand resamples of a long split millions of numbers. They are drawn once
for all metrics and turned into how often each frame was drawn; the means of all metrics are then one product of
matrices. A few resamples at a time keep the memory small.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_DRAWS_AT_ONCE = 1 << 20
"""Draws in memory at a time, at 8 bytes each and as much again for the counts, but always one whole resample."""


def resampled_means(values: NDArray[np.float64], resamples: int, seed: int = 0) -> NDArray[np.float64]:
    """Return the means [resamples, m] of `resamples` draws of n frames out of n, for m metrics at once.

    The draws depend on (n, seed) alone, so that metrics of the same frames, and methods, are resampled together.

    Args:
        values: [n, m], n at least 1, all finite.
        resamples: how many.
        seed: of the draws.
    """
    frames = len(values)
    means = np.empty((resamples, values.shape[1]))
    done = 0
    for drawn in _draws(frames, resamples, seed):
        number = len(drawn)
        drawn += np.arange(number)[:, None] * frames
        counts = np.bincount(drawn.reshape(-1), minlength=number * frames).reshape(number, frames)
        means[done : done + number] = counts.astype(np.float64) @ values / frames
        done += number
    return means


def resampled_means_reference(values: NDArray[np.float64], resamples: int, seed: int = 0) -> NDArray[np.float64]:
    """Return the same as `resampled_means`, but for rounding, as it is defined."""
    rng = np.random.default_rng(seed)
    frames = len(values)
    return np.stack([values[rng.integers(0, frames, frames)].mean(axis=0) for _ in range(resamples)])


def _draws(frames: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Frame numbers [k, frames] of all resamples, k at a time: the same numbers however many at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // frames)
    for start in range(0, resamples, at_once):
        yield rng.integers(0, frames, (min(at_once, resamples - start), frames))
