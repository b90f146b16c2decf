"""Any camera's picture as the training camera would have taken it: same focal length, size and principal point.

The network knows how large things look through one camera only. A pinhole picture becomes another one's by scaling and
shifting, exactly; nothing is turned. Where the picture is smaller than the training view the last pixels are repeated,
and `seen` says which pixels were shown at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.images import resize
from vipocc.errors import DataError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import Convention

LEAST_SEEN = 0.1
"""Share of the training view that a picture must fill; below, the network would look at padding."""
LARGEST_SCALE = 4.0
"""Enlargement beyond which there is nothing in the pixels to be seen."""
_LEAST_OVERLAP = 1e-9


@dataclass(frozen=True)
class Axis:
    """How pixels of one axis of the picture become those of the view."""

    source: int
    """Pixels of the picture."""
    target: int
    """Pixels of the view."""
    scale: float
    """Pixels of the view per pixel of the picture."""
    shift: float
    """Where the picture's edge lies in the view: edge coordinates t = scale s + shift, the first pixel 0 to 1."""

    @property
    def whole(self) -> bool:
        """Whether the view is just the whole picture resized."""
        return abs(self.shift) < 1e-6 * self.target and abs(self.scale * self.source - self.target) < 1e-6 * self.target

    @property
    def covered(self) -> NDArray[np.bool_]:
        """bool [target]: the centre of the view's pixel lies in the picture."""
        centre = (np.arange(self.target) + 0.5 - self.shift) / self.scale
        return np.asarray((centre >= 0.0) & (centre <= self.source))

    @property
    def window(self) -> tuple[float, float]:
        """First and last edge, in the picture's pixels, of what the view shows; beyond 0 and `source` is padding."""
        return -self.shift / self.scale, (self.target - self.shift) / self.scale

    def cropped(self) -> tuple[slice, Axis]:
        """Return the pixels of the picture that the view needs, and the axis of a picture of those alone."""
        first, last = self.window
        start = min(max(0, math.floor(first) - 1), self.source - 1)
        stop = max(start + 1, min(self.source, math.ceil(last) + 1))
        return slice(start, stop), Axis(stop - start, self.target, self.scale, self.shift + self.scale * start)

    def resample(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return values [source, ...] at the view's pixels [target, ...]: averages where pixels shrink, else linear.

        Sums of whole pixels come from running sums, so that the work does not grow with how much they shrink.
        """
        position = (np.arange(self.target) + 0.5 - self.shift) / self.scale
        rest = (1,) * (values.ndim - 1)
        if self.scale >= 1.0:
            centre = np.clip(position - 0.5, 0.0, self.source - 1)
            left = np.minimum(np.floor(centre).astype(np.intp), max(0, self.source - 2))
            share = (centre - left).reshape(-1, *rest)
            right = np.minimum(left + 1, self.source - 1)
            return np.asarray(values[left] * (1.0 - share) + values[right] * share, np.float64)
        edges = np.clip((np.arange(self.target + 1) - self.shift) / self.scale, 0.0, self.source)
        whole = np.floor(edges).astype(np.intp)
        # Of 8-bit pixels the running sum is exact, and half the size of floating-point numbers.
        running = np.cumsum(values, axis=0, dtype=np.uint32 if values.dtype == np.uint8 else np.float64)
        before = np.where((whole > 0).reshape(-1, *rest), running[np.maximum(whole - 1, 0)], 0).astype(np.float64)
        before += (edges - whole).reshape(-1, *rest) * values[np.minimum(whole, self.source - 1)]
        length = np.diff(edges)
        nowhere = length <= _LEAST_OVERLAP
        averages = np.diff(before, axis=0) / np.where(nowhere, 1.0, length).reshape(-1, *rest)
        nearest = np.clip(position, 0.0, self.source - 0.5).astype(np.intp)
        averages[nowhere] = values[nearest[nowhere]]
        return np.asarray(averages, np.float64)

    def resample_reference(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Plain twin of `resample`: each pixel of the view as a weighted sum of all pixels of the picture."""
        position = (np.arange(self.target) + 0.5 - self.shift) / self.scale
        pixel = np.arange(self.source)[None]
        if self.scale >= 1.0:
            centre = np.clip(position - 0.5, 0.0, self.source - 1)
            weights = np.clip(1.0 - np.abs(centre[:, None] - pixel), 0.0, 1.0)
        else:
            edges = np.clip((np.arange(self.target + 1) - self.shift) / self.scale, 0.0, self.source)
            weights = np.clip(np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel), 0.0, None)
            nowhere = weights.sum(1) <= _LEAST_OVERLAP
            weights[nowhere] = pixel == np.clip(position, 0.0, self.source - 0.5).astype(np.intp)[nowhere, None]
            weights /= weights.sum(1, keepdims=True)
        return np.asarray(np.tensordot(weights, values.astype(np.float64), axes=1), np.float64)


@dataclass(frozen=True)
class Framing:
    """The way from a camera's pictures to those of the training camera."""

    camera: Pinhole
    """Of the picture."""
    training: Pinhole
    """Of the view."""
    rows: Axis
    columns: Axis

    @property
    def seen(self) -> NDArray[np.bool_]:
        """bool [H, W]: which pixels of the view the picture shows; the others are padding."""
        return np.asarray(self.rows.covered[:, None] & self.columns.covered[None])

    def apply(self, image: NDArray[np.uint8], how: str = "area") -> NDArray[np.uint8]:
        """Return uint8 [H, W, 3], the picture [h, w, 3] in the training camera's view.

        Where that is the whole picture resized, it is resized as in preparation, by the filter `how`, else by area.
        """
        if image.shape[:2] != self.camera.size:
            raise DataError(
                f"the picture is {image.shape[1]}x{image.shape[0]}, "
                f"its camera {self.camera.width}x{self.camera.height}",
                fix="give the camera of this picture",
            )
        if self.rows.whole and self.columns.whole:
            return np.asarray(resize(image, self.training.size, how))
        (rows, down), (columns, across) = self.rows.cropped(), self.columns.cropped()
        lower = down.resample(image[rows, columns]).transpose(1, 0, 2)
        view = across.resample(np.ascontiguousarray(lower)).transpose(1, 0, 2)
        return np.ascontiguousarray(np.clip(np.rint(view), 0, 255).astype(np.uint8))

    def to_picture(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return values [H, W] of the view at the pixels of the picture [h, w], NaN where the view does not show them.

        Nearest pixel: depth of two surfaces is never mixed into one that is on neither.
        """
        rows, row_inside = _nearest(self.rows)
        columns, column_inside = _nearest(self.columns)
        found = np.asarray(values, np.float32)[rows[:, None], columns[None]]
        return np.where(row_inside[:, None] & column_inside[None], found, np.float32(np.nan))

    def describe(self) -> dict[str, Any]:
        """Return what was scaled, cut off and filled up, as JSON values."""
        (left, right), (top, bottom) = self.columns.window, self.rows.window
        width, height = self.columns.source, self.rows.source
        return {
            "scale_xy": [self.columns.scale, self.rows.scale],
            "window_of_picture_xyxy": [left, top, right, bottom],
            "cut_off_pixels_of_picture": {
                "left": max(0.0, left), "top": max(0.0, top),
                "right": max(0.0, width - right), "bottom": max(0.0, height - bottom),
            },
            "filled_up_pixels_of_view": {
                "left": max(0.0, self.columns.shift),
                "top": max(0.0, self.rows.shift),
                "right": max(0.0, self.columns.target - self.columns.scale * width - self.columns.shift),
                "bottom": max(0.0, self.rows.target - self.rows.scale * height - self.rows.shift),
            },
            "share_of_view_seen": float(self.seen.mean()),
        }  # fmt: skip

    def sentence(self) -> str:
        """Return the same in words, empty where the whole picture is just resized."""
        if self.rows.whole and self.columns.whole:
            return ""
        told = self.describe()
        cut = ", ".join(
            f"{value:.0f} {side}" for side, value in told["cut_off_pixels_of_picture"].items() if value >= 0.5
        )
        parts = [f"cut off {cut} (pixels of the picture)"] if cut else []
        if told["share_of_view_seen"] < 1.0:
            parts.append(f"fills {100 * told['share_of_view_seen']:.0f} % of the training camera's view")
        return "; ".join(parts)


def frame(camera: Pinhole, training: Pinhole, convention: Convention = "centre") -> Framing:
    """Return the way from a camera's pictures to the training camera's.

    Args:
        camera: of the picture, in its pixels, (0, 0) the centre of the top-left one.
        training: of the prepared images, its intrinsics by `convention`.
        convention: `data.convention`; by `official` a principal point counts from the picture's edge.

    Raises:
        DataError: the pictures show too little of that view, or hold too few pixels for it.
    """
    half = 0.5 if convention == "centre" else 0.0

    def axis(source: int, target: int, f: float, c: float, wanted_f: float, wanted_c: float) -> Axis:
        scale = wanted_f / f
        return Axis(source, target, scale, wanted_c + half - scale * (c + half))

    columns = axis(camera.width, training.width, camera.fx, camera.cx, training.fx, training.cx)
    rows = axis(camera.height, training.height, camera.fy, camera.cy, training.fy, training.cy)
    framing = Framing(camera, training, rows, columns)
    share = float(framing.seen.mean())
    if share < LEAST_SEEN:
        raise DataError(
            f"the picture ({camera.width}x{camera.height}, focal length {camera.fx:.4g}) fills only "
            f"{100 * share:.1f} % of the training camera's view",
            fix="check the intrinsics; a lens as long as this cannot be used with this checkpoint",
        )
    if max(columns.scale, rows.scale) > LARGEST_SCALE:
        raise DataError(
            f"the picture ({camera.width}x{camera.height}, focal length {camera.fx:.4g}) is too small: it would be "
            f"enlarged {max(columns.scale, rows.scale):.1f} times",
            fix="give a picture of more pixels, or correct the intrinsics",
        )
    return framing


def undistorted(image: NDArray[np.uint8], camera: Pinhole, distortion: tuple[float, ...]) -> NDArray[np.uint8]:
    """Return the picture without lens distortion, intrinsics unchanged, black where the lens did not see."""
    if not any(distortion):
        return image
    return np.asarray(cv2.undistort(image, camera.matrix, np.asarray(distortion, np.float64)))


def _nearest(axis: Axis) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return for each pixel of the picture the nearest one of the view, and whether the view shows it."""
    at = np.floor((np.arange(axis.source) + 0.5) * axis.scale + axis.shift).astype(np.intp)
    inside = (at >= 0) & (at < axis.target)
    return np.clip(at, 0, axis.target - 1), inside
