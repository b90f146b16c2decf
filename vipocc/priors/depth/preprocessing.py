"""How an image goes into Depth Anything V2 and its depth comes back, as the published code does it.

The hub's image processor would send a 192x640 image to the network at 154x518 (it bounds the *longer* misfit); the
published code bounds the shorter side from below and sends it at 518x1722 (published_system 2.1), which is what the
metric weights' reported depth was made with.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

OFFICIAL = (
    "official-2: cv2 cubic, short side at least N, multiples of the patch, ImageNet; positions offset .1; aligned"
)
"""Named in every record; changes whenever a number that comes out could."""

NATIVE = "native-1: as official-2, but at the image's own size to the nearest multiples of the patch"
"""The faster choice."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def network_size(height: int, width: int, short_side: int = 518, multiple: int = 14) -> tuple[int, int]:
    """Return the (height, width) in pixels that an image of `height` x `width` is resized to.

    The aspect is kept up to rounding to the nearest `multiple`, no side falls below `short_side`: 192x640 gives
    518x1722, 376x1408 gives 518x1946.
    """
    scale = max(short_side / height, short_side / width)

    def fit(side: int) -> int:
        rounded = round(scale * side / multiple) * multiple
        return rounded if rounded >= short_side else math.ceil(scale * side / multiple - 1e-9) * multiple

    return fit(height), fit(width)


def native_size(height: int, width: int, multiple: int = 14) -> tuple[int, int]:
    """Return the image's own (height, width), each to the nearest multiple, one at least: 192x640 gives 196x644."""
    return max(1, round(height / multiple)) * multiple, max(1, round(width / multiple)) * multiple


def preprocess_reference(images: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """Return the network's input, float32 [B, 3, h, w] for `size` (h, w), of RGB images uint8 [B, H, W, 3].

    Cubic interpolation of the values in [0, 1] (its overshoot is kept), then ImageNet normalisation. Both in float64:
    cv2's cubic weights in float32 are off by up to 5e-5.
    """
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    batch = np.empty((len(images), 3, *size), np.float32)
    for index, image in enumerate(images):
        resized = cv2.resize(image / 255.0, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        batch[index] = ((resized - mean) / std).transpose(2, 0, 1)
    return torch.from_numpy(batch)


class Preprocessor:
    """`preprocess_reference` as two matrix products on the device, for images of one size.

    Resizing is linear and separable, so cv2 itself tells the two matrices: it resizes the identity. In float64 the
    result is that of cv2 to the last bit or nearly, and only uint8 images travel to the device.
    """

    def __init__(self, image: tuple[int, int], size: tuple[int, int], device: torch.device) -> None:
        self.rows, self.columns = (_cubic_matrix(a, b).to(device) for a, b in zip(image, size, strict=True))
        self.mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64, device=device)[:, None, None]
        self.std = torch.tensor(IMAGENET_STD, dtype=torch.float64, device=device)[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [B, 3, h, w] for RGB images uint8 [B, H, W, 3] on the device."""
        values = images.permute(0, 3, 1, 2).double() / 255
        resized = self.rows @ (values @ self.columns.T)
        return resized.sub_(self.mean).div_(self.std).float()


def _cubic_matrix(length: int, size: int) -> torch.Tensor:
    """Return the float64 matrix [size, length] by which cv2 resizes a line."""
    resized = cv2.resize(np.eye(length), (length, size), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(np.asarray(resized, np.float64))


def postprocess(depth: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return depth [B, h, w] of the network resized to float32 [B, height, width], bilinear with corners aligned."""
    resized = torch.nn.functional.interpolate(
        depth[:, None].float(), (height, width), mode="bilinear", align_corners=True
    )
    return resized[:, 0]
