"""Cells counted once, from which every figure follows: means over a frame, pooled values, parts of a frame.

A cell is visible or not, occupied or not, called occupied or not: eight counts for each part of a frame that is told
apart. All parts of a frame come from one pass over its cells. The plain twins are the functions of
`vipocc.evaluation.metrics`, which average over masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.metrics import Mask

Counts: TypeAlias = NDArray[np.int64]
"""[..., 2, 2, 2]: visible, occupied, called occupied."""

FIGURES = ("o_acc", "ie_acc", "ie_rec", "balanced_accuracy", "precision", "recall", "iou", "ie_precision")
"""What `figures` returns."""


def cell_codes(parts: Sequence[Mask], occupied: Mask, visible: Mask) -> NDArray[np.intp]:
    """Return what `count` needs to know of each cell [n], whatever is predicted.

    Args:
        parts: up to 8 masks of the frame's cells, of any shape; a cell may lie in several or none.
        occupied: of the same shape.
        visible: likewise.
    """
    membership = np.zeros(occupied.size, np.intp)
    for bit, mask in enumerate(parts):
        membership |= mask.reshape(-1).astype(np.intp) << bit
    return np.asarray(membership * 4 + visible.reshape(-1) * 2 + occupied.reshape(-1), np.intp)


def count(codes: NDArray[np.intp], called: NDArray[np.bool_], parts: int) -> Counts:
    """Return the counts [parts, 2, 2, 2] of a frame.

    codes: of its cells, from `cell_codes`; called: bool [n], which of them are called occupied.
    """
    size = 1 << parts
    found = np.bincount(codes * 2 + called.reshape(-1), minlength=size * 8).reshape(size, 8)
    inside = (np.arange(size)[None, :] >> np.arange(parts)[:, None]) & 1
    return np.asarray(inside @ found).reshape(parts, 2, 2, 2)


def count_reference(parts: Sequence[Mask], occupied: Mask, visible: Mask, called: Mask) -> Counts:
    """The plain twin of `cell_codes` and `count`: every count by its own mask."""
    counts = np.zeros((len(parts), 2, 2, 2), np.int64)
    for part, mask in enumerate(parts):
        for v in (0, 1):
            for g in (0, 1):
                for p in (0, 1):
                    counts[part, v, g, p] = np.count_nonzero(mask & (visible == v) & (occupied == g) & (called == p))
    return counts


def figures(counts: Counts | NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return `FIGURES` of counts [..., 2, 2, 2], each [...]; NaN where there is nothing to average over.

    O_acc over all cells; IE_acc, IE_rec, the precision of free cells and the balanced accuracy over invisible ones;
    precision, recall and IoU of the occupied ones over all (published_system.md 7.1 and 7.3).
    """
    free_hidden, occupied_hidden = counts[..., 0, 0, :], counts[..., 0, 1, :]
    free, occupied = counts[..., 0, :].sum(-2), counts[..., 1, :].sum(-2)
    right = free[..., 0] + occupied[..., 1]
    hidden_right = free_hidden[..., 0] + occupied_hidden[..., 1]
    hidden = free_hidden.sum(-1) + occupied_hidden.sum(-1)
    ie_rec = _share(free_hidden[..., 0], free_hidden.sum(-1))
    return {
        "o_acc": _share(right, free.sum(-1) + occupied.sum(-1)),
        "ie_acc": _share(hidden_right, hidden),
        "ie_rec": ie_rec,
        "balanced_accuracy": (ie_rec + _share(occupied_hidden[..., 1], occupied_hidden.sum(-1))) / 2,
        "precision": _share(occupied[..., 1], free[..., 1] + occupied[..., 1]),
        "recall": _share(occupied[..., 1], occupied.sum(-1)),
        "iou": _share(occupied[..., 1], free[..., 1] + occupied.sum(-1)),
        "ie_precision": _share(free_hidden[..., 0], free_hidden[..., 0] + occupied_hidden[..., 0]),
    }


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    whole = np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0), np.float64)


def ranked_precision(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Return `metrics.average_precision` of finite float32 scores [n], its fast twin.

    A score's bits and the cell's truth are packed into one integer, so that sorting moves no index along.
    """
    total = int(np.count_nonzero(positive))
    if total == 0:
        return float("nan")
    if scores.min() == scores.max():
        return total * (total / scores.size) / total  # a constant guess, all of it one step
    # Adding 0 turns -0 into 0. Bits of floats rise with the value once negative ones are turned round.
    bits = (np.ascontiguousarray(scores, np.float32).reshape(-1) + np.float32(0)).view(np.uint32)
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    packed = (~rising).astype(np.uint64) << np.uint64(1) | positive.reshape(-1).astype(np.uint64)
    packed.sort()
    ranked = packed >> np.uint64(1)
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum((packed & np.uint64(1)).astype(np.int64))[last]
    return float(np.sum(np.diff(hits, prepend=0) * (hits / (last + 1.0))) / total)
