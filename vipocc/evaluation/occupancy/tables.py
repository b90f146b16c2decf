"""From counted cells to the tables of a report: means over frames, pooled values, thresholds, rings, moving objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vipocc.evaluation.bootstrap import resampled_means
from vipocc.evaluation.metrics import OURS, Aggregate, aggregate_all
from vipocc.evaluation.occupancy.cells import Cells
from vipocc.evaluation.occupancy.counting import Counts, figures
from vipocc.evaluation.occupancy.judging import PARTS, Scored, Verdict
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
    judged = (*scene, "balanced_accuracy")
    interval = (config.resamples, config.confidence)
    own = 1 if isinstance(protocol, VoxelProtocol) else 0
    movers = ("moving", "standing") if around and any(v.truth and v.truth.moving is not None for v in verdicts) else ()
    ring_names = [f"{low:g}-{high:g} m" for low, high in protocol.rings]
    shape = (2, len(PARTS) + len(ring_names), 2, 2, 2)
    rows, other, pools = [], [], []
    parts: dict[str, list[Row]] = {name: [] for name in (*ring_names, *movers)}
    for one in predictors:
        scored = [verdict.scored[one.name] for verdict in verdicts]
        # A frame that was not judged has no cells, and so no figure.
        counts = np.stack([np.zeros(shape, np.int64) if s.counts is None else np.stack(s.counts) for s in scored])

        def row(name: str, values: list[dict[str, float]], of: OccupancyPredictor = one) -> Row:
            return Row(name, of.kind, aggregate_all(values, *interval))

        values = _values(counts[:, own], judged, around)
        for value, s in zip(values, scored, strict=True):
            value["average_precision"] = s.precision
        lacking = [Skipped(frame, s.reason) for frame, s in zip(frames, scored, strict=True) if s.reason]
        note = _note(one, scored, protocol)
        rows.append(Row.measured(one.name, one.kind, frames, values, *interval, note=note, skipped=lacking))
        if len(lacking) == len(frames):
            continue
        kept = counts[[not s.reason for s in scored]]
        pools.append(Row(one.name, one.kind, pooled(kept[:, own, 0], judged, *interval)))
        if one.kind != "constant":
            other.append(row(one.name, _values(counts[:, 1 - own], judged, around)))
        for at, name in enumerate(ring_names, len(PARTS)):
            parts[name].append(
                row(f"{name}: {one.name}", _part(counts[:, own, at], {metric: metric for metric in judged}))
            )
        for name in movers:
            figure = {metric: metric.removeprefix("object_") for metric in around}
            parts[name].append(row(f"{name}: {one.name}", _part(counts[:, own, PARTS.index(name)], figure)))
    length = cells.opacity_length
    breakdowns = {
        "Density > 0.5 per metre" if own else f"Opacity of a {length:g} m cell > 0.5": other,
        "Pooled over frames": pools,
        "Rings of distance": [row for name in ring_names for row in parts[name]],
        "Around moving and standing objects": [row for name in movers for row in parts[name]],
    }
    return Tables((*scene, *around, *OURS), rows, {title: listed for title, listed in breakdowns.items() if listed})


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


def _values(counts: Counts, scene: Sequence[str], around: Sequence[str]) -> list[dict[str, float]]:
    """Figures of each frame from counts [n, parts, 2, 2, 2]: of the scene, and around objects."""
    objects = _part(counts[:, 1], {name: name.removeprefix("object_") for name in around})
    return [{**one, **two} for one, two in zip(_part(counts[:, 0], {n: n for n in scene}), objects, strict=True)]


def _part(counts: Counts, names: Mapping[str, str]) -> list[dict[str, float]]:
    """Figures of each frame from counts [n, 2, 2, 2]; `names` gives the figure that stands under each name."""
    found = figures(counts)
    return [{name: float(found[figure][at]) for name, figure in names.items()} for at in range(len(counts))]


def _note(one: OccupancyPredictor, scored: Sequence[Scored], protocol: OccupancyProtocol | VoxelProtocol) -> str:
    reasons = Counter(s.reason for s in scored if s.reason)
    parts = [one.note, *(f"{n:,} frame{'s' * (n > 1)}: {reason}" for reason, n in reasons.most_common())]
    if protocol == slice_protocol(BTS_SWEEPS):
        parts.append("visible also before its own depth" if hasattr(one, "depth") else "visible by LiDAR alone")
    return "; ".join(part for part in parts if part)
