"""A report as one HTML file that needs nothing beside it: headings, tables, pictures and charts, all inlined."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

from vipocc.errors import StoreError

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --faint: #69727d; --line: #d9dee3; --paper: #ffffff; --tint: #f4f6f8;
  --accent: #2b6cb0; --warn: #b4530a; --warn-tint: #fff4e6; --bar: #4a7fb5; --bar2: #d98a3d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --faint: #98a2ad; --line: #38404a; --paper: #15191e;
  --tint: #1d232a; --accent: #7db3e8; --warn: #f0a35e; --warn-tint: #33261a; --bar: #6ea3d8; --bar2: #e0a060; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 1180px; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 78ch; } .subtitle, figcaption { color: var(--faint); } a { color: var(--accent); }
nav { margin: .8rem 0; display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; } td.number, th.number { text-align: right; }
tr:target td { background: var(--tint); } details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { background: var(--tint); padding: .6rem .8rem; border-radius: 6px; overflow-x: auto; font-size: .88rem; }
.warning { background: var(--warn-tint); border-left: 3px solid var(--warn); padding: .4rem .8rem; margin: .4rem 0;
  max-width: 100%; }
td:last-child:not(.number) { min-width: 18ch; }
td small { color: var(--faint); white-space: nowrap; display: inline-block; }
figure { margin: 0; } figure img { display: block; width: 100%; height: auto; image-rendering: auto; }
figcaption { font-size: .85rem; margin: .2rem 0 .5rem; overflow-wrap: anywhere; }
.grid { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(var(--least, 260px), 1fr)); }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; margin: .8rem 0;
  scroll-margin: 1rem; }
.card:target { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent); }
svg text { fill: var(--faint); font: 11px system-ui, sans-serif; }
svg { max-width: 100%; height: auto; display: block; }
"""


class Page:
    """A page that is filled from top to bottom and saved whole."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._head = f'<h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p>'
        self._sections: list[tuple[str, str]] = []
        self._body: list[str] = []

    def section(self, title: str) -> None:
        """Begin a section; its title goes into the list of contents."""
        name = f"section-{len(self._sections)}"
        self._sections.append((name, title))
        self._body.append(f'<h2 id="{name}">{escape(title)}</h2>')

    def heading(self, title: str) -> None:
        """Begin a part of a section."""
        self._body.append(f"<h3>{escape(title)}</h3>")

    def text(self, text: str, kind: Literal["plain", "faint", "warning"] = "plain") -> None:
        """Add a paragraph."""
        names = {"plain": "", "faint": ' class="subtitle"', "warning": ' class="warning"'}
        self._body.append(f"<p{names[kind]}>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add what a user types, as it is."""
        self._body.append(f"<pre>{escape(text)}</pre>")

    def fold(self, title: str) -> None:
        """Begin a part that is folded away until its title is clicked; `unfold` ends it."""
        self._body.append(f"<details><summary>{escape(title)}</summary>")

    def unfold(self) -> None:
        """End the part that `fold` began."""
        self._body.append("</details>")

    def table(
        self, headers: Sequence[str], rows: Sequence[Sequence[Any]], anchors: Sequence[str] | None = None
    ) -> None:
        """Add a table; numbers stand to the right, a `Link` in a cell leads to its place in the page.

        `anchors` names each row so that a `Link` can lead to it.
        """
        numeric = [
            all(isinstance(row[column], (int, float, Figure)) or row[column] in ("", "–") for row in rows)
            and bool(rows)
            for column in range(len(headers))
        ]
        mark = [' class="number"' if flag else "" for flag in numeric]
        head = "".join(f"<th{m}>{escape(text)}</th>" for m, text in zip(mark, headers, strict=True))
        starts = [""] * len(rows) if anchors is None else [f' id="{escape(name)}"' for name in anchors]
        lines = [
            f"<tr{start}>"
            + "".join(f"<td{m}>{_cell(value)}</td>" for m, value in zip(mark, row, strict=True))
            + "</tr>"
            for start, row in zip(starts, rows, strict=True)
        ]
        self._body.append(f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>')

    def chart(self, svg: str, caption: str) -> None:
        """Add a chart of `vipocc.charts`, which is inserted as it is."""
        self._body.append(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")

    def charts(self, charts: Sequence[tuple[str, str]], least: int = 360) -> None:
        """Add (svg, caption) charts side by side, each at least that many pixels wide."""
        figures = (f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in charts)
        self._body.append(f'<div class="grid" style="--least: {least}px">{"".join(figures)}</div>')

    def card(
        self,
        anchor: str,
        title: str,
        pictures: Sequence[tuple[bytes, str]],
        notes: Sequence[str] = (),
        least: int = 340,
    ) -> None:
        """Add titled pictures, (JPEG or PNG bytes, caption), under a name that a `Link` can lead to."""
        told = "".join(f"<p>{escape(note)}</p>" for note in notes)
        figures = "".join(
            f'<figure><img alt="{escape(caption)}" src="{_data(picture)}"><figcaption>{escape(caption)}</figcaption>'
            "</figure>"
            for picture, caption in pictures
        )
        self._body.append(
            f'<div class="card" id="{escape(anchor)}"><strong>{escape(title)}</strong>{told}'
            f'<div class="grid" style="--least: {least}px">{figures}</div></div>'
        )

    def drawing(self, anchor: str, title: str, svg: str, caption: str) -> None:
        """Add a titled drawing, SVG text that is inserted as it is, under a name that a `Link` can lead to."""
        self._body.append(
            f'<div class="card" id="{escape(anchor)}"><strong>{escape(title)}</strong><figure>{svg}'
            f"<figcaption>{escape(caption)}</figcaption></figure></div>"
        )

    def html(self) -> str:
        """Return the whole page."""
        contents = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in self._sections)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head><body>"
            f"{self._head}<nav>{contents}</nav>{''.join(self._body)}</body></html>\n"
        )

    def save(self, path: Path) -> None:
        """Write the page whole or not at all; the folder is made if need be.

        Raises:
            StoreError: the disk is full or may not be written.
        """
        aside = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(self.html(), encoding="utf-8")
            os.replace(aside, path)
        except OSError as error:
            raise StoreError(
                f"the page cannot be written ({error.strerror})", where=path, fix="make room, or choose another file"
            ) from None


class Link(str):
    """Text of a table's cell that leads to the card called `anchor`."""

    anchor: str

    def __new__(cls, text: str, anchor: str) -> Link:
        """Return the text with the place it leads to."""
        made = super().__new__(cls, text)
        made.anchor = anchor
        return made


class Figure(str):
    """Text of a cell that stands to the right as numbers do, as "0.7 [0.6, 0.8], p 0.2"; the best is in bold."""

    best: bool

    def __new__(cls, text: str, best: bool = False) -> Figure:
        """Return the text, marked as the best of its column or not."""
        made = super().__new__(cls, text)
        made.best = best
        return made


def _cell(value: Any) -> str:
    if isinstance(value, Figure):
        figure, bracket, rest = value.partition(" [")
        interval, end, more = rest.partition("], ")
        told = f"<strong>{escape(figure)}</strong>" if value.best else escape(figure)
        small = (escape(part) for part in (bracket[1:] + interval + end[:1], more) if part)
        return " ".join([told, *(f"<small>{part}</small>" for part in small)])
    if isinstance(value, Link):
        return f'<a href="#{escape(value.anchor)}">{escape(value)}</a>'
    if isinstance(value, float):
        return escape(f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}")
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _data(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
