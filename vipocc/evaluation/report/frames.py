"""The frames of a report by how well a method did on them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vipocc.evaluation.report.columns import column
from vipocc.evaluation.report.content import Frame, Report, Row


def main_row(report: Report) -> Row | None:
    """Return the row that the report is about: the first that was measured and has values of frames."""
    kinds = ("measured", "baseline", "prior")
    return next((row for kind in kinds for row in report.rows if row.kind == kind and row.per_frame), None)


def main_metric(report: Report) -> str | None:
    """Return the metric that orders frames: the first of the table that has a better way and tells frames apart.

    O_acc comes second to IE_acc where there is both, for what is visible is easy.
    """
    row = main_row(report)
    if row is None:
        return None
    ordered = [name for name in ("ie_acc", *report.metrics) if name in report.metrics]
    for name in ordered:
        known = {values[name] for _, values in row.per_frame if not math.isnan(values.get(name, math.nan))}
        if column(name).better and len(known) > 1:
            return name
    return None


def ranked(report: Report) -> list[tuple[Frame, Mapping[str, float]]]:
    """Return the main row's frames, worst first by the main metric; those that lack it are left out."""
    row, metric = main_row(report), main_metric(report)
    if row is None or metric is None:
        return []
    known = [pair for pair in row.per_frame if not math.isnan(pair[1].get(metric, math.nan))]
    sign = 1 if column(metric).better == "higher" else -1
    return sorted(known, key=lambda pair: (sign * pair[1][metric], pair[0].sequence, pair[0].camera, pair[0].row))


def worst_and_best(report: Report, count: int = 8) -> tuple[list[Frame], list[Frame]]:
    """Return the frames that the page lists: the worst, worst first, and the best, best first, none in both."""
    frames = [frame for frame, _ in ranked(report)]
    most = min(count, len(frames) // 2)
    return frames[:most], frames[len(frames) - most :][::-1]
