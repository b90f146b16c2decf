"""A comparison as Markdown, as JSON values and as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from vipocc import charts
from vipocc.evaluation.compare.comparison import JUDGED, Comparison, Line
from vipocc.evaluation.report.columns import column
from vipocc.evaluation.report.document import without_nan
from vipocc.evaluation.report.markdown import cell, shown_metrics, table_line
from vipocc.evaluation.report.page import add_figures
from vipocc.page import Figure as Aligned
from vipocc.page import Page

FORMAT_VERSION = 1

_Table: TypeAlias = tuple[Sequence[str], list[tuple[str, ...]]]
"""Headers and rows."""


def document(made: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values; NaN becomes null. The keys are documented in docs/evaluation.md."""
    values = {
        "format_version": FORMAT_VERSION,
        "kind": made.kind,
        "dataset": made.dataset,
        "split": made.split,
        "runs": [asdict(run) for run in made.runs],
        "frames": made.frames,
        "confidence": made.confidence,
        "resamples": made.resamples,
        "comparable": not made.anyway,
        "metrics": {
            name: {"title": column(name).title, "better": column(name).better or None, "unit": column(name).unit}
            for name in made.metrics
        },
        "rows": [_line(line) for line in made.lines],
        "breakdowns": {title: [_line(line) for line in lines] for title, lines in made.breakdowns.items()},
        "notes": list(made.notes),
    }
    cleaned: dict[str, Any] = without_nan(values)
    return cleaned


def markdown(made: Comparison) -> str:
    """Return the runs, the table with the best in bold, the differences, the breakdowns and the notes."""
    lines = [f"# {_title(made)}", ""]
    lines += _markdown_table(("run", "report", "checkpoint", "frames", "shared"), _runs(made))
    lines += ["", *(f"**{warning}**\n" for warning in _warnings(made))]
    lines += ["## Side by side", "", *_markdown_table(*_means(made, made.lines))]
    if any(line.differences for line in made.lines):
        lines += ["", "## Differences", "", *_markdown_table(*_differences(made, made.lines))]
    for title, some in made.breakdowns.items():
        lines += ["", f"## {title}", "", *_markdown_table(*_means(made, some, part=True))]
        if any(line.differences for line in some):
            lines += ["", *_markdown_table(*_differences(made, some))]
    return "\n".join([*lines, "", *(f"- {note}" for note in made.notes)]) + "\n"


def page(made: Comparison) -> Page:
    """Return the page: the same as `markdown` with charts and whatever figures there are."""
    one = Page(_title(made), f"{len(made.runs)} reports, {made.frames:,} shared frames")
    for warning in _warnings(made):
        one.text(warning, "warning")
    one.section("Side by side")
    one.table(*_means(made, made.lines))
    shown = shown_metrics(made.metrics, [line.row for line in made.lines])
    one.charts([_chart_of_means(made, name) for name in shown])
    for note in made.notes:
        one.text(note, "faint")
    if any(line.differences for line in made.lines):
        one.section("Differences")
        one.table(*_differences(made, made.lines))
        compared = [name for name in shown if any(name in line.differences for line in made.lines)]
        one.charts([_chart_of_differences(made, name) for name in compared])
    for title, some in made.breakdowns.items():
        one.section(title)
        one.table(*_means(made, some, part=True))
        if any(line.differences for line in some):
            one.table(*_differences(made, some))
    add_figures(one, made.figures)
    one.section("Reports")
    one.table(("run", "report", "checkpoint", "frames", "shared"), _runs(made))
    return one


def _title(made: Comparison) -> str:
    runs = "one run" if len(made.runs) == 1 else f"{len(made.runs)} runs compared"
    return f"{made.kind.capitalize()} on {made.dataset} {made.split}: {runs}"


def _warnings(made: Comparison) -> list[str]:
    return [
        f"{run.name} is another measurement than {made.runs[0].name}: {'; '.join(run.differs)}. It is shown because of "
        "--anyway."
        for run in made.runs
        if run.differs
    ]


def _runs(made: Comparison) -> list[tuple[str, ...]]:
    return [
        (run.name, f"{run.folder}: {run.about}", run.checkpoint, f"{run.used:,}", f"{run.shared:,}")
        for run in made.runs
    ]


def _means(made: Comparison, lines: Sequence[Line], *, part: bool = False) -> _Table:
    shown = shown_metrics(made.metrics, [line.row for line in lines])
    # A breakdown has lines of different parts, of which none is better than another.
    best = set() if part else _best(made, lines)
    rows = []
    for place, line in enumerate(lines):
        cells = (Aligned(cell(line.row, name), (place, name) in best) for name in shown)
        count = Aligned(f"{line.row.frames:,}" if line.row.frames else "")
        rows.append((line.name, *cells, count, line.row.note))
    return ("", *(column(name).heading for name in shown), "n", "note"), rows


def _best(made: Comparison, lines: Sequence[Line]) -> set[tuple[int, str]]:
    """Places of the best judged lines by metric; none where the runs are no like measurements."""
    if made.anyway:
        return set()
    found = set()
    for name in shown_metrics(made.metrics, [line.row for line in lines]):
        judged = [(place, line.row.mean(name)) for place, line in enumerate(lines) if line.row.kind in JUDGED]
        best = column(name).best([value for _, value in judged])
        found |= {(place, name) for place, value in judged if value == best}
    return found


def _differences(made: Comparison, lines: Sequence[Line]) -> _Table:
    compared = [line for line in lines if line.differences]
    shown = shown_metrics(made.metrics, [line.row for line in compared])
    rows = []
    for line in compared:
        frames = sorted({one.frames for one in line.differences.values()})
        told = f"{frames[0]:,}" if len(frames) == 1 else f"{frames[0]:,} to {frames[-1]:,}"
        note = line.row.note if made.anyway else ""
        cells = (Aligned(_difference(line, name)) for name in shown)
        rows.append((line.name, line.against, *cells, Aligned(told), note))
    return ("", "minus", *(column(name).heading for name in shown), "n", "note"), rows


def _difference(line: Line, name: str) -> str:
    one = line.differences.get(name)
    if one is None or math.isnan(one.mean):
        return ""
    digits = column(name).digits
    p = "p < 0.001" if one.p < 0.001 else f"p {one.p:.3f}"
    text = f"{one.mean:+,.{digits}f} [{one.low:+,.{digits}f}, {one.high:+,.{digits}f}], {p}"
    verdict = _verdict(line, name)
    return f"{text}, {verdict}" if verdict else text


def _verdict(line: Line, name: str) -> str:
    """Better, worse or undecided; empty where the line must not be compared."""
    return "" if name in line.row.apart else line.differences[name].verdict(name)


def _chart_of_means(made: Comparison, name: str) -> tuple[str, str]:
    known = column(name)
    entries = [
        (
            line.name,
            line.row.mean(name),
            line.row.metrics[name].low,
            line.row.metrics[name].high,
        )
        for line in made.lines
        if not math.isnan(line.row.mean(name)) and (line.run or name not in line.row.apart)
    ]
    hollow = "; hollow: published" if any(line.row.kind == "published" for line in made.lines) else ""
    return charts.intervals(entries, known.heading, digits=known.digits), f"{known.meaning or known.title}{hollow}"


def _chart_of_differences(made: Comparison, name: str) -> tuple[str, str]:
    known = column(name)
    entries = []
    for line in made.lines:
        if name in line.differences:
            one = line.differences[name]
            entries.append((line.name, one.mean, one.low, one.high))
    against = sorted({line.against for line in made.lines if name in line.differences})
    caption = f"{known.title} minus that of {', '.join(against)}; {known.better or 'neither way'} is better"
    return charts.intervals(entries, known.heading, digits=known.digits, mark=0.0), caption


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    told = [[f"**{text}**" if isinstance(text, Aligned) and text.best else text for text in row] for row in rows]
    return [table_line(headers), table_line(["---"] * len(headers)), *(table_line(row) for row in told)]


def _line(line: Line) -> dict[str, Any]:
    return {
        "run": line.run,
        "name": line.row.name,
        "kind": line.row.kind,
        "note": line.row.note,
        "apart": list(line.row.apart),
        "metrics": {name: asdict(value) for name, value in line.row.metrics.items()},
        "against": line.against,
        "differences": {
            name: {**asdict(one), "verdict": _verdict(line, name)} for name, one in line.differences.items()
        },
    }
