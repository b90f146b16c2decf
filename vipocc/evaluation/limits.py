"""Limits for scripts: the figures that a report has to reach, as `--fail-under` and `--fail-over` give them.

Of a metric where more is better only a lower limit makes sense, of an error only an upper one; the other way round is
refused rather than guessed at. Without a row, every measured row has to keep to a limit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vipocc.errors import UsageError
from vipocc.evaluation.report import Report, Row
from vipocc.evaluation.report.columns import column

EXIT_CODE = 3
"""Of a command whose report does not keep to a limit: nothing went wrong, and the answer is no."""

Side = Literal["under", "over"]


@dataclass(frozen=True)
class Limit:
    """A figure that a metric may not be under, or over."""

    side: Side
    metric: str
    value: float
    row: str | None = None
    """Name of the row; None for every measured one."""

    @property
    def option(self) -> str:
        """As it is typed."""
        row = f"{self.row}:" if self.row is not None else ""
        return f"--fail-{self.side} {row}{self.metric}={self.value:g}"


def parse_limit(text: str, side: Side, metrics: Sequence[str]) -> Limit:
    """Return the limit of `[ROW:]METRIC=VALUE`.

    Args:
        text: what was typed.
        side: of which option.
        metrics: those that the command can measure.

    Raises:
        UsageError: it is of another form, the metric is none of the command's, or the other option's.
    """
    option = f"--fail-{side}"
    left, equals, right = text.rpartition("=")
    row, colon, metric = left.rpartition(":")
    try:
        value = float(right)
    except ValueError:
        value = math.nan
    if not equals or not metric or math.isnan(value) or (colon and not row):
        raise UsageError(f"{option} takes METRIC=VALUE or ROW:METRIC=VALUE, not '{text}'")
    if metric not in metrics:
        near = difflib.get_close_matches(metric, metrics, 1)
        listed = f"use {near[0]}" if near else f"use one of {', '.join(metrics)}"
        raise UsageError(f"{option}: there is no metric '{metric}' here", fix=listed)
    better = column(metric).better
    if better and better != ("higher" if side == "under" else "lower"):
        other = "over" if side == "under" else "under"
        what = "an error, of which less is better" if better == "lower" else "a score, of which more is better"
        raise UsageError(f"{option}: {metric} is {what}", fix=f"use --fail-{other} {text}")
    return Limit(side, metric, value, row if colon else None)


def breaches(report: Report, limits: Sequence[Limit]) -> list[str]:
    """Return a sentence for each limit and row that does not keep to it; equal to the limit keeps to it.

    Raises:
        UsageError: a row or a metric that a limit names is not in the report, or the row is a published one.
    """
    found = []
    for limit in limits:
        if limit.metric not in report.metrics:
            raise UsageError(
                f"{limit.option}: the report has no {limit.metric}", fix=f"use one of {', '.join(report.metrics)}"
            )
        for row in _rows(report, limit):
            value = row.mean(limit.metric)
            digits = max(column(limit.metric).digits, 4)
            if math.isnan(value):
                found.append(f"{row.name} has no {limit.metric}, of which {limit.value:g} was asked")
            elif value < limit.value if limit.side == "under" else value > limit.value:
                found.append(f"{row.name} has {limit.metric} {value:.{digits}f}, {limit.side} {limit.value:g}")
    return found


def _rows(report: Report, limit: Limit) -> list[Row]:
    ours = [row for row in report.rows if row.kind != "published"]
    chosen = [row for row in ours if (row.kind == "measured" if limit.row is None else row.name == limit.row)]
    if not chosen:
        missing = (
            "nothing was measured" if limit.row is None else f"there is no row '{limit.row}' that was measured here"
        )
        names = ", ".join(row.name for row in ours)
        raise UsageError(f"{limit.option}: {missing}", fix=f"use one of {names}" if names else None)
    return chosen
