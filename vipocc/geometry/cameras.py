"""Camera models in pixels, NumPy float64: the pinhole, and the unified fisheye of KITTI-360 (Mei and Rives, ICRA 2007).

Pixel (0, 0) is the centre of the top-left pixel. Rays need not be unit vectors; directions that come out are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vipocc.errors import UsageError
from vipocc.geometry.ndc import Convention, check_convention, intrinsics_to_ndc, pixel_to_ndc, resize_intrinsics
from vipocc.geometry.shapes import Float64, Size, expect_rank, expect_shape, expect_size

_UNDISTORT_STEPS = 30
_UNDISTORT_TOLERANCE = 1e-12


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not np.isfinite(value) or value <= 0:
            raise UsageError(f"camera parameter {name} must be a positive number, not {value}")


@dataclass(frozen=True)
class Pinhole:
    """A rectified perspective camera; intrinsics and size in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        _positive(fx=self.fx, fy=self.fy, width=self.width, height=self.height)

    @classmethod
    def from_matrix(cls, matrix: ArrayLike, size: Size) -> Pinhole:
        """A camera from intrinsics [3, 3] without skew and an image size (height, width)."""
        k = np.asarray(matrix, dtype=np.float64)
        expect_rank("matrix", k, 3, 3)
        if not np.allclose([k[0, 1], k[1, 0], k[2, 0], k[2, 1], k[2, 2] - 1.0], 0.0, atol=1e-9):
            raise UsageError(f"intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], not {k.tolist()}")
        return cls(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), size[1], size[0])

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.height, self.width

    @property
    def matrix(self) -> Float64:
        """Intrinsics [3, 3] in pixels."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def resized(self, size: Size, convention: Convention = "centre") -> Pinhole:
        """The camera of the same image resized to `size` (height, width)."""
        return Pinhole.from_matrix(resize_intrinsics(self.matrix, self.size, size, convention), size)

    def project(self, rays: ArrayLike) -> Float64:
        """Camera-frame points [..., 3] to pixels [..., 2]; NaN where a point is not in front of the camera."""
        points = np.asarray(rays, dtype=np.float64)
        expect_shape("rays", points, 3)
        z = np.where(points[..., 2] > 0.0, points[..., 2], np.nan)
        return np.stack([self.fx * points[..., 0] / z + self.cx, self.fy * points[..., 1] / z + self.cy], axis=-1)

    def unproject(self, pixels: ArrayLike) -> Float64:
        """Unit ray [..., 3] through each pixel [..., 2]."""
        px = np.asarray(pixels, dtype=np.float64)
        expect_shape("pixels", px, 2)
        x, y = (px[..., 0] - self.cx) / self.fx, (px[..., 1] - self.cy) / self.fy
        rays = np.stack([x, y, np.ones_like(x)], axis=-1)
        return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


@dataclass(frozen=True)
class Mei:
    """Unified fisheye camera: a unit sphere, seen from a point xi behind its centre, then distorted.

    The parameters are those of KITTI-360's image_02.yaml and image_03.yaml: mirror `xi`, radial `k1`, `k2`, tangential
    `p1`, `p2`, generalised focal lengths and principal point in pixels.
    """

    xi: float
    k1: float
    k2: float
    p1: float
    p2: float
    gamma1: float
    gamma2: float
    u0: float
    v0: float
    width: int
    height: int

    def __post_init__(self) -> None:
        _positive(gamma1=self.gamma1, gamma2=self.gamma2, width=self.width, height=self.height)
        if not np.isfinite(self.xi) or self.xi < 0:
            raise UsageError(f"camera parameter xi must not be negative, not {self.xi}")

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.height, self.width

    @property
    def matrix(self) -> Float64:
        """The projection after distortion, [3, 3] in pixels."""
        return np.array([[self.gamma1, 0.0, self.u0], [0.0, self.gamma2, self.v0], [0.0, 0.0, 1.0]])

    def resized(self, size: Size, convention: Convention = "centre") -> Mei:
        """The camera of the same image resized to `size` (height, width)."""
        k = resize_intrinsics(self.matrix, self.size, size, convention)
        return replace(
            self,
            gamma1=float(k[0, 0]),
            gamma2=float(k[1, 1]),
            u0=float(k[0, 2]),
            v0=float(k[1, 2]),
            width=size[1],
            height=size[0],
        )

    def _distort(self, m: Float64) -> Float64:
        x, y = m[..., 0], m[..., 1]
        rho2 = x * x + y * y
        radial = 1.0 + self.k1 * rho2 + self.k2 * rho2 * rho2
        return np.stack(
            [
                x * radial + 2.0 * self.p1 * x * y + self.p2 * (rho2 + 2.0 * x * x),
                y * radial + self.p1 * (rho2 + 2.0 * y * y) + 2.0 * self.p2 * x * y,
            ],
            axis=-1,
        )

    def _distortion_jacobian(self, m: Float64) -> tuple[Float64, Float64, Float64]:
        # The Jacobian is symmetric: both off-diagonal terms are x*(dr/dy) + 2 p1 x + 2 p2 y.
        x, y = m[..., 0], m[..., 1]
        rho2 = x * x + y * y
        radial = 1.0 + self.k1 * rho2 + self.k2 * rho2 * rho2
        slope = 2.0 * self.k1 + 4.0 * self.k2 * rho2
        xx = radial + slope * x * x + 2.0 * self.p1 * y + 6.0 * self.p2 * x
        xy = slope * x * y + 2.0 * self.p1 * x + 2.0 * self.p2 * y
        yy = radial + slope * y * y + 6.0 * self.p1 * y + 2.0 * self.p2 * x
        return xx, xy, yy

    def _undistort(self, distorted: Float64) -> Float64:
        """Newton's method from the distorted point; NaN where it does not settle (no such point on the sphere)."""
        m = distorted.copy()
        with np.errstate(all="ignore"):
            for _ in range(_UNDISTORT_STEPS):
                error = self._distort(m) - distorted
                xx, xy, yy = self._distortion_jacobian(m)
                determinant = xx * yy - xy * xy
                step = np.stack(
                    [
                        (yy * error[..., 0] - xy * error[..., 1]) / determinant,
                        (xx * error[..., 1] - xy * error[..., 0]) / determinant,
                    ],
                    axis=-1,
                )
                m = m - step
                if np.nanmax(np.abs(step), initial=0.0) < _UNDISTORT_TOLERANCE:
                    break
            settled = np.abs(self._distort(m) - distorted).max(axis=-1, keepdims=True) < 1e-9
        return np.where(settled, m, np.nan)

    def project(self, rays: ArrayLike, tangential: bool = True) -> Float64:
        """Camera-frame points or rays [..., 3] to pixels [..., 2].

        NaN for rays past the model's horizon, where two directions would share a pixel: z <= -1/xi for xi > 1,
        z <= -xi otherwise (unit rays). `tangential=False` leaves p1 and p2 out, as the released system does.
        """
        vectors = np.asarray(rays, dtype=np.float64)
        expect_shape("rays", vectors, 3)
        camera = self if tangential else replace(self, p1=0.0, p2=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
            horizon = -1.0 / self.xi if self.xi > 1.0 else -self.xi
            m = unit[..., :2] / np.where(unit[..., 2] > horizon, unit[..., 2] + self.xi, np.nan)[..., None]
        distorted = camera._distort(m)
        return np.asarray(distorted * [self.gamma1, self.gamma2] + [self.u0, self.v0])

    def unproject(self, pixels: ArrayLike) -> Float64:
        """Unit ray [..., 3] of each pixel [..., 2]; NaN where no ray of the model meets the pixel."""
        px = np.asarray(pixels, dtype=np.float64)
        expect_shape("pixels", px, 2)
        m = self._undistort((px - [self.u0, self.v0]) / [self.gamma1, self.gamma2])
        rho2 = (m * m).sum(axis=-1)
        with np.errstate(invalid="ignore"):
            scale = (self.xi + np.sqrt(1.0 + (1.0 - self.xi**2) * rho2)) / (1.0 + rho2)
        return np.stack([scale * m[..., 0], scale * m[..., 1], scale - self.xi], axis=-1)


def fisheye_table(
    target_intrinsics: ArrayLike,
    size: Size,
    source: Mei,
    source_from_target: ArrayLike,
    convention: Convention,
) -> NDArray[np.float32]:
    """Where each pixel of a virtual pinhole camera lies in a fisheye image: float32 [H, W, 2] (x, y) for cv2.remap.

    target_intrinsics [3, 3] in pixels of the virtual image of `size` (height, width); source_from_target [3, 3] rotates
    its rays into the fisheye's frame (`poses.virtual_rotation`). "centre" uses the full model; "official" repeats the
    released table (published_system.md 1.3): corner-aligned rays, no tangential terms, align_corners=True lookups.
    Directions the fisheye cannot see point outside its image.
    """
    check_convention(convention)
    expect_size("size", size)
    k = np.asarray(target_intrinsics, dtype=np.float64)
    rotation = np.asarray(source_from_target, dtype=np.float64)
    expect_rank("target_intrinsics", k, 3, 3)
    expect_rank("source_from_target", rotation, 3, 3)
    height, width = size
    if convention == "official":
        table = fisheye_table_ndc_reference(
            intrinsics_to_ndc(k, size, "official"),
            size,
            *(source.xi, source.k1, source.k2),
            *(2.0 * source.gamma1 / source.width, 2.0 * source.gamma2 / source.height),
            *(2.0 * source.u0 / source.width - 1.0, 2.0 * source.v0 / source.height - 1.0),
            source_from_target=rotation,
        )
        pixels = (table + 1.0) / 2.0 * [source.width - 1, source.height - 1]
    else:
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        rays = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(k).T @ rotation.T
        pixels = source.project(rays)
    far_outside = np.array([-2.0 * source.width, -2.0 * source.height])
    return np.where(np.isfinite(pixels), pixels, far_outside).astype(np.float32)


def fisheye_table_ndc_reference(
    intrinsics_ndc: ArrayLike,
    size: Size,
    xi: float,
    k1: float,
    k2: float,
    gamma1: float,
    gamma2: float,
    u0: float,
    v0: float,
    source_from_target: ArrayLike,
) -> Float64:
    """The released system's fisheye lookup in normalised coordinates, [H, W, 2] (golden vector G1).

    All parameters are normalised: intrinsics_ndc [3, 3] by the virtual image, gamma1 and u0 by the fisheye's width,
    gamma2 and v0 by its height. The six steps of published_system.md 1.3.
    """
    expect_size("size", size)
    height, width = size
    rotation = np.asarray(source_from_target, dtype=np.float64)
    k = np.asarray(intrinsics_ndc, dtype=np.float64)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    xy: NDArray[Any] = pixel_to_ndc(np.stack([columns, rows], axis=-1), size, "official")
    rays = np.concatenate([xy, np.ones((height, width, 1))], axis=-1) @ np.linalg.inv(k).T @ rotation.T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    m = rays[..., :2] / (rays[..., 2:] + xi)
    rho2 = (m * m).sum(axis=-1, keepdims=True)
    m = m * (1.0 + k1 * rho2 + k2 * rho2 * rho2)
    return np.asarray(m * [gamma1, gamma2] + [u0, v0])
