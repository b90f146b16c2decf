"""Pages and charts: what is put in is escaped, numbers stand right, a page is written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from vipocc import charts
from vipocc.errors import StoreError
from vipocc.page import Figure as PageFigure
from vipocc.page import Link, Page


def test_text_is_escaped_and_cells_are_formatted() -> None:
    page = Page("a < b")
    page.section("one & two")
    page.text("<script>")
    page.table(("name", "n", "share"), [("x<y", 1234, 0.12345), (Link("there", "card-1"), 5, 2000.0)])
    page.card("card-1", "shown", [(b"\x89PNG....", "a picture")], ["a note"])
    html = page.html()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "one &amp; two" in html
    assert '<td class="number">1,234</td>' in html
    assert '<td class="number">0.123</td>' in html
    assert '<a href="#card-1">there</a>' in html
    assert 'id="card-1"' in html
    assert "data:image/png;base64,iVBORy4uLi4=" in html


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    page = Page("x")
    page.save(tmp_path / "deep" / "page.html")
    before = (tmp_path / "deep" / "page.html").read_bytes()
    assert before.startswith(b"<!doctype html>")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]
    with pytest.raises(StoreError, match="cannot be written"):
        page.save(tmp_path / "deep" / "page.html" / "under a file.html")
    assert (tmp_path / "deep" / "page.html").read_bytes() == before


def test_a_histogram_draws_every_bin_in_proportion() -> None:
    svg = ElementTree.fromstring(
        charts.histogram(np.array([1.0, 2.0, 4.0, 8.0]), np.array([1, 4, 2]), "m", logarithmic=True)
    )
    bars = [element for element in svg.iter() if element.tag.endswith("rect")]
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert heights == pytest.approx([heights[1] / 4, heights[1], heights[1] / 2], abs=0.1)
    widths = [float(bar.get("width", 0)) for bar in bars]
    assert widths == pytest.approx([widths[0]] * 3, abs=0.1)


def test_lines_break_where_values_are_missing() -> None:
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    svg = ElementTree.fromstring(charts.lines([("a & b", np.arange(5.0), y)], "row", "m"))
    assert len([element for element in svg.iter() if element.tag.endswith("polyline")]) == 2
    empty = charts.lines([("none", np.arange(2.0), np.full(2, np.nan))], "row", "m")
    assert "nothing to show" in empty


def test_bars_name_their_values() -> None:
    svg = charts.bars([("car", 12.0), ("<b>", 3.0)], "instances", " %")
    ElementTree.fromstring(svg)
    assert "12 %" in svg
    assert "&lt;b&gt;" in svg


def test_intervals_lie_in_proportion_and_without_one_the_dot_is_hollow() -> None:
    text = charts.intervals([("a & b", 0.5, 0.4, 0.7), ("published", 0.6, np.nan, np.nan)], "share", mark=0.4)
    svg = ElementTree.fromstring(text)
    dots = [element for element in svg.iter() if element.tag.endswith("circle")]
    assert [dot.get("fill") for dot in dots] == ["var(--bar)", "var(--paper)"]
    (bar,) = (element for element in svg.iter() if element.get("stroke-linecap"))
    low, high = float(bar.get("x1", 0)), float(bar.get("x2", 0))
    first, second = (float(dot.get("cx", 0)) for dot in dots)
    assert (first - low) / (high - low) == pytest.approx(1 / 3, abs=0.01)
    assert (second - first) / (high - low) == pytest.approx(1 / 3, abs=0.01)
    (mark,) = (element for element in svg.iter() if element.get("stroke-dasharray"))
    assert float(mark.get("x1", 0)) == low
    ElementTree.fromstring(charts.intervals([], "nothing"))


def test_figures_stand_right_and_rows_can_be_led_to() -> None:
    page = Page("a")
    rows = [("x", PageFigure("0.7 [0.6, 0.8], p < 0.001", best=True)), ("y", PageFigure(""))]
    page.table(("name", "value"), rows, anchors=["one", "two"])
    text = page.html()
    assert '<tr id="one"><td>x</td><td class="number"><strong>0.7</strong> <small>[0.6, 0.8]</small>' in text
    assert "<small>p &lt; 0.001</small>" in text
    assert '<tr id="two"><td>y</td><td class="number"></td></tr>' in text
