"""Paired differences of two methods on the frames they share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.bootstrap import resampled_means
from vipocc.evaluation.report.columns import column
from vipocc.evaluation.report.content import Row


@dataclass(frozen=True)
class Difference:
    """Mean difference of a metric between two methods, frame by frame."""

    mean: float
    """Of the method minus the one it is compared with; NaN where they share no frame."""
    low: float
    """Lower end of the bootstrap interval over the shared frames."""
    high: float
    p: float
    """Two-sided, of no difference: twice the smaller share of resampled means on either side of 0, at most 1."""
    frames: int
    """Frames on which both have the metric."""

    def verdict(self, metric: str) -> str:
        """Return better or worse where the interval leaves out 0 and the metric has a better way, else undecided."""
        better = column(metric).better
        if not better:
            return ""
        if math.isnan(self.mean) or self.low <= 0 <= self.high:
            return "undecided"
        return "better" if (self.mean > 0) == (better == "higher") else "worse"


def paired_difference(
    values: NDArray[np.float64],
    reference: NDArray[np.float64],
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Return the mean of values - reference [n] with its interval and p, frames drawn together for both methods.

    Frames on which either is NaN are left out. The p-value counts the observed mean among the resampled ones, so it is
    never 0: at least 2 / (resamples + 1).
    """
    known = ~(np.isnan(values) | np.isnan(reference))
    differences = (values - reference)[known]
    if not len(differences):
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    means = resampled_means(differences[:, None], resamples, seed)[:, 0]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    side = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p = min(1.0, 2 * (int(side) + 1) / (resamples + 1))
    return Difference(float(differences.mean()), float(low), float(high), p, len(differences))


def differences(
    row: Row, reference: Row, metrics: Sequence[str], resamples: int, confidence: float
) -> Mapping[str, Difference]:
    """Return the differences of two rows by metric, on the frames that both have values of."""
    theirs = dict(reference.per_frame)
    shared = [(mine, theirs[frame]) for frame, mine in row.per_frame if frame in theirs]
    found = {}
    for name in metrics:
        pairs = np.array([(a.get(name, math.nan), b.get(name, math.nan)) for a, b in shared], np.float64).reshape(-1, 2)
        one = paired_difference(pairs[:, 0], pairs[:, 1], resamples, confidence)
        if one.frames:
            found[name] = one
    return found
