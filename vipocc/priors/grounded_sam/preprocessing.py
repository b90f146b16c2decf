"""How an image goes into Grounding DINO and into SAM, each as its published code does it.

Grounding DINO: shortest side 800, longest at most 1333, antialiased bilinear, ImageNet normalisation.
SAM: longest side 1024, antialiased bilinear, the same normalisation, zeros below and right of the image.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

PREPROCESSING = "official-1: pillow bilinear; detector shortest/longest side, ImageNet; segmenter longest side, padded"
"""Named in every record; changes whenever a number that comes out could."""

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def detector_size(height: int, width: int, shortest: int = 800, longest: int = 1333) -> tuple[int, int]:
    """Return the (height, width) in pixels of the detector's input: 192x640 gives 400x1333."""
    short, long = min(height, width), max(height, width)
    size = shortest
    if long / short * size > longest:
        size = round(longest * short / long)
    # The longer side is truncated, not rounded, in the published transform.
    return (size, int(size * width / height)) if height <= width else (int(size * height / width), size)


def segmenter_size(height: int, width: int, side: int = 1024) -> tuple[int, int]:
    """Return the (height, width) in pixels that an image fills of SAM's square input: 192x640 gives 307x1024."""
    scale = side / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def detector_input(images: NDArray[np.uint8], shortest: int = 800, longest: int = 1333) -> torch.Tensor:
    """Return the detector's input float32 [B, 3, h, w] for RGB images uint8 [B, H, W, 3]."""
    size = detector_size(images.shape[1], images.shape[2], shortest, longest)
    return _normalised(images, size)


def segmenter_input(images: NDArray[np.uint8], side: int = 1024) -> torch.Tensor:
    """Return SAM's input float32 [B, 3, side, side] for RGB images uint8 [B, H, W, 3]."""
    height, width = segmenter_size(images.shape[1], images.shape[2], side)
    batch = torch.zeros(len(images), 3, side, side)
    batch[:, :, :height, :width] = _normalised(images, (height, width))
    return batch


def masks_to_image(logits: torch.Tensor, height: int, width: int, side: int = 1024) -> torch.Tensor:
    """Return SAM's mask logits [K, h, w] of its padded square as boolean masks [K, height, width] of the image."""
    inside = segmenter_size(height, width, side)
    square = torch.nn.functional.interpolate(logits[None].float(), (side, side), mode="bilinear", align_corners=False)
    cut = square[..., : inside[0], : inside[1]]
    resized = torch.nn.functional.interpolate(cut, (height, width), mode="bilinear", align_corners=False)
    return resized[0] > 0


def _normalised(images: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    batch = np.empty((len(images), 3, *size), np.float32)
    for index, image in enumerate(images):
        resized = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)
        batch[index] = ((resized / 255 - _MEAN) / _STD).transpose(2, 0, 1)
    return torch.from_numpy(batch)
