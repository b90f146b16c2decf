"""Depth maps with a bar of metres, comparisons of methods (Figures 6 and 10), distributions of depth (Figure 5)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError, UsageError
from vipocc.evaluation.figures.canvas import FARTHEST, NEAREST, Axis, below, beside, curves, depth_bar, grid
from vipocc.pictures import PAPER, Image, depth_picture, sparse_depth_picture

Depth = NDArray[Any]

COLOURS = {
    "truth": (110, 114, 120),
    "prior": (230, 159, 0),
    "branch": (0, 114, 178),
    "rendered": (0, 158, 115),
}
"""Okabe and Ito's, which the colour-blind tell apart."""
_OTHERS = [(204, 121, 167), (86, 180, 233), (213, 94, 0), (0, 0, 0)]
BINS = 80
SAMPLED = 20_000
"""Pixels of a frame that count in a distribution."""
_SPARSE = 0.5


def depth_maps(image: Image, depths: Mapping[str, Depth], truth: Depth | None = None, width: int = 480) -> Image:
    """Draw an image and its depth maps in two columns, with one bar for all: the same colour is the same depth.

    Args:
        image: [H, W, 3].
        depths: metres [h, w] by name, of any size.
        truth: metres, 0 or NaN where unknown; dots on the image where little is known.
        width: of a map in pixels.
    """
    tiles = [("image", image), *((name, depth_tile(one, image)) for name, one in depths.items())]
    if truth is not None:
        tiles.append(("truth", truth_tile(truth, image)))
    rows = [
        grid([[tile for _, tile in tiles[at : at + 2]]], [name for name, _ in tiles[at : at + 2]], width=width)
        for at in range(0, len(tiles), 2)
    ]
    return _with_bar(below(rows, 0))


def comparison(
    images: Sequence[Image],
    depths: Mapping[str, Sequence[Depth | None]],
    names: Sequence[str],
    truths: Sequence[Depth | None] | None = None,
    width: int = 320,
) -> Image:
    """Draw Figures 6 and 10: a row a frame, its image, each method's depth and the truth, one bar for all.

    Args:
        images: [H, W, 3] of each frame.
        depths: by method, metres [h, w] a frame; None where it has none.
        names: of the frames.
        truths: of each frame, if they are to be shown.
        width: of a tile in pixels.
    """
    cells: list[list[Image | None]] = []
    for at, image in enumerate(images):
        tiles: list[Image | None] = [image]
        tiles += [None if one is None else depth_tile(one, image) for one in (each[at] for each in depths.values())]
        if truths is not None:
            true = truths[at]
            tiles.append(None if true is None else truth_tile(true, image))
        cells.append(tiles)
    return _with_bar(grid(cells, ["image", *depths, *([] if truths is None else ["truth"])], names, width))


def depth_tile(depth: Depth, image: Image) -> Image:
    """Return metres as colours at the size of the image, nearest neighbour."""
    return depth_picture(_like(np.asarray(depth, np.float32), image), NEAREST, FARTHEST)


def truth_tile(truth: Depth, image: Image) -> Image:
    """Return true depth as colours; where less than half is known, as dots on the darkened image."""
    values = np.asarray(truth, np.float32)
    known = np.isfinite(values) & (values > 0)
    if known.mean() >= _SPARSE:
        return depth_tile(np.where(known, values, np.nan), image)
    if values.shape == image.shape[:2]:
        return sparse_depth_picture(np.where(known, values, np.nan), image)
    # Of another size than the image: each point keeps its own pixel, the nearest last.
    rows, columns = np.nonzero(known)
    order = np.argsort(-values[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    small = np.full(image.shape[:2], np.nan, np.float32)
    down, across = image.shape[0] / values.shape[0], image.shape[1] / values.shape[1]
    small[(rows * down).astype(int), (columns * across).astype(int)] = values[rows, columns]
    return sparse_depth_picture(small, image)


class Distributions:
    """Histograms of depth by name over as many frames as are added; what is held does not grow with them."""

    def __init__(self, farthest: float = FARTHEST, bins: int = BINS) -> None:
        self.farthest, self.bins, self.frames = farthest, bins, 0
        self.counts: dict[str, NDArray[np.int64]] = {}

    def add(self, depths: Mapping[str, Depth], truth: Depth) -> None:
        """Take in a frame: every map at pixels where its truth [h, w] is known, so that all speak of the same ones.

        A map of another size is read by nearest neighbour. Of a frame at most `SAMPLED` pixels count, evenly spaced.
        """
        known = np.flatnonzero((truth > 0) & (truth <= self.farthest))
        known = known[:: max(1, -(-len(known) // SAMPLED))]
        rows, columns = np.divmod(known, truth.shape[1])
        self.frames += 1
        self._count("truth", truth[rows, columns])
        for name, depth in depths.items():
            down, across = depth.shape[0] / truth.shape[0], depth.shape[1] / truth.shape[1]
            self._count(name, depth[(rows * down).astype(np.intp), (columns * across).astype(np.intp)])

    def content(self) -> bytes:
        """Return the counts as an .npz file."""
        file = io.BytesIO()
        arrays = {f"count/{name}": one for name, one in self.counts.items()}
        np.savez_compressed(file, allow_pickle=False, frames=self.frames, farthest=self.farthest, **arrays)
        return file.getvalue()

    @classmethod
    def read(cls, path: Path) -> Distributions:
        """Return what a file holds.

        Raises:
            DataError: it is damaged.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
                made = cls(float(held["farthest"]))
                made.frames = int(held["frames"])
                made.counts = {name[6:]: held[name] for name in held.files if name.startswith("count/")}
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            raise DataError("the depth distributions are damaged", where=path, fix="evaluate again") from None
        return made

    def _count(self, name: str, values: Depth) -> None:
        finite = np.asarray(values[np.isfinite(values)], np.float64)
        part = np.clip(finite * (self.bins / self.farthest), 0, self.bins - 1).astype(np.int64)
        found = np.bincount(part, minlength=self.bins)
        self.counts[name] = self.counts.get(name, np.zeros(self.bins, np.int64)) + found


def distributions(
    counts: Mapping[str, NDArray[Any]], farthest: float = FARTHEST, size: tuple[int, int] = (230, 420)
) -> Image:
    """Draw Figure 5: the share of pixels at each depth, the truth filled.

    Args:
        counts: by name, [n] over n equal parts of 0 to `farthest` metres.
        farthest: metres; the last part holds what is farther, too.
        size: height and width of the plot in pixels.

    Raises:
        UsageError: nothing was counted.
    """
    order = [name for name in COLOURS if name in counts] + [name for name in counts if name not in COLOURS]
    order = [name for name in order if counts[name].sum()]
    if not order:
        raise UsageError("there is no depth to draw the distribution of")
    spare = iter(_OTHERS * len(order))
    series = [(name, 100.0 * counts[name] / counts[name].sum(), COLOURS.get(name) or next(spare)) for name in order]
    part = farthest / len(counts[order[0]])
    return curves(series, Axis(0.0, farthest, 10.0, "depth (m)"), f"pixels per {part:g} m (%)", size)


def _like(depth: Depth, image: Image) -> Depth:
    if depth.shape == image.shape[:2]:
        return depth
    return np.asarray(cv2.resize(depth, image.shape[1::-1], interpolation=cv2.INTER_NEAREST))


def _with_bar(picture: Image) -> Image:
    bar = depth_bar(int(np.clip(len(picture) - 28, 60, 320)))
    return beside([picture, below([np.full((20, bar.shape[1], 3), PAPER, np.uint8), bar], 0)], 0)
