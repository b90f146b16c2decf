"""A report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vipocc import charts
from vipocc.evaluation.report.columns import column
from vipocc.evaluation.report.content import FORMAT_VERSION, Figure, Frame, Report, Row, reasons
from vipocc.evaluation.report.document import digest_of
from vipocc.evaluation.report.frames import main_metric, main_row, ranked, worst_and_best
from vipocc.evaluation.report.markdown import DAGGER, cell, shown_metrics
from vipocc.evaluation.report.selection import selection
from vipocc.page import Figure as Aligned
from vipocc.page import Link, Page

#: Bytes of pictures before base64 that a page holds, so that it stays under 5 MB.
PICTURES = 3_400_000
#: Frames that the page lists one by one; report.json has all.
LISTED = 1000
CHARTS = 6

_JUDGED = ("measured", "baseline", "prior")


def page(report: Report) -> Page:
    """Return the page: result, protocol, what chose the model, parts, frames, pictures, provenance."""
    made = Page(
        f"{report.kind.capitalize()} on {report.dataset} {report.split}",
        f"protocol {report.protocol['name']}"
        + (f", {len(report.used):,} frames used, {len(report.skipped):,} left out" if report.used else ""),
    )
    _result(made, report)
    _protocol(made, report)
    for title, rows in report.breakdowns.items():
        made.section(title)
        _table(made, report.metrics, rows, part=True)
    _distribution(made, report)
    _extremes(made, report)
    _skipped(made, report)
    add_figures(made, report.figures)
    _every_frame(made, report)
    _provenance(made, report)
    return made


def anchor(frame: Frame, kind: str = "frame") -> str:
    """Return the name of a frame's place in the page: its first picture (`frame`) or its line (`values`)."""
    return f"{kind}-{frame.sequence}-{frame.camera}-{frame.row}".replace("/", "-")


def _result(made: Page, report: Report) -> None:
    made.section("Result")
    told, warn = selection(report)
    made.text(told, "warning" if warn else "plain")
    _table(made, report.metrics, report.rows)
    confidence = report.settings.get("confidence")
    if confidence is not None:
        made.text(
            f"Means over frames; in brackets the {100 * float(confidence):g} % bootstrap interval over frames. Bold is "
            f"the best of what was measured here on each column; hollow dots are others' numbers; {DAGGER}.",
            "faint",
        )
    drawn = []
    for name in shown_metrics(report.metrics, report.rows)[:CHARTS]:
        known = column(name)
        entries = [
            (
                row.name,
                row.mean(name),
                row.metrics[name].low,
                row.metrics[name].high,
            )
            for row in report.rows
            if not math.isnan(row.mean(name)) and name not in row.apart
        ]
        drawn.append((charts.intervals(entries, known.heading, digits=known.digits), known.meaning or known.title))
    if drawn:
        made.charts(drawn)
    for note in report.notes:
        if note != told:
            made.text(note)


def _protocol(made: Page, report: Report) -> None:
    made.section("How it was measured")
    rows = [(key.replace("_", " "), _words(value)) for key, value in report.protocol.items() if key != "digest"]
    rows += [
        ("digest of the protocol", str(report.protocol["digest"])),
        ("digest of the ground truth", report.truth_digest or "–"),
    ]
    made.table(("", ""), rows)
    made.text(
        "Reports with different digests are different measurements; `vipocc eval compare` refuses to mix them.", "faint"
    )
    shown = shown_metrics(report.metrics, report.rows)
    told = [(column(name).heading, column(name).meaning) for name in shown if column(name).meaning]
    if told:
        made.fold("What the columns mean")
        made.table(("column", "is"), told)
        made.unfold()


def _table(made: Page, metrics: Sequence[str], rows: Sequence[Row], *, part: bool = False) -> None:
    shown = shown_metrics(metrics, rows)
    # The rows of a breakdown are different parts of the frames, of which none is better than another.
    judged = [] if part else [row for row in rows if row.kind in _JUDGED]
    best = {name: column(name).best([row.mean(name) for row in judged]) for name in shown}
    lines = [
        (
            row.name,
            row.kind,
            *(Aligned(cell(row, name), row in judged and row.mean(name) == best[name]) for name in shown),
            row.frames or "–",
            row.note,
        )
        for row in rows
    ]
    made.table(("", "kind", *(column(name).heading for name in shown), "n", "note"), lines)


def _distribution(made: Page, report: Report) -> None:
    row = main_row(report)
    if row is None:
        return
    drawn = []
    for name in shown_metrics(report.metrics, [row]):
        values = np.asarray([one.get(name, math.nan) for _, one in row.per_frame], np.float64)
        values = values[np.isfinite(values)]
        if len(values) > 1 and values.min() < values.max():
            counts, edges = np.histogram(values, bins=min(40, max(5, len(values) // 4)))
            caption = (
                f"{column(name).title}: median {np.median(values):.3f}, a tenth of frames below "
                f"{np.quantile(values, 0.1):.3f}, a tenth above {np.quantile(values, 0.9):.3f}; dashed: the mean"
            )
            drawn.append((charts.histogram(edges, counts, column(name).heading, mark=float(values.mean())), caption))
    if drawn:
        made.section(f"Over frames: {row.name}")
        made.charts(drawn)


def _extremes(made: Page, report: Report) -> None:
    metric, row = main_metric(report), main_row(report)
    pictured = {figure.frame for figure in fitting(report.figures)}
    if metric is None or row is None:
        return
    shown = shown_metrics(report.metrics, [row])
    listed = {frame for frame, _ in row.per_frame[:LISTED]}
    values = dict(ranked(report))
    made.section("Worst and best frames")
    for title, frames in zip(("Worst", "Best"), worst_and_best(report), strict=True):
        made.heading(f"{title} by {column(metric).title}, {row.name}")
        lines = []
        for frame in frames:
            place = anchor(frame) if frame in pictured else anchor(frame, "values") if frame in listed else None
            name = frame.name if place is None else Link(frame.name, place)
            lines.append((name, frame.row, *(_number(one, values[frame]) for one in shown)))
        made.table(("frame", "row", *(column(one).heading for one in shown)), lines)


def _skipped(made: Page, report: Report) -> None:
    made.section("Frames left out")
    tables = [("All methods", report.skipped), *((row.name, row.skipped) for row in report.rows)]
    if not any(skipped for _, skipped in tables):
        made.text("None.")
        return
    counts = [(name, reason, count) for name, skipped in tables for reason, count in reasons(skipped).items()]
    made.table(("of", "reason", "frames"), counts)
    every = [(name, one.frame.name, one.frame.row, one.reason) for name, skipped in tables for one in skipped]
    made.fold("Frame by frame")
    made.table(("of", "frame", "row", "reason"), every[:LISTED])
    if len(every) > LISTED:
        made.text(f"and {len(every) - LISTED:,} more in report.json", "faint")
    made.unfold()


def add_figures(made: Page, figures: Sequence[Figure]) -> None:
    """Add a section of figures, as many as fit into a small page; the first of a frame is what links lead to."""
    if not figures:
        return
    made.section("Pictures")
    placed: set[str] = set()
    kept = fitting(figures)
    for number, figure in enumerate(kept):
        name = f"figure-{number}" if figure.frame is None else anchor(figure.frame)
        name = f"figure-{number}" if name in placed else name
        placed.add(name)
        if isinstance(figure.picture, str):
            made.drawing(name, figure.title, figure.picture, figure.caption)
        else:
            made.card(name, figure.title, [(figure.picture, figure.caption)])
    if len(kept) < len(figures):
        made.text(f"{len(figures) - len(kept)} more figures are left out to keep the page small.", "warning")


def fitting(figures: Sequence[Figure]) -> list[Figure]:
    """Return the first figures whose bytes are together at most `PICTURES`."""
    kept, room = [], PICTURES
    for figure in figures:
        # Drawings stand in the page as they are, pictures in base64.
        room -= len(figure.picture) if isinstance(figure.picture, bytes) else 3 * len(figure.picture) // 4
        if room < 0:
            break
        kept.append(figure)
    return kept


def _every_frame(made: Page, report: Report) -> None:
    row = main_row(report)
    if row is None:
        return
    shown = shown_metrics(report.metrics, [row])
    made.section("Every frame")
    made.fold(f"Values of {row.name} on {min(LISTED, len(row.per_frame)):,} of {len(row.per_frame):,} frames")
    some = row.per_frame[:LISTED]
    lines = [(frame.name, frame.row, *(_number(name, values) for name in shown)) for frame, values in some]
    headers = ("frame", "row", *(column(name).heading for name in shown))
    made.table(headers, lines, [anchor(frame, "values") for frame, _ in some])
    made.unfold()
    made.text("report.json has every method's values of every frame.", "faint")


def _provenance(made: Page, report: Report) -> None:
    made.section("Where it comes from")
    made.heading("Do it again")
    command = report.created.get("command")
    if command:
        made.code(f"cd {report.created['folder']}\n{command}")
    else:
        made.text("The report was made by a program that calls the library, not by a command.")
    groups: list[tuple[str, Mapping[str, Any]]] = [
        ("Made", {**report.created, "report format": FORMAT_VERSION}),
        ("Checkpoint", report.checkpoint or {}),
        ("Settings", report.settings),
    ]
    for title, values in groups:
        told = [
            (key.replace("_", " "), _words(value)) for key, value in values.items() if key not in ("command", "folder")
        ]
        if told:
            made.heading(title)
            made.table(("", ""), told)
    if report.configuration is not None:
        digest = digest_of(report.configuration)
        made.text(f"The whole configuration is beside this page, config.yaml (digest {digest}).", "faint")


def _number(name: str, values: Mapping[str, float]) -> Aligned:
    return Aligned(column(name).text(values.get(name, math.nan)) or "–")


def _words(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"({_words(one)})" if isinstance(one, list | tuple) else _words(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value)
