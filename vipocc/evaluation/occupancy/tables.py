"""From counted cells to the tables of a report: means over frames, pooled values, thresholds, rings, moving objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.bootstrap import resampled_means
from vipocc.evaluation.metrics import OURS, Aggregate
from vipocc.evaluation.occupancy.cells import Cells
from vipocc.evaluation.occupancy.counting import Counts, figures
from vipocc.evaluation.occupancy.judging import PARTS, Scored, Verdict, frame_values
from vipocc.evaluation.predictors.interface import OccupancyPredictor
from vipocc.evaluation.protocols import BTS_SWEEPS, OccupancyProtocol, VoxelProtocol, slice_protocol
from vipocc.evaluation.report import Frame, Row, Skipped


class Tables(NamedTuple):
    """What a report shows."""

    metrics: tuple[str, ...]
    rows: list[Row]
    breakdowns: dict[str, list[Row]]


def tables(
    protocol: OccupancyProtocol | VoxelProtocol,
    cells: Cells,
    predictors: Sequence[OccupancyPredictor],
    frames: Sequence[Frame],
    verdicts: Sequence[Verdict],
    around: tuple[str, ...],
    config: Any,
) -> Tables:
    """Return the tables of judged frames.

    Args:
        protocol: names the metrics and which threshold is the table's own.
        cells: for the length of a cell's opacity.
        predictors: a row each.
        frames: n of them.
        verdicts: likewise; every one has a `Scored` of every predictor.
        around: the metrics around objects, none where objects are unknown.
        config: the section `evaluation`, for the intervals.
    """
    scene = protocol.metrics
    metrics = (*scene, *around, *OURS)
    interval = (config.resamples, config.confidence)
    own = 1 if isinstance(protocol, VoxelProtocol) else 0
    joined = protocol == slice_protocol(BTS_SWEEPS)
    rows, other, pools = [], [], []
    rings: dict[int, list[Row]] = {at: [] for at in range(len(protocol.rings))}
    movers: dict[str, list[Row]] = {"moving": [], "standing": []}
    for one in predictors:
        scored = [verdict.scored[one.name] for verdict in verdicts]
        note = _note(one, scored, joined)
        lacking = [Skipped(frame, s.reason) for frame, s in zip(frames, scored, strict=True) if s.reason]
        values = [_values(s, own, metrics) for s in scored]
        rows.append(Row.measured(one.name, one.kind, frames, values, *interval, note=note, skipped=lacking))
        counts = [s.counts for s in scored if s.counts is not None]
        if not counts:
            continue
        chosen = np.stack([both[own] for both in counts])
        pools.append(Row(one.name, one.kind, pooled(chosen[:, 0], (*scene, "balanced_accuracy"), *interval)))
        if one.kind != "constant":
            others = [_values(s, 1 - own, (*scene, *around, "balanced_accuracy")) for s in scored]
            other.append(Row.measured(one.name, one.kind, frames, others, *interval))
        for at, (low, high) in enumerate(protocol.rings):
            part = _part(chosen, len(PARTS) + at, scene)
            rings[at].append(
                Row.measured(f"{low:g}-{high:g} m: {one.name}", one.kind, frames[: len(part)], part, *interval)
            )
        for kind, listed in movers.items():
            if any(v.truth is not None and v.truth.moving is not None for v in verdicts) and around:
                part = _part(chosen, PARTS.index(kind), scene, around)
                listed.append(Row.measured(f"{kind}: {one.name}", one.kind, frames[: len(part)], part, *interval))
    length = cells.opacity_length
    title = "Density > 0.5 per metre" if own else f"Opacity of a {length:g} m cell > 0.5"
    breakdowns = {
        title: other,
        "Pooled over frames": pools,
        "Rings of distance": [row for at in rings for row in rings[at]],
        "Around moving and standing objects": [*movers["moving"], *movers["standing"]],
    }
    return Tables(
        metrics, rows, {name: [_bare(row) for row in listed] for name, listed in breakdowns.items() if listed}
    )


def pooled(
    counts: Counts, names: Sequence[str], resamples: int, confidence: float, seed: int = 0
) -> dict[str, Aggregate]:
    """Return figures of counts [n, 2, 2, 2] summed over frames, with bootstrap intervals over the frames."""
    value = figures(counts.sum(0))
    # A share of means is the share of sums.
    drawn = figures(
        resampled_means(counts.reshape(len(counts), 8).astype(np.float64), resamples, seed).reshape(-1, 2, 2, 2)
    )
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    found = {}
    for name in names:
        kept = drawn[name][~np.isnan(drawn[name])]
        low, high = np.quantile(kept, ends) if len(kept) else (np.nan, np.nan)
        found[name] = Aggregate(float(value[name]), float(low), float(high), len(counts))
    return found


def _values(scored: Scored, threshold: int, metrics: Sequence[str]) -> dict[str, float]:
    if scored.counts is None:
        return dict.fromkeys(metrics, np.nan)
    found = frame_values(scored.counts[threshold], scored.precision)
    return {name: found[name] for name in metrics}


def _part(
    counts: NDArray[np.int64], part: int, scene: Sequence[str], around: Sequence[str] = ()
) -> list[dict[str, float]]:
    """Figures of one part of each frame; under the names of those around objects if these are given."""
    found = figures(counts[:, part])
    names = {name: name.removeprefix("object_") for name in around} or {
        name: name for name in (*scene, "balanced_accuracy")
    }
    return [{name: float(found[figure][at]) for name, figure in names.items()} for at in range(len(counts))]


def _bare(row: Row) -> Row:
    """The row without its frames: those of the first table are enough in a file."""
    return Row(row.name, row.kind, row.metrics, row.note)


def _note(one: OccupancyPredictor, scored: Sequence[Scored], joined: bool) -> str:
    reasons = Counter(s.reason for s in scored if s.reason)
    parts = [one.note, *(f"{count:,} frames: {reason}" for reason, count in reasons.most_common())]
    if joined:
        parts.append("visible also before its own depth" if hasattr(one, "depth") else "visible by LiDAR alone")
    return "; ".join(part for part in parts if part)
