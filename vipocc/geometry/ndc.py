"""Normalised image coordinates (NDC): x and y in [-1, 1] over the image, and intrinsics that map into them.

The two pixel conventions differ in `intrinsics_to_ndc`, `pixel_to_ndc` and their inverses, and nowhere else:

- "centre": pixel (0, 0) is the centre of the top-left pixel, the image spans [-0.5, W - 0.5]. A pixel's NDC is the
  place where grid_sample(align_corners=False) returns that pixel, so rays, lookups and intrinsics agree.
- "official": what the released system does (published_system.md 3.7): rays from corner-aligned coordinates,
  intrinsics normalised as if pixel 0 began at 0. A pixel's own ray then lands up to half a pixel beside it.

Every function takes a NumPy array or a torch tensor and returns the same kind and dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from vipocc.errors import UsageError
from vipocc.geometry.shapes import Size, expect_shape, expect_size

if TYPE_CHECKING:
    import torch

    from vipocc.geometry.shapes import FloatArray

Convention: TypeAlias = Literal["centre", "official"]
CONVENTIONS: tuple[Convention, ...] = ("centre", "official")


def check_convention(convention: str) -> None:
    """Raise UsageError unless `convention` is one of the two."""
    if convention not in CONVENTIONS:
        raise UsageError(f"pixel convention must be 'centre' or 'official', not {convention!r}")


def _stack(arrays: list[FloatArray], axis: int) -> FloatArray:
    if isinstance(arrays[0], np.ndarray | np.generic):
        return np.stack(arrays, axis=axis)
    import torch

    return torch.stack(arrays, dim=axis)


def _rescale(matrix: FloatArray, scale: tuple[float, float], shift: tuple[float, float]) -> FloatArray:
    """[[sx, 0, ox], [0, sy, oy], [0, 0, 1]] @ matrix, row by row.

    Not a matmul, which would follow the caller's autocast and TF32 settings and lose digits, and not a tensor built
    from numbers, which on CUDA waits for the device.
    """
    last = matrix[..., 2, :] * 1.0
    first = matrix[..., 0, :] * scale[0] + last * shift[0]
    second = matrix[..., 1, :] * scale[1] + last * shift[1]
    return _stack([first, second, last], -2)


def intrinsics_to_ndc(intrinsics: FloatArray, size: Size, convention: Convention) -> FloatArray:
    """Intrinsics in pixels of an image of `size` (height, width) as normalised ones, [..., 3, 3] -> [..., 3, 3].

    fx' = 2 fx / W; cx' = (2 cx + 1) / W - 1 ("centre") or 2 cx / W - 1 ("official"); likewise y with H.
    """
    check_convention(convention)
    expect_shape("intrinsics", intrinsics, 3, 3)
    expect_size("size", size)
    height, width = size
    half = 0.5 if convention == "centre" else 0.0
    return _rescale(intrinsics, (2.0 / width, 2.0 / height), (2.0 * half / width - 1.0, 2.0 * half / height - 1.0))


def intrinsics_from_ndc(intrinsics_ndc: FloatArray, size: Size, convention: Convention) -> FloatArray:
    """Inverse of `intrinsics_to_ndc`, [..., 3, 3] -> [..., 3, 3] in pixels of an image of `size`."""
    check_convention(convention)
    expect_shape("intrinsics_ndc", intrinsics_ndc, 3, 3)
    expect_size("size", size)
    height, width = size
    half = 0.5 if convention == "centre" else 0.0
    return _rescale(intrinsics_ndc, (width / 2.0, height / 2.0), (width / 2.0 - half, height / 2.0 - half))


def resize_intrinsics(intrinsics: FloatArray, old_size: Size, new_size: Size, convention: Convention) -> FloatArray:
    """Intrinsics in pixels, [..., 3, 3], after the image is resized from `old_size` to `new_size` (height, width).

    "centre": cx -> (cx + 0.5) s - 0.5, what area and OpenCV's bilinear resizing do to the image; "official": cx s.
    """
    check_convention(convention)
    expect_shape("intrinsics", intrinsics, 3, 3)
    expect_size("old_size", old_size)
    expect_size("new_size", new_size)
    scale_y, scale_x = new_size[0] / old_size[0], new_size[1] / old_size[1]
    half = 0.5 if convention == "centre" else 0.0
    return _rescale(intrinsics, (scale_x, scale_y), (half * scale_x - half, half * scale_y - half))


def pixel_to_ndc(pixels: FloatArray, size: Size, convention: Convention) -> FloatArray:
    """Pixel coordinates (x, y) [..., 2] as NDC: (2j + 1)/W - 1 ("centre") or 2j/(W - 1) - 1 ("official")."""
    check_convention(convention)
    expect_shape("pixels", pixels, 2)
    expect_size("size", size)
    height, width = size
    x, y = pixels[..., 0], pixels[..., 1]
    if convention == "centre":
        return _stack([(2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0], -1)
    return _stack([2.0 * x / (width - 1) - 1.0, 2.0 * y / (height - 1) - 1.0], -1)


def ndc_to_pixel(xy: FloatArray, size: Size, convention: Convention) -> FloatArray:
    """Inverse of `pixel_to_ndc`, [..., 2] -> [..., 2]."""
    check_convention(convention)
    expect_shape("xy", xy, 2)
    expect_size("size", size)
    height, width = size
    x, y = xy[..., 0] + 1.0, xy[..., 1] + 1.0
    if convention == "centre":
        return _stack([(x * width - 1.0) / 2.0, (y * height - 1.0) / 2.0], -1)
    return _stack([x * (width - 1) / 2.0, y * (height - 1) / 2.0], -1)


def ndc_grid(
    size: Size,
    convention: Convention,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """NDC (x, y) of every pixel of an image of `size`, [H, W, 2], float32 unless `dtype` says otherwise."""
    import torch

    check_convention(convention)
    expect_size("size", size)
    height, width = size
    dtype = dtype or torch.float32
    x = torch.arange(width, device=device, dtype=dtype)
    y = torch.arange(height, device=device, dtype=dtype)
    if convention == "centre":
        x, y = (2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0
    else:
        x, y = 2.0 * x / (width - 1) - 1.0, 2.0 * y / (height - 1) - 1.0
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def camera_plane(intrinsics_ndc: FloatArray, xy: FloatArray) -> FloatArray:
    """Points at depth 1 that project to `xy`, K^-1 (x, y, 1): [..., 3, 3] and [..., N, 2] -> [..., N, 3].

    The intrinsics are upper triangular with last row (0, 0, 1), so their inverse is written out.
    """
    expect_shape("intrinsics_ndc", intrinsics_ndc, 3, 3)
    expect_shape("xy", xy, None, 2)
    matrix = intrinsics_ndc[..., None, :, :]
    y = (xy[..., 1] - matrix[..., 1, 2]) / matrix[..., 1, 1]
    x = (xy[..., 0] - matrix[..., 0, 2] - matrix[..., 0, 1] * y) / matrix[..., 0, 0]
    return _stack([x, y, x * 0.0 + 1.0], -1)


def ray_directions(intrinsics_ndc: FloatArray, xy: FloatArray) -> FloatArray:
    """Unit direction, in the camera frame, of the ray through each NDC point.

    intrinsics_ndc [..., 3, 3], xy [..., N, 2] -> [..., N, 3] (golden vector G8).
    """
    plane = camera_plane(intrinsics_ndc, xy)
    length = (plane * plane).sum(-1) ** 0.5
    directions: FloatArray = plane / length[..., None]
    return directions


def depth_factor(intrinsics_ndc: FloatArray, xy: FloatArray) -> FloatArray:
    """Depth along the optical axis per metre of distance along the ray: z of `ray_directions`, [..., N]."""
    return ray_directions(intrinsics_ndc, xy)[..., 2]
