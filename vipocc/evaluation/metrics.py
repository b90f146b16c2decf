"""What the published evaluations compute, as functions of arrays (published_system.md 7.1 and 7.4).

A metric that has nothing to average over is NaN; `aggregate` leaves such frames out of that metric's mean and counts
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError, UsageError
from vipocc.evaluation.bootstrap import resampled_means

Mask: TypeAlias = NDArray[np.bool_]
Scaling: TypeAlias = Literal["none", "median", "least-squares"]

SCENE = ("o_acc", "ie_acc", "ie_rec")
"""Published scene metrics: occupancy accuracy, invisible accuracy, invisible recall (of free space)."""
OBJECT = ("object_o_acc", "object_ie_acc", "object_ie_rec")
"""The same around objects."""
OURS = ("balanced_accuracy", "average_precision")
"""Two that no constant guess scores high on."""
DEPTH = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
"""Published depth metrics; a_i is the share of pixels with max(g/p, p/g) < 1.25^i."""

NEAREST_DEPTH, FARTHEST_DEPTH = 1e-3, 80.0
"""Predictions are clamped to this range of metres before they are compared."""


def mean_where(values: Mask, where: Mask) -> float:
    """Mean of `values` over the cells of `where`, NaN if there is none."""
    count = int(np.count_nonzero(where))
    return int(np.count_nonzero(values & where)) / count if count else math.nan


def judged_rows(visible: Mask, margin: int = 20) -> slice | None:
    """Rows that the scene metrics look at: from `margin` rows beyond the farthest row with a visible cell to the end.

    visible: bool [rows, columns], row 0 farthest. None where no cell is visible.
    """
    rows = np.flatnonzero(visible.any(axis=1))
    return slice(max(0, int(rows[0]) - margin), visible.shape[0]) if len(rows) else None


def occupancy_metrics(predicted: Mask, occupied: Mask, visible: Mask, margin: int = 20) -> dict[str, float]:
    """Return O_acc, IE_acc, IE_rec of the scene and the balanced accuracy over invisible cells.

    A visible cell counts as free (`occupied` AND NOT `visible`); rows far behind all that is visible are cut off, see
    `judged_rows`. IE_acc averages over all invisible cells, IE_rec is the recall of the free ones among them, and the
    balanced accuracy is the mean of the recalls of free and of occupied invisible cells. All are NaN if no cell is
    visible.

    Args:
        predicted: bool [rows, columns], row 0 farthest.
        occupied: likewise, ground truth as it was built.
        visible: likewise.
        margin: rows kept beyond the farthest visible one.
    """
    expect_cells(predicted, occupied, visible)
    rows = judged_rows(visible, margin)
    if rows is None:
        return dict.fromkeys((*SCENE, "balanced_accuracy"), math.nan)
    p, v = predicted[rows], visible[rows]
    g = occupied[rows] & ~v
    o_acc, ie_acc, ie_rec = _formulas(p, g, v, np.ones_like(v))
    recall_occupied = mean_where(p, g & ~v)
    return {
        "o_acc": o_acc,
        "ie_acc": ie_acc,
        "ie_rec": ie_rec,
        "balanced_accuracy": (ie_rec + recall_occupied) / 2,
    }


def object_cells(
    objects: NDArray[Any], ids: Iterable[int] | None = None, row_margin: int = 20, column_margin: int = 5
) -> Mask:
    """Cells around objects: the union of the objects' bounding rectangles, widened (2 m and .5 m as published).

    Ends of the widened rectangles are exclusive.

    Args:
        objects: integers [rows, columns]; in the published maps 0 is free, 255 static, others are object ids.
        ids: the objects. By default, as published, the sorted distinct values without the first and the last, so a
            map that lacks 0 or 255 loses an object.
        row_margin: rows added on either side.
        column_margin: likewise columns.
    """
    chosen = np.zeros(objects.shape, dtype=np.bool_)
    for number in np.unique(objects)[1:-1] if ids is None else ids:
        rows, columns = np.nonzero(objects == number)
        top, left = max(0, int(rows.min()) - row_margin), max(0, int(columns.min()) - column_margin)
        chosen[top : int(rows.max()) + row_margin, left : int(columns.max()) + column_margin] = True
    return chosen


def object_metrics(predicted: Mask, occupied: Mask, visible: Mask, cells: Mask) -> dict[str, float]:
    """Return the three published metrics on `cells` (see `object_cells`), before any far cut; NaN if there is none."""
    expect_cells(predicted, occupied, visible, cells)
    return dict(zip(OBJECT, _formulas(predicted, occupied & ~visible, visible, cells), strict=True))


def average_precision(scores: NDArray[Any], positive: Mask) -> float:
    """Area under the precision-recall steps of `scores`, sum (R_n - R_(n-1)) P_n over distinct scores.

    Equal scores enter together, so a constant score gets the share of positives and no order of ties can help. NaN
    without a positive.
    """
    scores, positive = scores.reshape(-1), positive.reshape(-1)
    total = int(np.count_nonzero(positive))
    if total == 0:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(positive[order])[last]
    recall = hits / total
    return float(np.sum(np.diff(recall, prepend=0.0) * (hits / (last + 1))))


def density_precision(density: NDArray[Any], occupied: Mask, visible: Mask, margin: int = 20) -> float:
    """Average precision of a density [rows, columns] on the cells that the scene metrics judge; NaN if there is none.

    It is told apart what is occupied and not visible, as in the published metrics, at no threshold.
    """
    expect_cells(occupied, visible)
    rows = judged_rows(visible, margin)
    return math.nan if rows is None else average_precision(density[rows], (occupied & ~visible)[rows])


def expect_cells(*maps: NDArray[Any]) -> None:
    """Raise `UsageError` unless all are boolean [rows, columns] of one shape."""
    if any(m.dtype != np.bool_ or m.ndim != 2 or m.shape != maps[0].shape for m in maps):
        raise UsageError(f"boolean maps of one shape are needed, not {[(m.dtype.name, m.shape) for m in maps]}")


def nearest_resize(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize [h, w] to `size` (height, width): target pixel i takes source pixel floor(i h / H)."""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return np.asarray(values[rows[:, None], columns[None, :]])


def lower_median(values: NDArray[Any]) -> float:
    """The middle value, of an even number the lower of the two in the middle (as torch.median)."""
    middle = (len(values) - 1) // 2
    return float(np.partition(values, middle)[middle])


def scale_depth(predicted: NDArray[Any], truth: NDArray[Any], scaling: Scaling) -> NDArray[np.float64]:
    """Fit predicted depths [n] to true ones [n]: not at all, by the ratio of lower medians, or by scale and shift."""
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    if scaling == "none":
        return predicted
    if scaling == "median":
        return np.asarray(predicted * (lower_median(truth) / lower_median(predicted)))
    if scaling == "least-squares":
        design = np.stack([predicted, np.ones_like(predicted)], axis=1)
        solution = np.linalg.lstsq(design, truth, rcond=None)[0]
        return np.asarray(design @ solution)
    raise UsageError(f"there is no scaling '{scaling}'", fix="use none, median or least-squares")


def depth_metrics(
    predicted: NDArray[Any], truth: NDArray[Any], scaling: Scaling = "none", cap: float | None = None
) -> dict[str, float]:
    """Return the published depth metrics, NaN where the truth has no pixel.

    Args:
        predicted: metres [h, w]; resized to the truth (nearest), scaled, then clamped to 1e-3..80 m. It may be NaN
            where there is no prediction; those pixels are left out and `covered` is the share that is not.
        truth: metres [H, W]; 0 or NaN where there is none.
        scaling: `none`, `median` or `least-squares`, on all pixels with truth.
        cap: largest true depth that counts, by default none.

    Raises:
        DataError: a prediction is infinite or negative.
    """
    mask = np.isfinite(truth) & (truth > 0)
    if cap is not None:
        mask &= truth <= cap
    resized = nearest_resize(predicted, (truth.shape[0], truth.shape[1]))[mask]
    if np.isinf(resized).any() or (resized < 0).any():
        raise DataError("the predicted depth is infinite or negative")
    found = np.isfinite(resized)
    if not found.any():
        return dict.fromkeys((*DEPTH, "covered"), math.nan if not mask.any() else 0.0) | dict.fromkeys(DEPTH, math.nan)
    g = truth[mask][found].astype(np.float64)
    p = np.clip(scale_depth(resized[found], g, scaling), NEAREST_DEPTH, FARTHEST_DEPTH)
    return {**depth_formulas(p, g), "covered": float(np.mean(found))}


def depth_formulas(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    """The published figures of predicted and true depths [n], n >= 1, positive and clamped beforehand."""
    ratio = np.maximum(truth / predicted, predicted / truth)
    error = truth - predicted
    return {
        "abs_rel": float(np.mean(np.abs(error) / truth)),
        "sq_rel": float(np.mean(error**2 / truth)),
        "rmse": math.sqrt(float(np.mean(error**2))),
        "rmse_log": math.sqrt(float(np.mean((np.log(truth) - np.log(predicted)) ** 2))),
        "a1": float(np.mean(ratio < 1.25)),
        "a2": float(np.mean(ratio < 1.25**2)),
        "a3": float(np.mean(ratio < 1.25**3)),
    }


@dataclass(frozen=True)
class Aggregate:
    """A metric over frames."""

    mean: float
    """Over the frames that have it; NaN if none has."""
    low: float
    """Lower end of the bootstrap interval of the mean."""
    high: float
    """Upper end."""
    frames: int
    """Frames that have the metric."""


def aggregate(values: Iterable[float], resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Aggregate:
    """Mean of per-frame values, NaN ones dropped as published, with a percentile bootstrap interval over frames."""
    column = np.fromiter(values, np.float64)
    return _aggregates({"": column}, resamples, confidence, seed)[""]


def aggregate_all(
    frames: Sequence[Mapping[str, float]], resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Aggregate]:
    """`aggregate` for each metric of per-frame dictionaries that have the same keys."""
    names = list(frames[0]) if frames else []
    columns = {name: np.array([frame[name] for frame in frames], np.float64) for name in names}
    return _aggregates(columns, resamples, confidence, 0)


def _aggregates(
    columns: Mapping[str, NDArray[np.float64]], resamples: int, confidence: float, seed: int
) -> dict[str, Aggregate]:
    kept = {name: column[~np.isnan(column)] for name, column in columns.items()}
    found = {name: Aggregate(math.nan, math.nan, math.nan, 0) for name in columns}
    for count in {len(column) for column in kept.values()} - {0}:
        # Draws depend on the number of values alone: metrics that have as many are resampled in one go.
        names = [name for name, column in kept.items() if len(column) == count]
        means = resampled_means(np.stack([kept[name] for name in names], axis=1), resamples, seed)
        ends = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        for name, (low, high) in zip(names, ends.T, strict=True):
            found[name] = Aggregate(float(kept[name].mean()), float(low), float(high), count)
    return found


def _formulas(p: Mask, g: Mask, v: Mask, cells: Mask) -> tuple[float, float, float]:
    invisible = cells & ~v
    return mean_where(p == g, cells), mean_where(p == g, invisible), mean_where(~p, invisible & ~g)
