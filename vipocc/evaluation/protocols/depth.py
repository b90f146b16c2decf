"""Protocols of metric depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vipocc.errors import UsageError
from vipocc.evaluation.protocols.base import Protocol


@dataclass(frozen=True)
class DepthProtocol(Protocol):
    """Metric depth of the key image (published_system.md 7.4)."""

    truth: Literal["lidar", "exact"]
    crop: str = "none"
    cap: float | None = None
    """Largest true depth in metres that counts."""
    clamp: tuple[float, float] = (1e-3, 80.0)
    resize: str = "nearest, prediction to truth"
    scaling: str = "none"
    aggregation: str = "mean over frames"


LIDAR_DEPTH = DepthProtocol("lidar", 1, "lidar")
"""KITTI-360 as published: sparse LiDAR depth at the prepared size, no crop, no cap on the truth."""
EXACT_DEPTH = DepthProtocol("exact", 1, "exact", cap=80.0)
"""Every pixel of the synthetic world up to 80 m, at its native size."""


def depth_protocol(name: str | None) -> DepthProtocol:
    """Return a protocol by name, by default LiDAR's."""
    found = {None: LIDAR_DEPTH, LIDAR_DEPTH.name: LIDAR_DEPTH, EXACT_DEPTH.name: EXACT_DEPTH}.get(name)
    if found is None:
        raise UsageError(f"there is no depth protocol '{name}'", fix="use --protocol lidar or exact")
    return found
