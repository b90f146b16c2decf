"""Pictures: small functions from arrays to RGB uint8 images, drawn with OpenCV alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.errors import StoreError, UsageError

Image: TypeAlias = NDArray[np.uint8]

INK = (32, 32, 36)
PAPER = (250, 250, 248)
FREE = (226, 232, 236)
HIDDEN_FREE = (172, 190, 204)
OCCUPIED = (40, 60, 86)
MISSED = (214, 96, 60)
INVENTED = (240, 190, 70)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def depth_picture(depth: NDArray[Any], nearest: float = 3.0, farthest: float = 80.0) -> Image:
    """Return depth [H, W] in metres as colours [H, W, 3], linear in inverse depth: near bright, unknown black.

    The same colour is the same depth in every picture of one range.
    """
    known = np.isfinite(depth) & (depth > 0)
    inverse = 1.0 / np.where(known, depth, farthest)
    share = np.clip((inverse - 1 / farthest) / (1 / nearest - 1 / farthest), 0, 1)
    # The square root spreads the far half, where most of a street lies, over more of the colours.
    level = np.rint(255 * np.sqrt(share)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    colours[~known] = 0
    return _image(colours)


def sparse_depth_picture(depth: NDArray[Any], image: Image, radius: int = 1) -> Image:
    """Return LiDAR depth [H, W] as coloured dots on a darkened image [H, W, 3]."""
    picture = _image(image // 3)
    colours = depth_picture(depth)
    for y, x in zip(*np.nonzero(np.isfinite(depth) & (depth > 0)), strict=True):
        colour = tuple(int(value) for value in colours[y, x])
        cv2.circle(picture, (int(x), int(y)), radius, colour, cv2.FILLED)
    return picture


def anchors_picture(
    image: Image, anchors: NDArray[Any], patch: int = 8, boxes: NDArray[Any] | None = None, scale: int = 1
) -> Image:
    """Return an image [H, W, 3], enlarged `scale` times, with the patches of anchors [n, 2] and boxes [K, 4] on it.

    Each outlined patch is the rays that are rendered: centre - patch/2 to centre + patch/2 - 1.
    """
    picture = _enlarge(image, scale)
    for x0, y0, x1, y1 in [] if boxes is None else np.asarray(boxes, dtype=float):
        corners = [round((value + 0.5) * scale) for value in (x0, y0, x1, y1)]
        cv2.rectangle(picture, tuple(corners[:2]), tuple(corners[2:]), (80, 220, 240), 1, cv2.LINE_AA)
    for x, y in np.asarray(anchors, dtype=int):
        left, top = (x - patch // 2) * scale, (y - patch // 2) * scale
        end = patch * scale - 1
        cv2.rectangle(picture, (int(left), int(top)), (int(left) + end, int(top) + end), (255, 210, 60), 1)
    return picture


def density_overlay(image: Image, density: NDArray[Any], strength: float = 0.65) -> Image:
    """Return an image [H, W, 3] with a sampling density [H, W] laid over it (Figure 3)."""
    top = float(np.quantile(density[density > 0], 0.999)) if (density > 0).any() else 1.0
    level = np.rint(255 * np.sqrt(np.clip(density / top, 0, 1))).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return _image(np.rint((1 - strength) * image + strength * colours))


def occupancy_picture(
    predicted: NDArray[np.bool_], occupied: NDArray[np.bool_], visible: NDArray[np.bool_], scale: int = 3
) -> Image:
    """Return occupancy from above, far at the top: truth, prediction and their difference, with a legend.

    All are bool [rows, columns] with row 0 farthest. Rows are 10 cm, columns 10 cm; the camera is below the middle.
    """
    truth = occupied & ~visible
    panels = [
        ("truth", _cells(truth, visible)),
        ("predicted", _cells(predicted, visible)),
        ("difference", _difference(predicted, truth, visible)),
    ]
    tiles = [[(title, _enlarge(panel, scale)) for title, panel in panels]]
    legend = [
        (FREE, "free, seen"),
        (HIDDEN_FREE, "free, hidden"),
        (OCCUPIED, "occupied"),
        (MISSED, "missed"),
        (INVENTED, "invented"),
    ]
    return _with_legend(contact_sheet(tiles), legend)


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, Image]]], width: int | None = None, gap: int = 8, title_height: int = 20
) -> Image:
    """Return titled images in rows; with `width`, each tile is resized to that many pixels across.

    Raises:
        UsageError: there is nothing to show.
    """
    if not rows or not any(rows):
        raise UsageError("a contact sheet needs at least one image")
    strips = []
    for row in rows:
        sized = [(title, _to_width(image, width) if width else image) for title, image in row]
        height = max(image.shape[0] for _, image in sized) + title_height
        strip = np.full((height, sum(image.shape[1] + gap for _, image in sized) + gap, 3), PAPER, dtype=np.uint8)
        left = gap
        for title, image in sized:
            _write(strip, title, (left, title_height - 6), 0.42)
            strip[title_height : title_height + image.shape[0], left : left + image.shape[1]] = image
            left += image.shape[1] + gap
        strips.append(strip)
    sheet = np.full(
        (sum(strip.shape[0] + gap for strip in strips) + gap, max(strip.shape[1] for strip in strips), 3),
        PAPER,
        dtype=np.uint8,
    )
    top = gap
    for strip in strips:
        sheet[top : top + strip.shape[0], : strip.shape[1]] = strip
        top += strip.shape[0] + gap
    return sheet


def write_png(path: Path, image: Image) -> None:
    """Write an RGB image whole or not at all; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not good:
        raise StoreError("the picture cannot be encoded", where=path)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(data.tobytes())
    os.replace(aside, path)


def _cells(occupied: NDArray[np.bool_], visible: NDArray[np.bool_]) -> Image:
    picture = np.full((*occupied.shape, 3), HIDDEN_FREE, dtype=np.uint8)
    picture[visible] = FREE
    picture[occupied] = OCCUPIED
    return picture


def _difference(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], visible: NDArray[np.bool_]) -> Image:
    picture = _cells(truth & predicted, visible)
    picture[truth & ~predicted] = MISSED
    picture[~truth & predicted] = INVENTED
    return picture


def _with_legend(image: Image, entries: Sequence[tuple[tuple[int, int, int], str]]) -> Image:
    columns = max(1, image.shape[1] // 98)
    lines = -(-len(entries) // columns)
    strip = np.full((20 * lines + 4, image.shape[1], 3), PAPER, dtype=np.uint8)
    for number, (colour, text) in enumerate(entries):
        left, top = 8 + 98 * (number % columns), 20 * (number // columns) + 2
        strip[top : top + 13, left : left + 13] = colour
        cv2.rectangle(strip, (left, top), (left + 13, top + 13), INK, 1)
        _write(strip, text, (left + 19, top + 11), 0.38)
    return np.concatenate([image, strip])


def _write(picture: Image, text: str, place: tuple[int, int], size: float) -> None:
    # OpenCV's fonts have ASCII only.
    cv2.putText(picture, text.encode("ascii", "replace").decode(), place, FONT, size, INK, 1, cv2.LINE_AA)


def _enlarge(image: Image, scale: int) -> Image:
    return _image(np.repeat(np.repeat(image, scale, axis=0), scale, axis=1))


def _to_width(image: Image, width: int) -> Image:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    smaller = width < image.shape[1]
    return _image(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST))


def _image(values: NDArray[Any]) -> Image:
    return np.ascontiguousarray(values, dtype=np.uint8)
