"""How an image goes into Grounding DINO and into SAM, each as its published code does it.

Grounding DINO: shortest side 800, longest at most 1333, antialiased bilinear, ImageNet normalisation.
SAM: longest side 1024, antialiased bilinear, the same normalisation, zeros below and right of the image.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

PREPROCESSING = (
    "official-2: pillow bilinear; detector short/long side, ImageNet, own phrases; segmenter long side, padded"
)
"""Named in every record; changes whenever a number that comes out could."""

UPSCALING = 4
"""SAM's masks come at a quarter of its input."""

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


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


def detector_input(
    images: NDArray[np.uint8], shortest: int = 800, longest: int = 1333, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return the detector's input float32 [B, 3, h, w] on `device` for RGB images uint8 [B, H, W, 3]."""
    return _normalised(images, detector_size(images.shape[1], images.shape[2], shortest, longest), device)


def segmenter_input(
    images: NDArray[np.uint8],
    side: int = 1024,
    *,
    encoding: Literal["square", "native"] = "square",
    patch: int = 16,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return SAM's input float32 on `device` for RGB images uint8 [B, H, W, 3], zeros right of and below the image.

    [B, 3, side, side]; with `native` encoding the sides are cut to the whole patches of `patch` pixels that the image
    touches: 192x640 gives 320x1024.
    """
    height, width = segmenter_size(images.shape[1], images.shape[2], side)
    rows, columns = (-(-height // patch) * patch, -(-width // patch) * patch) if encoding == "native" else (side, side)
    batch = torch.zeros(len(images), 3, rows, columns, device=device)
    batch[:, :, :height, :width] = _normalised(images, (height, width), device)
    return batch


def masks_to_image(
    logits: torch.Tensor, height: int, width: int, side: int = 1024, scale: int = UPSCALING
) -> torch.Tensor:
    """Return SAM's mask logits [K, h, w], at a `scale`-th of its input, as boolean masks [K, height, width].

    What lies outside the image is cut off before the logits are scaled up, not after: with whole-numbered scales the
    pixels that stay have the same neighbours either way.
    """
    inside = segmenter_size(height, width, side)
    # One row and column more than the image touches, the last neighbours of its bilinear interpolation.
    rows, columns = (min(-(-length // scale) + 1, most) for length, most in zip(inside, logits.shape[1:], strict=True))
    cut = logits[None, :, :rows, :columns].float()
    enlarged = torch.nn.functional.interpolate(cut, scale_factor=scale, mode="bilinear", align_corners=False)
    resized = torch.nn.functional.interpolate(
        enlarged[..., : inside[0], : inside[1]], (height, width), mode="bilinear", align_corners=False
    )
    return resized[0] > 0


def masks_to_image_reference(logits: torch.Tensor, height: int, width: int, side: int = 1024) -> torch.Tensor:
    """Do what `masks_to_image` does for a square encoding, as published: enlarge the square, cut, resize."""
    inside = segmenter_size(height, width, side)
    square = torch.nn.functional.interpolate(logits[None].float(), (side, side), mode="bilinear", align_corners=False)
    cut = square[..., : inside[0], : inside[1]]
    resized = torch.nn.functional.interpolate(cut, (height, width), mode="bilinear", align_corners=False)
    return resized[0] > 0


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="vipocc-resize")


def _normalised(images: NDArray[np.uint8], size: tuple[int, int], device: torch.device | str) -> torch.Tensor:
    """Resize on the CPU, where pillow's antialiasing is, and send bytes, not floats, to where they are normalised."""
    resized = np.empty((len(images), *size, 3), np.uint8)

    def fill(index: int) -> None:
        picture = Image.fromarray(images[index]).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        resized[index] = np.asarray(picture)

    # pillow lets go of the interpreter while it resizes: on a GPU, this is what the network would wait for.
    if len(images) > 1:
        list(_threads().map(fill, range(len(images))))
    else:
        fill(0)
    pixels = torch.from_numpy(resized).to(device).permute(0, 3, 1, 2).float()
    return (pixels / 255 - _MEAN.to(device)) / _STD.to(device)
