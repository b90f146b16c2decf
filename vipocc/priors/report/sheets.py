"""What the report shows of one frame: the image and each prior of it, as small JPEG pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.pictures import anchors_picture, density_overlay, depth_picture, jpeg_bytes
from vipocc.priors.anchors import read_instances
from vipocc.priors.snog import SnogConfig, mixture
from vipocc.priors.snog.mixture import density
from vipocc.stores import StoreReader

Image = NDArray[np.uint8]


class Sheets:
    """Draws frames from the stores of one workspace; a store that is absent or lacks a row is left out."""

    def __init__(self, stores: Mapping[str, Path], labels: Sequence[str], snog: SnogConfig, width: int = 480) -> None:
        self._readers = {kind: StoreReader(path) for kind, path in stores.items()}
        self._labels, self._snog, self._width = list(labels), snog, width

    def pictures(self, group: str, row: int) -> list[tuple[bytes, str]]:
        """Return (JPEG, caption) of the image, its depth, its instances, its anchors and their density."""
        image = np.asarray(self._read("frames", group, row, "rgb"))
        shown: list[tuple[Image, str]] = [(image, "image")]
        if self._holds("depth", group, row):
            depth = np.asarray(self._read("depth", group, row, "depth"), np.float32)
            low, high = np.nanquantile(depth, [0.05, 0.95]) if np.isfinite(depth).any() else (np.nan, np.nan)
            shown.append((depth_picture(depth), f"depth, 5 % to 95 %: {low:.1f} to {high:.1f} m"))
        if self._holds("instances", group, row):
            shown += self._instances(image, group, row)
        return [(jpeg(picture, self._width), caption) for picture, caption in shown]

    def _instances(self, image: Image, group: str, row: int) -> list[tuple[Image, str]]:
        reader = self._readers["instances"]
        held = read_instances(reader, group, row)
        labels = np.asarray(self._read("instances", group, row, "label"))[: len(held.areas)]
        names = [self._labels[int(label)] for label in labels]
        counted = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing detected"
        law = mixture(held, image.shape[:2], self._snog)
        shown = [
            (masks_picture(image, held.index, labels), f"instances: {counted}"),
            (density_overlay(image, density(law)), "density that anchors are drawn from (Figure 3)"),
        ]
        if self._holds("anchors", group, row):
            drawn = np.asarray(self._read("anchors", group, row, "anchors"))[0]
            boxes = held.boxes[held.critical]
            scale = max(1, round(self._width * 2 / image.shape[1]))
            picture = anchors_picture(image, drawn, self._snog.patch, boxes=boxes, scale=scale)
            shown.append((picture, f"{len(drawn)} anchors of the first draw, boxes of critical instances"))
        return shown

    def _holds(self, kind: str, group: str, row: int) -> bool:
        reader = self._readers.get(kind)
        if reader is None or not reader.has(group):
            return False
        rows = reader.rows(group)
        return row < len(rows) and bool(rows[row])

    def _read(self, kind: str, group: str, row: int, array: str) -> Any:
        return self._readers[kind].read(group, row, array)


def masks_picture(image: Image, index: NDArray[np.uint8], labels: NDArray[Any]) -> Image:
    """Return an image [H, W, 3] with its instances coloured by class and outlined.

    Args:
        image: RGB.
        index: [H, W], instance number + 1, 0 where there is none.
        labels: [K], class of each instance.
    """
    colours = np.zeros((256, 3), np.uint8)
    for number, label in enumerate(labels):
        hue = np.array([[[int(label) * 47 % 180, 190, 255]]], np.uint8)
        colours[number + 1] = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]
    tinted = np.where((index > 0)[..., None], np.rint(0.5 * image + 0.5 * colours[index]), image).astype(np.uint8)
    edge = np.zeros(index.shape, bool)
    edge[:, 1:] |= index[:, 1:] != index[:, :-1]
    edge[1:] |= index[1:] != index[:-1]
    tinted[edge] = 255
    return tinted


def jpeg(image: Image, width: int) -> bytes:
    """Return an RGB image as JPEG, made smaller to `width` pixels if it is wider."""
    if image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    return jpeg_bytes(np.asarray(image, np.uint8), 84)
