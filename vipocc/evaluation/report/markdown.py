"""A report as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vipocc.evaluation.report.columns import column
from vipocc.evaluation.report.content import Report, Row, Skipped, reasons

DAGGER = "† not to be compared with the others; the note says why"


def markdown(report: Report) -> str:
    """Return the tables with their headings: protocol, frames, rows, breakdowns, notes."""
    left = f"; {_left_out(report.skipped)}" if report.skipped else ""
    lines = [f"# {report.title}", ""]
    if report.used or report.skipped:  # speed is of no frames
        lines.append(f"{len(report.used):,} frames{left}.")
    if report.checkpoint is not None:
        lines.append(f"Checkpoint {report.checkpoint['path']}, {report.checkpoint['rule']}.")
    lines += ["", *_table(report.metrics, report.rows)]
    own = [f"{row.name}: {_left_out(row.skipped)}." for row in report.rows if row.skipped]
    lines += ["", *own] if own else []
    for title, rows in report.breakdowns.items():
        lines += ["", f"## {title}", "", *_table(report.metrics, rows)]
    if report.notes:
        lines += ["", *(f"- {note}" for note in report.notes)]
    return "\n".join(lines) + "\n"


def _left_out(skipped: Sequence[Skipped]) -> str:
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons(skipped).items())
    return f"{len(skipped):,} left out ({counts})"


def shown_metrics(metrics: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return the metrics that at least one row has; those of a breakdown that are its own come last."""
    own = [name for row in rows for name in row.metrics if name not in metrics and row.kind != "published"]
    every = [*metrics, *dict.fromkeys(own if not any(_known(rows, name) for name in metrics) else ())]
    return [name for name in every if _known(rows, name)]


def cell(row: Row, name: str) -> str:
    """Return a mean with its interval; "n/a" where the row has the metric but no frame of it, else empty.

    A dagger is behind what must not be compared with other rows.
    """
    value, known = row.metrics.get(name), column(name)
    if value is None or math.isnan(value.mean):
        return "n/a" if value is not None else ""
    text = known.text(value.mean, row.digits)
    text += "†" if name in row.apart else ""
    return text if math.isnan(value.low) else f"{text} [{known.text(value.low)}, {known.text(value.high)}]"


def table_line(cells: Sequence[str]) -> str:
    """Return a line of a table; bars in the cells are escaped."""
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def _known(rows: Sequence[Row], name: str) -> bool:
    return any(not math.isnan(row.mean(name)) for row in rows)


def _table(metrics: Sequence[str], rows: Sequence[Row]) -> list[str]:
    shown = shown_metrics(metrics, rows)
    lines = [
        table_line(["", *(column(name).heading for name in shown), "n", "note"]),
        table_line(["---", *("---:" for _ in shown), "---:", "---"]),
    ]
    for row in rows:
        count = f"{row.frames:,}" if row.frames else ""
        lines.append(table_line([row.name, *(cell(row, name) for name in shown), count, row.note]))
    if any(name in row.apart for row in rows for name in shown):
        lines += ["", f"{DAGGER}."]
    return lines
