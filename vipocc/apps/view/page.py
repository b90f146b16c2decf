"""The 3D page: one HTML file with all scenes inside, or the shell that a server fills scene by scene."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any, Literal

from vipocc.apps.view.scene import Scene

View = Literal["behind", "camera", "above", "side"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body data-state="loading"><canvas aria-label="3D scene"></canvas>
<main id="panel"><h1>{title}</h1>
<div id="time" hidden><button type="button" id="play">Play</button>
<input type="range" min="0" max="0" value="0" step="1" aria-label="frame"></div>
<div id="layers"></div><div class="views" role="group" aria-label="views"></div><p id="trouble" role="alert"></p>
<dl></dl><p class="help">Drag to turn, shift-drag or right-drag to move, scroll to come nearer. Keys 1 to 4: views,
← and →: frames. Drawn in the key camera's frame, levelled to the road.</p></main>
<script type="application/json" id="page">{data}</script><script>{script}</script></body></html>
"""


def standalone(scenes: Sequence[Scene], view: View = "behind") -> str:
    """Return one HTML file that shows scenes without any other file or network."""
    return _page(scenes[0].title, {"scenes": [one.as_dict() for one in scenes], "count": len(scenes), "view": view})


def shell(title: str, count: int, view: View = "behind") -> str:
    """Return the page that asks its server for `scene/<number>.json`."""
    return _page(title, {"count": count, "view": view})


def _page(title: str, data: dict[str, Any]) -> str:
    # "</" would end the script element that holds the data.
    inside = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    here = files("vipocc.apps.view")
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("viewer.css", "viewer.js"))
    return _PAGE.format(title=escape(title), style=style, data=inside, script=script)
