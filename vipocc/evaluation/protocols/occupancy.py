"""Protocols of occupancy.

Those of the slice and of the cuboid share one description; `voxel` has its own, `protocols.voxel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vipocc.data_manifests.ground_truth.occupancy import Rule
from vipocc.data_manifests.ground_truth.rules import DESCRIPTIONS, parse_slice_name, rule_digest, slice_name
from vipocc.errors import UsageError
from vipocc.evaluation.protocols.base import Protocol
from vipocc.evaluation.protocols.voxel import VOXEL, VoxelProtocol

RELEASED_SWEEPS = 300
BTS_SWEEPS = 20
RINGS = ((4.0, 8.0), (8.0, 12.0), (12.0, 20.0))
"""Metres ahead of the camera: the parts of a slice that every report tells apart."""


@dataclass(frozen=True)
class OccupancyProtocol(Protocol):
    """Occupancy in front of the key camera, on one horizontal plane (published_system.md 7.1) or several."""

    truth: Literal["lidar", "exact", "published"]
    sweeps: int | None
    """LiDAR sweeps accumulated from the key frame on, fewer at a drive's end; none where the truth is exact."""
    truth_rule: str
    truth_rule_digest: str
    """Of all that decides a cell given the sweeps (`ground_truth.rules`), empty where sweeps decide nothing."""
    objects: str
    """Whose surroundings the object metrics look at; empty if the protocol has no object metrics."""
    x_range: tuple[float, float] = (-4.0, 4.0)
    z_range: tuple[float, float] = (20.0, 4.0)
    heights: tuple[float, ...] = (0.375,)
    """The planes, y of the level frame in metres: so far below the camera."""
    layer: tuple[float, float] = (-0.375, 0.375)
    """The slab about a plane whose points decide its truth, where LiDAR does."""
    rows: int = 160
    columns: int = 80
    frame: str = "level: x right, y down, z forward, origin at the key camera, turned 5 degrees about x"
    truth_at: str = "the queried points"
    threshold: str = "density > 0.5 per metre"
    opacity_length: float = 0.1
    """Metres of a cell: rows by opacity call a cell occupied if 1 - exp(-density length) > 0.5."""
    occupied: str = "occupied and not visible"
    visible: str = "seen by the frame's own truth"
    far_margin_rows: int | None = 20
    """Rows kept beyond the farthest one with a visible cell (in any layer); None keeps all."""
    object_margin: tuple[int, int] = (20, 5)
    average_precision_over: str = "cells that the scene metrics judge"
    balanced_accuracy_over: str = "invisible cells of those"
    rings: tuple[tuple[float, float], ...] = RINGS
    aggregation: str = "mean over frames, frames without the metric left out of it"
    metrics: tuple[str, ...] = ("o_acc", "ie_acc", "ie_rec")
    """Of the scene, in the order of the table."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a frame's cells: [rows, columns], or [layers, rows, columns] of a volume."""
        plane = (self.rows, self.columns)
        return plane if len(self.heights) == 1 else (len(self.heights), *plane)


_BOXES = "vehicles and people with a 3D box that holds a cell's centre"
_LABELS = "cars and people, the solid itself"
_CUBOID_HEIGHTS, _CUBOID_LAYER = (0.125, 0.375, 0.625, 0.875), (-0.125, 0.125)
_VOLUME_METRICS = ("o_acc", "ie_acc", "ie_rec", "precision", "recall", "iou")


def slice_protocol(sweeps: int = RELEASED_SWEEPS, rule: Rule = "official") -> OccupancyProtocol:
    """The released protocol with ground truth from LiDAR; with other sweeps or the other rule it is another one.

    With 20 sweeps and the official rule it is BTS's (published_system.md 7.3): a cell is also visible where it is
    nearer than the depth that the evaluated model itself renders, nothing is cut off and there are no objects.
    """
    name = slice_name(sweeps, rule)
    if (sweeps, rule) == (BTS_SWEEPS, "official"):
        return OccupancyProtocol(
            name, 3, "lidar", sweeps, DESCRIPTIONS[rule], rule_digest(rule), "",
            visible="seen by the frame's own sweep, or nearer than the model's own rendered depth at the nearest "
            "pixel (corners aligned, the border repeated); by the sweep alone for what has no depth",
            far_margin_rows=None,
            metrics=("o_acc", "precision", "recall", "ie_acc", "ie_precision", "ie_rec"),
        )  # fmt: skip
    return OccupancyProtocol(name, 3, "lidar", sweeps, DESCRIPTIONS[rule], rule_digest(rule), _BOXES)


PUBLISHED_OCCUPANCY = OccupancyProtocol(
    "slice-300-published",
    2,
    "published",
    RELEASED_SWEEPS,
    "the published files; presumably by the official rule",
    "",
    "the published object maps; ids are their sorted values without the first and the last",
    truth_at="rows 300 to 459 of 460 from z 50 to 4, up to 6.5 cm from the queried points",
)
EXACT_OCCUPANCY = OccupancyProtocol(
    "exact",
    3,
    "exact",
    None,
    "inside a solid of the synthetic world; visible from the key camera's centre",
    "",
    _LABELS,
)
CUBOID = OccupancyProtocol(
    "cuboid",
    1,
    "lidar",
    RELEASED_SWEEPS,
    f"of each layer's own points {DESCRIPTIONS['official']}",
    rule_digest("official"),
    _BOXES,
    heights=_CUBOID_HEIGHTS,
    layer=_CUBOID_LAYER,
    metrics=_VOLUME_METRICS,
)
"""The paper's text (B.1.2): w [-4, 4], h [-1, 0], d [4, 20]. h is read as height above the camera, so y is 0 to 1 in a
frame whose y points down; four layers of 25 cm, of which the second is the slice's plane, on the slice's own grid."""
EXACT_CUBOID = OccupancyProtocol(
    "exact-cuboid",
    1,
    "exact",
    None,
    EXACT_OCCUPANCY.truth_rule,
    "",
    _LABELS,
    heights=_CUBOID_HEIGHTS,
    layer=_CUBOID_LAYER,
    metrics=_VOLUME_METRICS,
)

_NAMED: dict[str, OccupancyProtocol | VoxelProtocol] = {
    one.name: one for one in (EXACT_OCCUPANCY, PUBLISHED_OCCUPANCY, CUBOID, EXACT_CUBOID, VOXEL)
}


def occupancy_protocol(name: str | None, sweeps: int, rule: Rule = "official") -> OccupancyProtocol | VoxelProtocol:
    """Return a protocol by name, by default the slice with the sweeps and the rule of the configured ground truth."""
    if name is None:
        return slice_protocol(sweeps, rule)
    if name in _NAMED:
        return _NAMED[name]
    parsed = parse_slice_name(name)
    if parsed is None:
        raise UsageError(
            f"there is no occupancy protocol '{name}'",
            fix="use --protocol slice-300 (or slice-N, N >= 3), slice-20, slice-300-paper, slice-300-published, "
            "cuboid, voxel, exact or exact-cuboid",
        )
    return slice_protocol(*parsed)
