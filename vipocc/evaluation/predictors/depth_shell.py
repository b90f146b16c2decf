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
    """Return what a depth map says of points: 1 occupied, 0 free, NaN where the map has no depth; float32 [N].

    A point is occupied iff D <= z (< D + thickness, if given), D being the depth at the pixel nearest to its
    projection, border pixels standing for what is outside the image. z is compared, not the distance along the ray.

    Args:
        depth: metres along the optical axis [H, W], of any size; not positive or NaN where there is none, infinite
            where there is no surface.
        points: metres [N, 3] in the camera's frame; one that is not in front of the camera is free.
        intrinsics_ndc: normalised intrinsics [3, 3] of the image that the depth map is of.
        thickness: metres of the shell; None for everything behind the surface.
        align_corners: whether -1 and 1 are the centres of the outermost pixels, as published, or their outer edges.
    """
    _expect(depth, points, intrinsics_ndc)
    height, width = depth.shape
    xy, z = _project(points, intrinsics_ndc)
    if align_corners:
        places = (xy + 1) / 2 * torch.tensor([width - 1, height - 1], dtype=xy.dtype, device=xy.device)
    else:
        places = ((xy + 1) * torch.tensor([width, height], dtype=xy.dtype, device=xy.device) - 1) / 2
    column = places[:, 0].round().clamp(0, width - 1).long()
    row = places[:, 1].round().clamp(0, height - 1).long()
    return _compare(depth[row, column].double(), z, thickness)


def depth_to_occupancy_reference(
    depth: Tensor,
    points: Tensor,
    intrinsics_ndc: Tensor,
    thickness: float | None = None,
    *,
    align_corners: bool = True,
) -> Tensor:
    """Plain twin of `depth_to_occupancy`: the lookup by grid_sample, as it was released."""
    _expect(depth, points, intrinsics_ndc)
    xy, z = _project(points, intrinsics_ndc)
    found = functional.grid_sample(
        depth[None, None].double(), xy[None, None], mode="nearest", padding_mode="border", align_corners=align_corners
    )
    return _compare(found.reshape(-1), z, thickness)


def _expect(depth: Tensor, points: Tensor, intrinsics_ndc: Tensor) -> None:
    shapes = (tuple(depth.shape), tuple(points.shape), tuple(intrinsics_ndc.shape))
    if depth.ndim != 2 or points.ndim != 2 or points.shape[1] != 3 or shapes[2] != (3, 3):
        raise UsageError(f"depth [H, W], points [N, 3] and intrinsics [3, 3] are needed, not {shapes}")


def _project(points: Tensor, intrinsics_ndc: Tensor) -> tuple[Tensor, Tensor]:
    # In float64: which of two pixels is nearest must not depend on the device's order of additions.
    points, matrix = points.double(), intrinsics_ndc.to(points.device).double()
    z = points[:, 2]
    plane = points[:, :2] / torch.where(z > 0, z, torch.ones_like(z))[:, None]
    return plane @ matrix[:2, :2].T + matrix[:2, 2], z


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
        """Return the depth maps that occupancy is made of; see `DepthPredictor`."""
        return self._depth.depth(batch)

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return the depth itself: what `slice-20` takes for visible lies before it."""
        return self._depth.depth(batch)

    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        """Return 0 and 1 [B, N], NaN where a point's pixel has no depth; see `OccupancyPredictor`."""
        depths = self.depth(batch)
        found = [
            depth_to_occupancy(one.to(points.device), points, matrix, self.thickness, align_corners=self._align_corners)
            for one, matrix in zip(depths, batch.intrinsics_ndc, strict=True)
        ]
        return torch.stack(found)


def shells(depth: DepthPredictor, *, convention: Convention, kind: Kind = "baseline") -> list[DepthShell]:
    """Return the two published rows of a depth predictor, which computes each batch once."""
    once = OncePerBatch(depth)
    return [DepthShell(once, thickness, convention=convention, kind=kind) for thickness in (None, THICKNESS)]
