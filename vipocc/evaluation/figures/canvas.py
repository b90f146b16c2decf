"""What figures are put together from: axes in metres, colour bars, grids of labelled tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.errors import UsageError
from vipocc.pictures import INK, PAPER, Image, depth_picture, text_width, to_width, write_text

TEXT = 0.42
"""Size of a figure's letters, about 11 pixels high."""
GAP = 8
FAINT = (120, 124, 130)
NEAREST, FARTHEST = 3.0, 80.0
"""Range of depth in metres that colours tell apart, in every figure."""


@dataclass(frozen=True)
class Axis:
    """What the pixels of an image stand for along one direction: `first` at its left or upper edge, `last` opposite."""

    first: float
    last: float
    step: float
    label: str

    def ticks(self) -> list[float]:
        """Return the multiples of `step` on the axis."""
        low, high = sorted((self.first, self.last))
        return [n * self.step for n in range(int(np.ceil(low / self.step - 1e-6)), int(high / self.step + 1e-6) + 1)]

    def place(self, value: float, pixels: int) -> int:
        """Return how many pixels from the first edge a value lies."""
        return round((value - self.first) / (self.last - self.first) * pixels)


def with_axes(image: Image, across: Axis, down: Axis | None) -> Image:
    """Return an image framed by ticks, with the names of the axes below and to the left."""
    height, width = image.shape[:2]
    left, bottom, top, right = (46 if down else 8), 36, 8, 14
    picture = np.full((height + top + bottom, width + left + right, 3), PAPER, np.uint8)
    picture[top : top + height, left : left + width] = image
    cv2.rectangle(picture, (left - 1, top - 1), (left + width, top + height), INK, 1)
    for value in across.ticks():
        x = left + min(across.place(value, width), width - 1)
        cv2.line(picture, (x, top + height), (x, top + height + 4), INK, 1)
        write_text(picture, f"{value:g}", (x, top + height + 16), 0.36, "middle")
    write_text(picture, across.label, (left + width // 2, top + height + 31), 0.38, "middle")
    if down is not None:
        for value in down.ticks():
            y = top + min(down.place(value, height), height - 1)
            cv2.line(picture, (left - 5, y), (left - 1, y), INK, 1)
            write_text(picture, f"{value:g}", (left - 7, y + 4), 0.36, "right")
        _upright(picture, down.label, (12, top + height // 2), 0.38)
    return picture


def depth_bar(height: int) -> Image:
    """Return the colour bar of `depth_picture`, near at the bottom, with metres beside it."""
    share = np.linspace(0, 1, height)[:, None]
    inverse = share**2 * (1 / NEAREST - 1 / FARTHEST) + 1 / FARTHEST
    bar = depth_picture(np.repeat(1 / inverse, 14, axis=1), NEAREST, FARTHEST)
    picture = np.full((height, 58, 3), PAPER, np.uint8)
    picture[:, 4:18] = bar
    taken: list[int] = []
    for metres in (80, 3, 10, 5, 20, 40):
        level = np.sqrt((1 / metres - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST))
        y = round(level * (height - 1))
        if all(abs(y - other) >= 13 for other in taken):
            taken.append(y)
            cv2.line(picture, (18, y), (21, y), INK, 1)
            write_text(picture, f"{metres} m", (24, int(np.clip(y + 4, 9, height - 2))), 0.34)
    return picture


def grid(
    cells: Sequence[Sequence[Image | None]], columns: Sequence[str], rows: Sequence[str] = (), width: int = 320
) -> Image:
    """Return tiles in rows and columns, names of the columns above and of the rows turned at the left.

    A tile is resized to its column's width (`width`, as the paper's comparisons have it); None is an empty place that
    says so.

    Raises:
        UsageError: the rows are not equally long, or there is none.
    """
    if not cells or any(len(row) != len(columns) for row in cells) or (rows and len(rows) != len(cells)):
        raise UsageError("a grid needs rows of as many tiles as it has columns", where=f"{len(columns)} columns")
    left = 22 if rows else GAP
    strips = [np.full((20, left + len(columns) * (width + GAP), 3), PAPER, np.uint8)]
    for at, name in enumerate(columns):
        write_text(strips[0], name, (left + at * (width + GAP) + width // 2, 14), TEXT, "middle")
    for number, row in enumerate(cells):
        tiles = [None if tile is None else to_width(tile, width) for tile in row]
        height = max((len(tile) for tile in tiles if tile is not None), default=40)
        strip = np.full((height + GAP, strips[0].shape[1], 3), PAPER, np.uint8)
        for at, tile in enumerate(tiles):
            x = left + at * (width + GAP)
            if tile is None:
                cv2.rectangle(strip, (x, 0), (x + width - 1, height - 1), (214, 216, 218), 1)
                write_text(strip, "not there", (x + width // 2, height // 2), TEXT, "middle", FAINT)
            else:
                top = (height - len(tile)) // 2
                strip[top : top + len(tile), x : x + width] = tile
        if rows:
            _upright(strip, rows[number], (11, height // 2), 0.36)
        strips.append(strip)
    return np.concatenate(strips)


def beside(parts: Sequence[Image], gap: int = GAP) -> Image:
    """Return images side by side, aligned at the top."""
    height = max(len(part) for part in parts)
    picture = np.full((height, sum(part.shape[1] + gap for part in parts) - gap, 3), PAPER, np.uint8)
    left = 0
    for part in parts:
        picture[: len(part), left : left + part.shape[1]] = part
        left += part.shape[1] + gap
    return picture


def below(parts: Sequence[Image], gap: int = GAP) -> Image:
    """Return images one under another, aligned at the left."""
    width = max(part.shape[1] for part in parts)
    picture = np.full((sum(len(part) + gap for part in parts) - gap, width, 3), PAPER, np.uint8)
    top = 0
    for part in parts:
        picture[top : top + len(part), : part.shape[1]] = part
        top += len(part) + gap
    return picture


def titled(image: Image, title: str, size: float = TEXT) -> Image:
    """Return an image with a title above it."""
    width = max(image.shape[1], text_width(title, size) + 4)
    strip = np.full((20, width, 3), PAPER, np.uint8)
    write_text(strip, title, (2, 14), size)
    return below([strip, image], 0)


def margin(image: Image, pixels: int = 10) -> Image:
    """Return an image with a border of the page's colour."""
    sides = ((pixels, pixels), (pixels, pixels))
    return np.stack([np.pad(image[..., c], sides, constant_values=PAPER[c]) for c in range(3)], axis=-1)


def curves(
    series: Sequence[tuple[str, NDArray[np.float64], tuple[int, int, int]]],
    across: Axis,
    label: str,
    size: tuple[int, int],
) -> Image:
    """Return named step curves with a legend; a series holds n heights over n equal parts of `across`.

    Args:
        series: name, heights [n] and colour, drawn in order.
        across: the axis below.
        label: of the heights.
        size: height and width of the plot in pixels.
    """
    height, width = size
    top = max((float(values.max()) for _, values, _ in series if len(values)), default=1.0) or 1.0
    plot = np.full((2 * height, 2 * width, 3), 255, np.uint8)
    step = _nice(top / 4)
    for value in np.arange(step, top, step):
        y = round(2 * height * (1 - value / (1.06 * top)))
        cv2.line(plot, (0, y), (2 * width, y), (232, 234, 236), 2)
    for number, (_, values, colour) in enumerate(series):
        edges = np.linspace(0, 2 * width, len(values) + 1)
        level = 2 * height * (1 - values / (1.06 * top))
        points = np.stack([np.repeat(edges, 2)[1:-1], np.repeat(level, 2)], axis=1)
        if number == 0:
            area = np.concatenate([[[0, 2 * height]], points, [[2 * width, 2 * height]]])
            pale = tuple(round(0.8 * 255 + 0.2 * c) for c in colour)
            cv2.fillPoly(plot, [np.rint(area).astype(np.int32)], pale)
        cv2.polylines(plot, [np.rint(points).astype(np.int32)], False, colour, 4, cv2.LINE_AA)
    plot = np.asarray(cv2.resize(plot, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    x, y = width - 12 - max(text_width(name, 0.38) for name, _, _ in series) - 26, 16
    for name, _, colour in series:
        cv2.line(plot, (x, y - 4), (x + 20, y - 4), colour, 2)
        write_text(plot, name, (x + 26, y), 0.38)
        y += 16
    return with_axes(plot, across, Axis(1.06 * top, 0.0, step, label))


def _nice(value: float) -> float:
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= value * 0.999))


def _upright(picture: Image, text: str, middle: tuple[int, int], size: float) -> None:
    """Write a line that reads upwards, its middle at (x, y)."""
    length = text_width(text, size) + 4
    line = np.full((16, length, 3), PAPER, np.uint8)
    write_text(line, text, (2, 12), size)
    turned = np.rot90(line)
    y0, x0 = middle[1] - length // 2, middle[0] - 8
    first, last = max(0, -y0), min(length, len(picture) - y0)
    picture[y0 + first : y0 + last, x0 : x0 + 16] = turned[first:last]
