"""Protocols: frozen, versioned descriptions of what is measured against what. Their digest stands in every report.

A protocol that changes gets a new version; results of different digests are different measurements.
"""

from __future__ import annotations

from vipocc.data_manifests.datasets import adapter
from vipocc.errors import UsageError
from vipocc.evaluation.protocols.base import Protocol
from vipocc.evaluation.protocols.depth import (
    DDAD_DEPTH,
    EIGEN_DEPTH,
    EXACT_DEPTH,
    LIDAR_DEPTH,
    DepthProtocol,
    SweepProtocol,
    depth_protocol,
)
from vipocc.evaluation.protocols.occupancy import (
    BTS_SWEEPS,
    CUBOID,
    EXACT_CUBOID,
    EXACT_OCCUPANCY,
    PUBLISHED_OCCUPANCY,
    RELEASED_SWEEPS,
    OccupancyProtocol,
    occupancy_protocol,
    slice_protocol,
)
from vipocc.evaluation.protocols.voxel import VOXEL, VoxelProtocol

__all__ = [
    "BTS_SWEEPS",
    "CUBOID",
    "DDAD_DEPTH",
    "EIGEN_DEPTH",
    "EXACT_CUBOID",
    "EXACT_DEPTH",
    "EXACT_OCCUPANCY",
    "LIDAR_DEPTH",
    "PUBLISHED_OCCUPANCY",
    "RELEASED_SWEEPS",
    "VOXEL",
    "DepthProtocol",
    "OccupancyProtocol",
    "Protocol",
    "SweepProtocol",
    "VoxelProtocol",
    "depth_protocol",
    "occupancy_protocol",
    "require_truth",
    "slice_protocol",
]


def require_truth(dataset: str, protocol: Protocol) -> None:
    """Raise `UsageError` if a dataset has not the truth that a protocol measures against."""
    if isinstance(protocol, OccupancyProtocol | DepthProtocol) and protocol.truth == "exact" and dataset != "synthetic":
        raise UsageError(f"{dataset} has no exact truth", fix="leave --protocol out, or use the synthetic dataset")
    if isinstance(protocol, SweepProtocol) and protocol.dataset != dataset:
        raise UsageError(
            f"protocol {protocol.name} is defined on {protocol.dataset}, not on {dataset}", fix="leave --protocol out"
        )
    if isinstance(protocol, VoxelProtocol) and dataset != "kitti-360":
        raise UsageError(
            f"{dataset} has no voxel labels", fix="they are of KITTI-360 alone: use --protocol slice-300 or another"
        )
    if isinstance(protocol, OccupancyProtocol) and "occupancy" not in adapter(dataset).products:
        raise UsageError(
            f"{dataset} gives no occupancy ground truth", fix="evaluate its depth with `vipocc eval depth`"
        )
