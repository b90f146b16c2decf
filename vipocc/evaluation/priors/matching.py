"""Detections against true objects: matched by the overlap of boxes, average precision, overlap of masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.metrics import Aggregate

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """What became of the detections of one class in one frame."""

    scores: Float64
    """[n] of the detections that count."""
    correct: NDArray[np.bool_]
    """[n] whether a detection took a true object."""
    objects: int
    """True objects that count."""
    pairs: Sequence[tuple[int, int]]
    """(detection, object) of the correct ones, as numbered in what came in."""


def box_iou(a: NDArray[Any], b: NDArray[Any]) -> Float64:
    """Return the intersection over union [n, m] of boxes [n, 4] and [m, 4], (x0, y0, x1, y1) with ends exclusive."""
    a, b = a.astype(np.float64).reshape(-1, 1, 4), b.astype(np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inside = sides.clip(0).prod(-1)
    areas = [(one[..., 2:] - one[..., :2]).clip(0).prod(-1) for one in (a, b)]
    union = areas[0] + areas[1] - inside
    return np.asarray(np.divide(inside, union, out=np.zeros_like(inside), where=union > 0))


def match(
    scores: NDArray[Any], boxes: NDArray[Any], objects: NDArray[Any], counts: NDArray[np.bool_], least: float = 0.5
) -> Matches:
    """Match the detections of one class and frame to its true objects, each at most once, the surest first.

    A detection takes the free object that counts with the largest overlap, if that is at least `least`. One that finds
    none but overlaps an object that does not count as much, or lies on it, is neither right nor wrong.

    Args:
        scores: of the detections [n].
        boxes: of the detections [n, 4].
        objects: boxes of the true objects [m, 4].
        counts: which of them count [m]; others are too small to be asked for.
        least: intersection over union.
    """
    overlap = box_iou(boxes, objects)
    free = counts.copy()
    judged: list[tuple[float, bool]] = []
    pairs = []
    for at in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        candidates = np.where(free, overlap[at], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= least:
            free[best] = False
            pairs.append((int(at), best))
            judged.append((float(scores[at]), True))
        elif not (overlap[at][~counts] >= least).any():
            judged.append((float(scores[at]), False))
    ranked = np.array(judged, np.float64).reshape(-1, 2)
    return Matches(ranked[:, 0], ranked[:, 1] > 0, int(counts.sum()), pairs)


def precision_recall_area(scores: Float64, correct: NDArray[np.bool_], objects: float, weights: Float64) -> float:
    """Return average precision: the area under precision over recall, precision made falling (VOC 2010, all points).

    Equal scores enter together. NaN without an object.

    Args:
        scores: of detections [n] of all frames.
        correct: which took an object [n].
        objects: number of objects, weighted.
        weights: of the detections [n], how often their frame counts.
    """
    if objects <= 0:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    hits, all_so_far = np.cumsum((weights * correct)[order]), np.cumsum(weights[order])
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else np.zeros(0, int)
    hits, all_so_far = hits[last], all_so_far[last]
    precision = np.divide(hits, all_so_far, out=np.zeros(len(hits)), where=all_so_far > 0)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits / objects, prepend=0.0) * falling))


def detection_metrics(
    frames: Sequence[Matches], overlaps: Sequence[Sequence[float]], resamples: int, confidence: float, seed: int = 0
) -> dict[str, Aggregate]:
    """Return `ap50`, `recall50` and `mask_iou` of one class with bootstrap intervals over frames.

    Args:
        frames: the matches of each frame.
        overlaps: intersection over union of the masks of each frame's pairs.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the draws.
    """
    number = len(frames)
    scores = np.concatenate([one.scores for one in frames]) if number else np.zeros(0)
    correct = np.concatenate([one.correct for one in frames]) if number else np.zeros(0, bool)
    owner = np.repeat(np.arange(number), [len(one.scores) for one in frames])
    objects = np.array([one.objects for one in frames], np.float64)
    hits = np.array([one.correct.sum() for one in frames], np.float64)
    masks = np.array([math.fsum(one) for one in overlaps], np.float64)
    found = np.array([len(one) for one in overlaps], np.float64)

    def figures(weight: Float64) -> tuple[float, float, float]:
        total = float(weight @ objects)
        return (
            precision_recall_area(scores, correct, total, weight[owner]),
            float(weight @ hits) / total if total else math.nan,
            float(weight @ masks) / float(weight @ found) if weight @ found else math.nan,
        )

    means = figures(np.ones(number))
    rng = np.random.default_rng(seed)
    drawn = [
        figures(np.bincount(rng.integers(0, number, number), minlength=number).astype(np.float64))
        for _ in range(resamples if number else 0)
    ]
    having = (int((objects > 0).sum()), int((objects > 0).sum()), int((found > 0).sum()))
    result = {}
    for at, name in enumerate(("ap50", "recall50", "mask_iou")):
        known = [one[at] for one in drawn if not math.isnan(one[at])]
        low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2]) if known else (math.nan, math.nan)
        result[name] = Aggregate(means[at], float(low), float(high), having[at])
    return result
