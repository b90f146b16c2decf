"""The structural part of the photometric error, as the released code computes it (published_system 5.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_CORNER, _EDGE, _MIDDLE = 0.0947, 0.1183, 0.1478
"""Weights of the 3x3 window; they sum to 0.9998."""
_C1, _C2 = 1e-4, 9e-4


def window_means(values: Tensor) -> Tensor:
    """Weighted mean over the 3x3 neighbours of each pixel, zeros outside: [..., h, w] -> [..., h, w].

    The window of published_system 5.1 in shifted sums: full precision whatever TF32 and autocast say, no constant to
    bring to the device.
    """
    padded = functional.pad(values, (1, 1))
    beside = padded[..., :-2] + padded[..., 2:]
    outer = functional.pad(_EDGE * values + _CORNER * beside, (0, 0, 1, 1))
    return _MIDDLE * values + _EDGE * beside + outer[..., :-2, :] + outer[..., 2:, :]


def window_means_reference(values: Tensor) -> Tensor:
    """Plain twin of `window_means`: one convolution, in float32 on the CPU with the released code's very rounding."""
    rows = (_CORNER, _EDGE, _CORNER), (_EDGE, _MIDDLE, _EDGE), (_CORNER, _EDGE, _CORNER)
    single = values.reshape(-1, 1, *values.shape[-2:])
    return functional.conv2d(single, values.new_tensor(rows)[None, None], padding=1).reshape(values.shape)


def ssim_error(a: Tensor, b: Tensor) -> Tensor:
    """Structural dissimilarity clamp(1 - SSIM, 0, 1)/2 per pixel and channel: [N, C, h, w] twice -> the same shape.

    3x3 window of published_system 5.1 (sum 0.9998) over a border of zeros; variances are not clamped.
    """
    stacked = torch.stack([a, b, a * a, b * b, a * b])
    # On CUDA a convolution may round to TF32, of which the difference of moments below leaves nothing.
    moments = window_means_reference(stacked) if a.device.type == "cpu" else window_means(stacked)
    mean_a, mean_b, square_a, square_b, product = moments
    variance_a, variance_b = square_a - mean_a * mean_a, square_b - mean_b * mean_b
    covariance = product - mean_a * mean_b
    similarity = ((2.0 * mean_a * mean_b + _C1) * (2.0 * covariance + _C2)) / (
        (mean_a * mean_a + mean_b * mean_b + _C1) * (variance_a + variance_b + _C2)
    )
    error: Tensor = (1.0 - similarity).clamp(0.0, 1.0) / 2.0
    return error
