"""Raw images to prepared ones: resizing of rectified images, resampling of fisheyes."""

from __future__ import annotations

import cv2
import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.geometry.cameras import Mei, Pinhole, fisheye_table
from vipocc.geometry.ndc import resize_intrinsics
from vipocc.geometry.poses import virtual_rotation

_MAX_SUPERSAMPLING = 8


def resize(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """Resize uint8 [H, W, 3] to `size` (height, width).

    `area` averages over the pixels that fall into one; `bilinear` looks at four, in float and rounded at the end, as
    the released preprocessing does.
    """
    height, width = size
    if image.shape[:2] == size:
        return image
    if how == "bilinear":
        floats = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(np.clip(np.rint(floats), 0, 255).astype(np.uint8))
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


class Preparation:
    """What turns raw images of one camera into prepared ones; tables are built once.

    Args:
        model: calibration of the raw image.
        stereo: the left stereo camera, whose intrinsics the virtual camera of a fisheye has.
        config: size, filter, convention and the virtual camera's pitch.
    """

    def __init__(self, model: Pinhole | Mei, stereo: Pinhole, config: DataConfig) -> None:
        self.raw_size = (model.height, model.width)
        self.size = config.image_size
        self.how = config.resize
        self._table: np.ndarray | None = None
        if isinstance(model, Mei):
            self._table = self._virtual_table(model, stereo, config)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Prepare uint8 RGB [H, W, 3]; black where a fisheye does not see."""
        if self._table is None:
            return resize(image, self.size, self.how)
        if self.how == "bilinear":
            image = image.astype(np.float32)
        seen = cv2.remap(
            image, self._table, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0)
        )
        if self.how == "bilinear":
            return np.asarray(np.clip(np.rint(seen), 0, 255).astype(np.uint8))
        return resize(np.asarray(seen), self.size, "area")

    def _virtual_table(self, model: Mei, stereo: Pinhole, config: DataConfig) -> np.ndarray:
        raw, pitch = (stereo.height, stereo.width), virtual_rotation(config.fisheye_pitch, 0.0)

        def table(size: tuple[int, int]) -> np.ndarray:
            intrinsics = resize_intrinsics(stereo.matrix, raw, size, config.convention)
            return np.asarray(fisheye_table(intrinsics, size, model, pitch, config.convention))

        plain = table(self.size)
        if self.how == "bilinear":
            return plain
        # Averaging: look up at a multiple of the size, fine enough that steps in the fisheye are about one pixel.
        steps = np.abs(np.diff(plain, axis=1)[:, :, 0])
        inside = (plain[:, 1:] >= 0).all(-1) & (plain[:, :-1] >= 0).all(-1)
        step = float(np.median(steps[inside])) if inside.any() else 1.0
        factor = min(max(1, int(np.ceil(step))), _MAX_SUPERSAMPLING)
        return plain if factor == 1 else table((self.size[0] * factor, self.size[1] * factor))
