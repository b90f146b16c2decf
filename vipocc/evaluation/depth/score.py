"""What one predicted depth map scores against the truth, whole and by distance, under each scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.bootstrap import resampled_means
from vipocc.evaluation.metrics import (
    DEPTH,
    Aggregate,
    Scaling,
    depth_formulas,
    lower_median,
    nearest_resize,
    scale_depth,
)
from vipocc.evaluation.protocols import DepthProtocol

METRICS = (*DEPTH, "covered", "pixels")
"""Of a frame: the published ones, the share of the truth's pixels that have a prediction, and how many those are."""
BINS = ((0.0, 10.0), (10.0, 20.0), (20.0, 40.0), (40.0, 80.0))
"""Metres of true depth, from and below."""
_SQUARED = ("rmse", "rmse_log")


@dataclass(frozen=True)
class Score:
    """Of one frame, predictor and scaling."""

    whole: Mapping[str, float]
    """By the names of `METRICS`."""
    bins: Sequence[Mapping[str, float]]
    """Likewise of the pixels of each of `BINS`; NaN where there is none."""


def counted(truth: NDArray[Any], protocol: DepthProtocol) -> NDArray[np.bool_]:
    """Return where a true depth map [H, W] counts: a positive finite number, no larger than the protocol's cap."""
    mask = np.isfinite(truth) & (truth > 0)
    return np.asarray(mask if protocol.cap is None else mask & (truth <= protocol.cap))


def score(
    predicted: NDArray[Any], truth: NDArray[Any], scalings: Sequence[Scaling], protocol: DepthProtocol
) -> dict[Scaling, Score] | str:
    """Return what a prediction scores under each scaling, or in words why it cannot be judged.

    The order is the published one: nearest resize of the prediction to the truth, scaling by the pixels with truth,
    clamp, formulas (published_system.md 7.4). Pixels where the prediction is NaN are left out and told by `covered`;
    an infinite or negative number where the truth counts makes the whole map unfit.

    Args:
        predicted: metres along the optical axis [h, w].
        truth: metres [H, W], at least one pixel of which counts.
        scalings: each fitted on its own.
        protocol: cap and clamp.
    """
    if predicted.ndim != 2 or not predicted.size or predicted.dtype.kind not in "fiu":
        return f"the predicted depth is no map [H, W] of numbers but {list(predicted.shape)} of {predicted.dtype}"
    mask = counted(truth, protocol)
    values = nearest_resize(predicted, (truth.shape[0], truth.shape[1]))[mask]
    if np.isinf(values).any():
        return "the predicted depth is infinite"
    if (values < 0).any():
        return "the predicted depth is negative"
    found = ~np.isnan(values)
    if not found.any():
        return "no depth is predicted where there is truth"
    p, g = values[found].astype(np.float64), truth[mask][found].astype(np.float64)
    if "median" in scalings and lower_median(p) == 0:
        return "the median of the predicted depth is 0"
    shares = {"covered": float(np.mean(found)), "pixels": float(len(values))}
    places = [(g >= low) & (g < high) for low, high in BINS]
    all_places = [(truth[mask] >= low) & (truth[mask] < high) for low, high in BINS]
    scores: dict[Scaling, Score] = {}
    for scaling in scalings:
        fitted = np.clip(scale_depth(p, g, scaling), *protocol.clamp)
        bins = []
        for place, every in zip(places, all_places, strict=True):
            count = int(np.count_nonzero(every))
            metrics = depth_formulas(fitted[place], g[place]) if place.any() else dict.fromkeys(DEPTH, math.nan)
            share = np.count_nonzero(place) / count if count else math.nan
            bins.append({**metrics, "covered": share, "pixels": float(count) if count else math.nan})
        scores[scaling] = Score({**depth_formulas(fitted, g), **shares}, bins)
    return scores


def pooled(frames: Sequence[Mapping[str, float]], resamples: int, confidence: float) -> dict[str, Aggregate]:
    """Return metrics over all pixels of all frames as if they were one image, from the frames' own `METRICS`.

    Frames with more LiDAR weigh more, unlike in the published means. The scaling stays each frame's own. Intervals are
    of frames drawn anew, as everywhere.
    """
    weights = np.array([frame["pixels"] * frame["covered"] for frame in frames])
    columns = [
        weights * np.array([frame[name] for frame in frames]) ** (2 if name in _SQUARED else 1) for name in DEPTH
    ]
    sums = np.stack([*columns, weights], axis=1)
    drawn = resampled_means(sums, resamples)
    whole, resampled = sums[:, :-1].sum(0) / sums[:, -1].sum(), drawn[:, :-1] / drawn[:, -1:]
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    found = {}
    for at, name in enumerate(DEPTH):
        mean, lower, upper = (
            float(np.sqrt(value[at]) if name in _SQUARED else value[at]) for value in (whole, low, high)
        )
        found[name] = Aggregate(mean, lower, upper, len(frames))
    return found
