"""Depth turned into occupancy: what a depth map alone says of the space behind it (comparison_methods.md 5.3).

A point is occupied if it lies behind the surface that the depth map shows in its direction: anywhere behind it, which
is the row "Monodepth2" of the published tables, or within some metres of it, "Monodepth2 + 4m".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import UsageError
from vipocc.evaluation.predictors.interface import Batch, DepthPredictor, Unit
from vipocc.evaluation.report import Kind
from vipocc.geometry.ndc import Convention

THICKNESS = 4.0
"""Metres behind the surface that count as occupied in the published rows "+ 4m"."""


def depth_to_occupancy(
    depth: Tensor,
    points: Tensor,
    intrinsics_ndc: Tensor,
    thickness: float | None = None,
    *,
    align_corners: bool = True,
) -> Tensor:
    """Return what depth maps say of points: 1 occupied, 0 free, NaN where a map has no depth; float32 [..., N].

    A point is occupied iff D <= z (< D + thickness, if given), D being the depth at the pixel nearest to its
    projection, border pixels standing for what is outside the image. z is compared, not the distance along the ray.

    Args:
        depth: metres along the optical axis [..., H, W], of any size; not positive or NaN where there is none, infinite
            where there is no surface.
        points: metres [N, 3] in the camera's frame; one that is not in front of the camera is free.
        intrinsics_ndc: normalised intrinsics [..., 3, 3] of the images that the depth maps are of.
        thickness: metres of the shell; None for everything behind the surface.
        align_corners: whether -1 and 1 are the centres of the outermost pixels, as published, or their outer edges.
    """
    _expect(depth, points, intrinsics_ndc)
    height, width = depth.shape[-2:]
    x, y, z = _project(points, intrinsics_ndc)
    if align_corners:
        column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    else:
        column, row = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    place = row.round().clamp(0, height - 1).long() * width + column.round().clamp(0, width - 1).long()
    return _compare(depth.flatten(-2).gather(-1, place).double(), z, thickness)


def depth_to_occupancy_reference(
    depth: Tensor,
    points: Tensor,
    intrinsics_ndc: Tensor,
    thickness: float | None = None,
    *,
    align_corners: bool = True,
) -> Tensor:
    """Plain twin of `depth_to_occupancy`: map by map, the lookup by grid_sample, as it was released."""
    _expect(depth, points, intrinsics_ndc)
    if depth.ndim > 2:
        each = [
            depth_to_occupancy_reference(one, points, matrix, thickness, align_corners=align_corners)
            for one, matrix in zip(depth, intrinsics_ndc, strict=True)
        ]
        return torch.stack(each)
    x, y, z = _project(points, intrinsics_ndc)
    grid = torch.stack([x, y], dim=-1)[None, None]
    found = functional.grid_sample(
        depth[None, None].double(), grid, mode="nearest", padding_mode="border", align_corners=align_corners
    )
    return _compare(found.reshape(-1), z, thickness)


def _expect(depth: Tensor, points: Tensor, intrinsics_ndc: Tensor) -> None:
    shapes = (tuple(depth.shape), tuple(points.shape), tuple(intrinsics_ndc.shape))
    if depth.ndim < 2 or points.ndim != 2 or points.shape[1] != 3 or shapes[2] != (*shapes[0][:-2], 3, 3):
        raise UsageError(f"depth [..., H, W], points [N, 3] and intrinsics [..., 3, 3] are needed, not {shapes}")


def _project(points: Tensor, intrinsics_ndc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised x and y [..., N] of points and their z [N]."""
    # In float64, written out: which of two pixels is nearest must not depend on a device's order of additions.
    points, matrix = points.double(), intrinsics_ndc.to(points.device).double()[..., None, :, :]
    z = points[:, 2]
    safe = torch.where(z > 0, z, 1.0)
    u, v = points[:, 0] / safe, points[:, 1] / safe
    x = matrix[..., 0, 0] * u + matrix[..., 0, 1] * v + matrix[..., 0, 2]
    y = matrix[..., 1, 0] * u + matrix[..., 1, 1] * v + matrix[..., 1, 2]
    return x, y, z


def _compare(depth: Tensor, z: Tensor, thickness: float | None) -> Tensor:
    occupied = z >= depth
    if thickness is not None:
        occupied &= z < depth + thickness
    unknown = ~(depth > 0) & (z > 0)
    return torch.where(unknown, torch.nan, (occupied & (z > 0)).float())


class OncePerBatch:
    """A depth predictor that remembers the batch it saw last, for the rows that are made of one depth."""

    def __init__(self, depth: DepthPredictor) -> None:
        self._depth = depth
        self._batch: Batch | None = None
        self._last: Sequence[Tensor] = ()
        self.name, self.kind, self.note = depth.name, depth.kind, depth.note

    def missing(self, key: FrameKey) -> str | None:
        """See `Predictor`."""
        return self._depth.missing(key)

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """See `DepthPredictor`."""
        if batch is not self._batch:
            self._last, self._batch = self._depth.depth(batch), batch
        return self._last


class DepthShell:
    """Occupancy of any depth predictor."""

    unit: Unit = "occupancy"

    def __init__(
        self,
        depth: DepthPredictor,
        thickness: float | None = None,
        *,
        convention: Convention = "centre",
        kind: Kind = "baseline",
    ) -> None:
        """Take occupancy from `depth`.

        Args:
            depth: gives the depth maps; its name is the row's, with "+4m" behind it for a thickness of 4.
            thickness: see `depth_to_occupancy`.
            convention: of the pixels. "official" looks up as published (corners aligned), "centre" at the pixel that
                the point falls in, which is up to half a pixel elsewhere towards the image's edges.
            kind: of the row.
        """
        self._depth, self.thickness, self.kind = depth, thickness, kind
        self._align_corners = convention == "official"
        self.name = depth.name if thickness is None else f"{depth.name}+{thickness:g}m"
        rule = (
            "occupied where z >= depth" if thickness is None else f"occupied where depth <= z < depth + {thickness:g} m"
        )
        self.note = "; ".join(filter(None, (rule, depth.note)))

    def missing(self, key: FrameKey) -> str | None:
        """See `Predictor`."""
        return self._depth.missing(key)

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return the depth itself: what `slice-20` takes for visible lies before it."""
        return self._depth.depth(batch)

    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        """Return 0 and 1 [B, N], NaN where a point's pixel has no depth; see `OccupancyPredictor`."""
        depths = [one.to(points.device) for one in self.depth(batch)]
        alike = len({one.shape for one in depths}) == 1
        groups = [torch.stack(depths)] if alike else [one[None] for one in depths]
        matrices = [batch.intrinsics_ndc] if alike else list(batch.intrinsics_ndc[:, None])
        found = [
            depth_to_occupancy(some, points, matrix, self.thickness, align_corners=self._align_corners)
            for some, matrix in zip(groups, matrices, strict=True)
        ]
        return torch.cat(found)


def shells(depth: DepthPredictor, *, convention: Convention, kind: Kind = "baseline") -> list[DepthShell]:
    """Return the two published rows of a depth predictor, which computes each batch once."""
    once = OncePerBatch(depth)
    return [DepthShell(once, thickness, convention=convention, kind=kind) for thickness in (None, THICKNESS)]
