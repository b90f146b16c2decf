"""Pictures: small functions from arrays to RGB uint8 images, drawn with OpenCV alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

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
    picture = enlarge(image, scale)
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


def height_colours(height: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Return colours [N, 3] of heights [N] in metres: dark is low, as in the paper's figure 4."""
    level = np.clip((np.asarray(height) - low) / max(high - low, 1e-9), 0.0, 1.0)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return np.asarray(table[np.rint(255 * level).astype(np.intp)])


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
        sized = [(title, to_width(image, width) if width else image) for title, image in row]
        height = max(image.shape[0] for _, image in sized) + title_height
        strip = np.full((height, sum(image.shape[1] + gap for _, image in sized) + gap, 3), PAPER, dtype=np.uint8)
        left = gap
        for title, image in sized:
            write_text(strip, title, (left, title_height - 6), 0.42)
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


def png_bytes(image: Image) -> bytes:
    """Return an RGB image [H, W, 3] as a PNG file's content."""
    good, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not good:
        raise StoreError("the picture cannot be encoded", where=f"{image.shape}")
    return bytes(data.tobytes())


def jpeg_bytes(image: Image, quality: int = 88) -> bytes:
    """Return an RGB image [H, W, 3] as a JPEG file's content, a fifth of a PNG's where it holds photographs."""
    good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise StoreError("the picture cannot be encoded", where=f"{image.shape}")
    return bytes(data.tobytes())


def write_png(path: Path, image: Image) -> None:
    """Write an RGB image whole or not at all; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(png_bytes(image))
    os.replace(aside, path)


def write_text(
    picture: Image,
    text: str,
    place: tuple[int, int],
    size: float,
    align: Literal["left", "middle", "right"] = "left",
    colour: tuple[int, int, int] = INK,
) -> None:
    """Write a line into a picture; `place` (x, y) is the left end, the middle or the right end of its base line."""
    # OpenCV's fonts have ASCII only.
    text = text.encode("ascii", "replace").decode()
    back = {"left": 0.0, "middle": 0.5, "right": 1.0}[align] * text_width(text, size)
    cv2.putText(picture, text, (round(place[0] - back), place[1]), FONT, size, colour, 1, cv2.LINE_AA)


def text_width(text: str, size: float) -> int:
    """Return how many pixels a line of text takes."""
    return int(cv2.getTextSize(text.encode("ascii", "replace").decode(), FONT, size, 1)[0][0])


def cells_picture(occupied: NDArray[np.bool_], visible: NDArray[np.bool_]) -> Image:
    """Return cells [rows, columns] as a pixel each: occupied, else free and seen or free and hidden."""
    picture = np.full((*occupied.shape, 3), HIDDEN_FREE, dtype=np.uint8)
    picture[visible] = FREE
    picture[occupied] = OCCUPIED
    return picture


def difference_picture(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], visible: NDArray[np.bool_]) -> Image:
    """Return cells [rows, columns] as a pixel each: found, missed and invented ones, and free ones as they are."""
    picture = cells_picture(truth & predicted, visible)
    picture[truth & ~predicted] = MISSED
    picture[~truth & predicted] = INVENTED
    return picture


def legend_strip(entries: Sequence[tuple[tuple[int, int, int], str]], width: int) -> Image:
    """Return a legend [h, width, 3]: squares of colour with their names, in as many lines as it takes."""
    places, left, top = [], 8, 2
    for _, text in entries:
        wide = 19 + text_width(text, 0.38) + 14
        if left + wide > width and left > 8:
            left, top = 8, top + 20
        places.append((left, top))
        left += wide
    strip = np.full((top + 22, width, 3), PAPER, dtype=np.uint8)
    for (colour, text), (left, top) in zip(entries, places, strict=True):
        strip[top : top + 13, left : left + 13] = colour
        cv2.rectangle(strip, (left, top), (left + 13, top + 13), INK, 1)
        write_text(strip, text, (left + 19, top + 11), 0.38)
    return strip


def enlarge(image: Image, scale: int) -> Image:
    """Return an image with each pixel as a square of `scale` x `scale`."""
    return _image(np.repeat(np.repeat(image, scale, axis=0), scale, axis=1))


def to_width(image: Image, width: int) -> Image:
    """Return an image resized to so many pixels across."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    smaller = width < image.shape[1]
    return _image(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST))


def _image(values: NDArray[Any]) -> Image:
    return np.ascontiguousarray(values, dtype=np.uint8)
