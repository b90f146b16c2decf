"""What a 3D page shows: named layers of cubes, points, lines and pictures, and how they are written for the browser."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.errors import UsageError

Float: TypeAlias = NDArray[np.floating[Any]]
Colours: TypeAlias = NDArray[np.uint8]

POINT_STEP = 0.01
"""Metres: points are written in whole centimetres, up to 327 m away."""


@dataclass(frozen=True)
class Cubes:
    """Cells of a grid. Positions are in the level frame (x right, y down, z forward), as everywhere here."""

    name: str
    centres: Float
    """[N, 3] metres; whole cells apart."""
    colours: Colours
    """[N, 3] RGB."""
    cell: tuple[float, float, float]
    """Metres along x, y and z."""
    shown: bool = True
    note: str = ""


@dataclass(frozen=True)
class Points:
    """Single points."""

    name: str
    points: Float
    """[N, 3] metres."""
    colours: Colours
    """[N, 3] RGB."""
    shown: bool = True
    note: str = ""


@dataclass(frozen=True)
class Lines:
    """Straight pieces of one colour."""

    name: str
    ends: Float
    """[N, 2, 3] metres."""
    colour: tuple[int, int, int]
    shown: bool = True
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image that hangs in the scene."""

    name: str
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    corners: Float
    """[4, 3] metres: upper left, upper right, lower right, lower left."""
    shown: bool = True
    note: str = ""


Layer: TypeAlias = Cubes | Points | Lines | Picture


@dataclass(frozen=True)
class Scene:
    """One moment."""

    title: str
    layers: Sequence[Layer]
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the page says beside the scene, e.g. which checkpoint predicted."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for the page; arrays are little-endian bytes in base64, pictures are JPEG.

        Raises:
            UsageError: a layer holds something that is not finite, too far away, or of another shape.
        """
        return {"title": self.title, "facts": dict(self.facts), "layers": [_layer(one) for one in self.layers]}


def surface(occupied: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the occupied cells of a grid that a free cell touches, or that lie at its border: all that can be seen."""
    padded = np.pad(occupied, 1, constant_values=False)
    hidden = occupied.copy()
    inner = tuple(slice(1, -1) for _ in range(occupied.ndim))
    for axis in range(occupied.ndim):
        for step in (-1, 1):
            hidden &= np.roll(padded, step, axis)[inner]
    return occupied & ~hidden


def _layer(layer: Layer) -> dict[str, Any]:
    common = {"name": layer.name, "shown": layer.shown, "note": layer.note}
    if isinstance(layer, Cubes):
        _expect(layer.name, layer.centres, (3,))
        origin = layer.centres.min(axis=0) if len(layer.centres) else np.zeros(3)
        steps = np.array(layer.cell)
        index = np.rint((layer.centres - origin) / steps)
        if index.size and index.max() > np.iinfo(np.uint16).max:
            raise UsageError(f"the cells of '{layer.name}' lie too far apart to be drawn", fix="show a smaller box")
        return common | {
            "kind": "cubes", "count": len(layer.centres), "origin": origin.tolist(), "steps": steps.tolist(),
            "index": _bytes(index, "<u2"), "colours": _bytes(_colours(layer, len(layer.centres)), "u1"),
        }  # fmt: skip
    if isinstance(layer, Points):
        _expect(layer.name, layer.points, (3,))
        near = (np.abs(layer.points) < np.iinfo(np.int16).max * POINT_STEP).all(axis=1)
        colours = _colours(layer, len(layer.points))
        return common | {
            "kind": "points", "count": int(near.sum()), "step": POINT_STEP,
            "index": _bytes(np.rint(layer.points[near] / POINT_STEP), "<i2"), "colours": _bytes(colours[near], "u1"),
        }  # fmt: skip
    if isinstance(layer, Lines):
        _expect(layer.name, layer.ends, (2, 3))
        return common | {
            "kind": "lines", "count": len(layer.ends), "ends": _bytes(layer.ends, "<f4"), "colour": list(layer.colour),
        }  # fmt: skip
    _expect(layer.name, layer.corners, (3,))
    ok, coded = cv2.imencode(".jpg", layer.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not ok:
        raise UsageError(f"the picture '{layer.name}' cannot be encoded", fix="it has to be uint8 [H, W, 3]")
    source = "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()
    return common | {"kind": "picture", "source": source, "corners": np.asarray(layer.corners, float).tolist()}


def _expect(name: str, values: Float, trailing: tuple[int, ...]) -> None:
    if values.shape[1:] != trailing or not np.isfinite(values).all():
        raise UsageError(
            f"layer '{name}' needs finite positions [N, {', '.join(map(str, trailing))}], not {values.shape}"
        )


def _colours(layer: Cubes | Points, count: int) -> Colours:
    if layer.colours.shape != (count, 3) or layer.colours.dtype != np.uint8:
        raise UsageError(
            f"layer '{layer.name}' needs {count} colours uint8 [N, 3], not {layer.colours.dtype} {layer.colours.shape}"
        )
    return layer.colours


def _bytes(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values.astype(dtype)).tobytes()).decode()
