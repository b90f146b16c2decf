"""Protocols of occupancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vipocc.data_manifests.ground_truth.occupancy import Rule
from vipocc.data_manifests.ground_truth.rules import DESCRIPTIONS, parse_slice_name, rule_digest, slice_name
from vipocc.errors import UsageError
from vipocc.evaluation.protocols.base import Protocol

RELEASED_SWEEPS = 300


@dataclass(frozen=True)
class OccupancyProtocol(Protocol):
    """Occupancy on one horizontal plane in front of the key camera (published_system.md 7.1)."""

    truth: Literal["lidar", "exact", "published"]
    sweeps: int | None
    """LiDAR sweeps accumulated from the key frame on, fewer at a drive's end; none where the truth is exact."""
    truth_rule: str
    truth_rule_digest: str
    """Of all that decides a cell given the sweeps (`ground_truth.rules`), empty where sweeps decide nothing."""
    objects: str
    """Whose surroundings the object metrics look at."""
    x_range: tuple[float, float] = (-4.0, 4.0)
    z_range: tuple[float, float] = (20.0, 4.0)
    y: float = 0.375
    rows: int = 160
    columns: int = 80
    frame: str = "level: x right, y down, z forward, origin at the key camera, turned 5 degrees about x"
    truth_at: str = "the queried points"
    threshold: str = "density > 0.5 per metre"
    occupied: str = "occupied and not visible"
    far_margin_rows: int = 20
    object_margin: tuple[int, int] = (20, 5)
    average_precision_over: str = "rows that the scene metrics judge"
    balanced_accuracy_over: str = "invisible cells of those rows"
    aggregation: str = "mean over frames, frames without the metric left out of it"


_BOXES = "vehicles and people with a 3D box that holds a cell's centre"
_LABELS = "cars and people, the solid itself"


def slice_protocol(sweeps: int = RELEASED_SWEEPS, rule: Rule = "official") -> OccupancyProtocol:
    """The released protocol with ground truth from LiDAR; with other sweeps or the other rule it is another one."""
    name = slice_name(sweeps, rule)
    return OccupancyProtocol(name, 2, "lidar", sweeps, DESCRIPTIONS[rule], rule_digest(rule), _BOXES)


PUBLISHED_OCCUPANCY = OccupancyProtocol(
    "slice-300-published",
    1,
    "published",
    RELEASED_SWEEPS,
    "the published files; presumably by the official rule",
    "",
    "the published object maps; ids are their sorted values without the first and the last",
    truth_at="rows 300 to 459 of 460 from z 50 to 4, up to 6.5 cm from the queried points",
)
EXACT_OCCUPANCY = OccupancyProtocol(
    "exact",
    2,
    "exact",
    None,
    "inside a solid of the synthetic world; visible from the key camera's centre",
    "",
    _LABELS,
)


def occupancy_protocol(name: str | None, sweeps: int, rule: Rule = "official") -> OccupancyProtocol:
    """Return a protocol by name, by default the slice with the sweeps and the rule of the configured ground truth."""
    if name is None:
        return slice_protocol(sweeps, rule)
    for known in (EXACT_OCCUPANCY, PUBLISHED_OCCUPANCY):
        if name == known.name:
            return known
    parsed = parse_slice_name(name)
    if parsed is None:
        raise UsageError(
            f"there is no occupancy protocol '{name}'",
            fix="use --protocol slice-300 (or slice-N, N >= 3), slice-300-paper, slice-300-published or exact",
        )
    return slice_protocol(*parsed)
