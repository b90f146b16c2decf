"""The protocol of SSCBench-KITTI-360's voxels (comparison_methods.md 6.1 and 6.4)."""

from __future__ import annotations

from dataclasses import dataclass

from vipocc.evaluation.protocols.base import Protocol


@dataclass(frozen=True)
class VoxelProtocol(Protocol):
    """Occupancy of the labelled voxels that the key camera can see into, by the opacity of a cell."""

    labels: str = "SSCBench-KITTI-360: label and invalid files, or preprocessed ones"
    unknown: str = (
        "invalid and unlabelled, outlier, bicyclist, motorcyclist, trunk, moving bicyclist or motorcyclist; and empty "
        "cells of the lowest 7 layers that have no labelled cell strictly below"
    )
    frames: str = "labelled rows, every 5th posed frame"
    every: int = 5
    shape: tuple[int, int, int] = (256, 256, 32)
    """Cells along x, y, z of the LiDAR."""
    frame: str = "LiDAR of the labelled frame: x forward, y left, z up"
    origin: tuple[float, float, float] = (0.0, -25.6, -2.0)
    """Lowest corner of the grid in metres: the official one."""
    size: float = 0.2
    """Metres of a cell's edge, and the length of its opacity."""
    query: str = "the cell's centre"
    seen_by: str = (
        "centres in front of the rectified left camera that project to 0 <= u < width, 0 <= v < height of its image"
    )
    threshold: str = "opacity of a cell, 1 - exp(-density 0.2 m), > 0.5"
    visible: str = "no occupied cell between the camera and the cell's centre, so surfaces are visible; unknown is free"
    under_ground_layers: int = 7
    rings: tuple[tuple[float, float], ...] = ((0.0, 12.8), (12.8, 25.6), (25.6, 51.2))
    """Metres ahead of the LiDAR."""
    refused: str = "drive 0009 for models trained on the seg split, which holds 68 % of it"
    aggregation: str = "pooled over frames; beside it means over frames"
    metrics: tuple[str, ...] = ("iou", "precision", "recall", "o_acc", "ie_acc", "ie_rec")


VOXEL = VoxelProtocol("voxel", 1)
