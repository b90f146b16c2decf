"""Small charts as SVG text for `vipocc.page`: histograms, lines over frames, horizontal bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 10, 34
_COLOURS = ("var(--bar)", "var(--bar2)", "#5f9e6e", "#a46fb5", "#b5655f", "#6b8fa3", "#8c7a4f", "#7f7f7f")


def histogram(
    edges: NDArray[Any], counts: NDArray[Any], label: str, *, logarithmic: bool = False, mark: float | None = None
) -> str:
    """Return counts [n] between edges [n + 1]; `logarithmic` spaces these so, `mark` is a dashed line."""
    scale = np.log if logarithmic else np.asarray
    places = _across(np.asarray(scale(edges), np.float64), float(scale(edges[0])), float(scale(edges[-1])))
    top = float(np.max(counts, initial=0)) or 1.0
    total = float(np.sum(counts)) or 1.0
    bars = []
    for first, last, count, low, high in zip(places, places[1:], counts, edges, edges[1:], strict=False):
        height = (_HEIGHT - _TOP - _BOTTOM) * float(count) / top
        bars.append(
            f'<rect x="{first:.1f}" y="{_HEIGHT - _BOTTOM - height:.1f}" width="{max(last - first - 1, 0.5):.1f}" '
            f'height="{height:.1f}" fill="var(--bar)"><title>{low:.3g} to {high:.3g}: {float(count):,.0f} '
            f"({100 * float(count) / total:.1f} %)</title></rect>"
        )
    if mark is not None and edges[0] < mark < edges[-1]:
        at = float(_across(np.array([float(scale(mark))]), float(scale(edges[0])), float(scale(edges[-1])))[0])
        bars.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="var(--warn)" '
            'stroke-dasharray="4 3"/>'
        )
    ticks = np.geomspace(edges[0], edges[-1], 5) if logarithmic else np.linspace(edges[0], edges[-1], 5)
    spots = _across(np.asarray(scale(ticks), np.float64), float(scale(edges[0])), float(scale(edges[-1])))
    return _svg([*bars, *_x_axis(spots, ticks, label)], label)


def lines(series: Sequence[tuple[str, NDArray[Any], NDArray[Any]]], x_label: str, y_label: str) -> str:
    """Return named (x, y) lines; gaps where y is not finite."""
    known = [(x[np.isfinite(y)], y[np.isfinite(y)]) for _, x, y in series]
    xs = np.concatenate([x for x, _ in known]) if known else np.zeros(0)
    ys = np.concatenate([y for _, y in known]) if known else np.zeros(0)
    if not len(ys):
        return _svg([f'<text x="{_LEFT}" y="{_HEIGHT / 2}">nothing to show</text>'], y_label)
    low, high = float(xs.min()), float(xs.max())
    bottom, top = min(0.0, float(ys.min())), float(ys.max()) or 1.0
    parts = []
    for number, (name, x, y) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        across, up = _across(np.asarray(x, np.float64), low, high), _up(np.asarray(y, np.float64), bottom, top)
        finite = np.isfinite(up)
        for run in np.split(np.arange(len(up)), np.flatnonzero(np.diff(finite)) + 1):
            if len(run) and finite[run[0]]:
                points = " ".join(f"{across[i]:.1f},{up[i]:.1f}" for i in run)
                parts.append(
                    f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3">'
                    f"<title>{escape(name)}</title></polyline>"
                )
    for value in np.linspace(bottom, top, 4):
        y_at = float(_up(np.array([value]), bottom, top)[0])
        parts.append(f'<text x="{_LEFT - 5}" y="{y_at + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_at:.1f}" y2="{y_at:.1f}" stroke="var(--line)" '
            'stroke-width=".6"/>'
        )
    ticks = np.linspace(low, high, 5)
    return _svg([*parts, *_x_axis(_across(ticks, low, high), ticks, x_label)], y_label)


def bars(entries: Sequence[tuple[str, float]], label: str, unit: str = "") -> str:
    """Return named values as horizontal bars, in the order given."""
    top = max((value for _, value in entries), default=0.0) or 1.0
    height = 18 * len(entries) + 8
    parts = []
    for number, (name, value) in enumerate(entries):
        y = 18 * number + 4
        width = (_WIDTH - 180) * value / top
        parts.append(
            f'<text x="104" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="110" y="{y}" width="{max(width, 0.5):.1f}" height="13" fill="var(--bar)"/>'
            f'<text x="{114 + width:.1f}" y="{y + 11}">{value:,.3g}{escape(unit)}</text>'
        )
    return _svg(parts, label, height)


def intervals(
    entries: Sequence[tuple[str, float, float, float]], label: str, *, digits: int = 3, mark: float | None = None
) -> str:
    """Return (name, value, low, high) as dots with bars from low to high, in the order given; `mark` is a dashed line.

    A value without an interval (low or high not finite) is a hollow dot.
    """
    ends = [value for _, *values in entries for value in values if np.isfinite(value)]
    ends += [] if mark is None else [mark]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - margin, high + margin
    left, right, height = 150, _WIDTH - 60, 20 * len(entries) + 36

    def at(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    parts = [f'<line x1="{left}" x2="{right}" y1="{height - 30}" y2="{height - 30}" stroke="var(--line)"/>']
    for tick in np.linspace(low, high, 4):
        parts.append(
            f'<text x="{at(tick):.1f}" y="{height - 17}" text-anchor="middle">{tick:,.{digits}f}</text>'
            f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="2" y2="{height - 30}" stroke="var(--line)" '
            'stroke-width=".6"/>'
        )
    if mark is not None:
        parts.append(
            f'<line x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="2" y2="{height - 30}" stroke="var(--warn)" '
            'stroke-dasharray="4 3"/>'
        )
    for number, (name, value, bottom, top) in enumerate(entries):
        y = 20 * number + 12
        told = name if len(name) <= 23 else name[:22] + "…"
        parts.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(told)}<title>{escape(name)}</title></text>'
        )
        if not np.isfinite(value):
            continue
        known = bool(np.isfinite(bottom) and np.isfinite(top))
        text = f"{value:,.{digits}f}" + (f" ({bottom:,.{digits}f} to {top:,.{digits}f})" if known else "")
        if known:
            parts.append(
                f'<line x1="{at(bottom):.1f}" x2="{at(top):.1f}" y1="{y}" y2="{y}" stroke="var(--bar)" '
                'stroke-width="3" stroke-linecap="round"/>'
            )
        parts.append(
            f'<circle cx="{at(value):.1f}" cy="{y}" r="4.5" stroke="var(--bar)" stroke-width="1.6" '
            f'fill="{"var(--bar)" if known else "var(--paper)"}"><title>{escape(name)}: {text}</title></circle>'
            f'<text x="{right + 8}" y="{y + 4}">{value:,.{digits}f}</text>'
        )
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 3}" text-anchor="middle">{escape(label)}</text>')
    return _svg(parts, label, height)


def _across(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    share = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return np.asarray(_LEFT + share * (_WIDTH - _LEFT - _RIGHT))


def _up(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    share = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return np.asarray(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM))


def _x_axis(places: NDArray[np.float64], values: NDArray[Any], label: str) -> list[str]:
    base = _HEIGHT - _BOTTOM
    parts = [f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}" stroke="var(--line)"/>']
    parts += [
        f'<text x="{place:.1f}" y="{base + 14}" text-anchor="middle">{value:.3g}</text>'
        for place, value in zip(places, values, strict=True)
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return [*parts, f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>']


def _svg(parts: Sequence[str], label: str, height: float = _HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
