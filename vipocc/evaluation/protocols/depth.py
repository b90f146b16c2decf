"""Protocols of metric depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vipocc.errors import UsageError
from vipocc.evaluation.metrics import Scaling
from vipocc.evaluation.protocols.base import Protocol

#: Upper and lower half of KITTI-360's vertical field of view as tangents, from the principal point to the image's
#: edges: P_rect_00 has f_y 552.554261 and c_y 238.769549 in 376 rows (calibration/perspective.txt).
KITTI_360_VIEW = (0.4330245, 0.2474516)


@dataclass(frozen=True)
class DepthProtocol(Protocol):
    """Metric depth of the key image (published_system.md 7.4)."""

    truth: Literal["lidar", "exact", "sweep"]
    """`lidar.zarr`, the synthetic world's own, or the raw sweep rasterised at full resolution in evaluation."""
    crop: str = "none"
    cap: float | None = None
    """Largest true depth in metres that counts."""
    clamp: tuple[float, float] = (1e-3, 80.0)
    resize: str = "nearest, prediction to truth"
    scaling: Scaling = "none"
    """What networks' depth is fitted by unless another scaling is asked for."""
    aggregation: str = "mean over frames"


@dataclass(frozen=True)
class SweepProtocol(DepthProtocol):
    """Depth against the key frame's own LiDAR sweep, rasterised at the resolution of the raw image."""

    dataset: str = ""
    """The one it is defined on."""
    raster: str = ""
    floor: float = 1e-3
    """Smallest true depth; both bounds are excluded."""
    view: tuple[float, float] | None = None
    """Rows that go into the network, as tangents above and below the principal point; None for all."""


LIDAR_DEPTH = DepthProtocol("lidar", 1, "lidar")
"""KITTI-360 as published: sparse LiDAR depth at the prepared size, no crop, no cap on the truth."""
EIGEN_DEPTH = SweepProtocol(
    "eigen",
    1,
    "sweep",
    crop="garg: rows .40810811 to .99189189, columns .03594771 to .96405229, cut to whole pixels",
    cap=80.0,
    dataset="kitti-raw",
    raster="P_rect R_rect_00 T_velo; x >= 0; pixel round(u) - 1, round(v) - 1; last write, shared pixels their minimum",
)
"""KITTI Raw, the 697 test images of Eigen et al. (published_system.md 1.7)."""
DDAD_DEPTH = SweepProtocol(
    "ddad",
    1,
    "sweep",
    crop="the image's rows within KITTI-360's vertical field of view about the principal point",
    cap=80.0,
    scaling="median",
    dataset="ddad",
    raster="points in front of the camera, nearest of each pixel; pixels where the car sees itself left out",
    view=KITTI_360_VIEW,
)
"""DDAD's front camera, zero-shot (paper B.2.3; crop rows and range are ours, for the paper states none)."""
EXACT_DEPTH = DepthProtocol("exact", 1, "exact", cap=80.0)
"""Every pixel of the synthetic world up to 80 m, at its native size."""

_ALL = {one.name: one for one in (LIDAR_DEPTH, EXACT_DEPTH, EIGEN_DEPTH, DDAD_DEPTH)}


def depth_protocol(name: str | None, dataset: str = "kitti-360") -> DepthProtocol:
    """Return a protocol by name, by default the dataset's own.

    Raises:
        UsageError: there is none of that name.
    """
    if name is None:
        own = (one for one in _ALL.values() if isinstance(one, SweepProtocol) and one.dataset == dataset)
        return next(own, LIDAR_DEPTH)
    if name not in _ALL:
        raise UsageError(
            f"there is no depth protocol '{name}'",
            fix="use --protocol lidar or exact, eigen for kitti-raw or ddad for ddad",
        )
    return _ALL[name]
