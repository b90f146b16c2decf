"""The two rules of occupancy ground truth as data: what stands in stores and reports, with a digest for each.

A rule that changes gets a new `version`; then its digest differs and rows made by the old one no longer count.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from vipocc.data_manifests.ground_truth.occupancy import BLIND_RANGE, OFFICIAL_TOLERANCE, SLICE_GRID, Rule
from vipocc.data_manifests.ground_truth.sweeps import ANGULAR_BINS

DESCRIPTIONS: dict[Rule, str] = {
    "official": "official: a cell that at most two sweeps see is occupied (published_system.md 7.2)",
    "paper": "paper: invisible in all sweeps is occupied, visible in any is free (the paper's supplement)",
}
_DETAILS: dict[Rule, dict[str, Any]] = {
    "official": {
        "seen_and_occupied_at_most": OFFICIAL_TOLERANCE,
        "cell_distance": "norm of the homogeneous vector, sqrt(x^2 + y^2 + z^2 + 1)",
        "direction_without_points": "range of the direction before it",
    },
    "paper": {
        "seen_and_occupied_at_most": 0,
        "cell_distance": "planar",
        "direction_without_points": "sees nothing",
    },
}


def rule_values(rule: Rule) -> dict[str, Any]:
    """Return everything that decides a cell besides the sweeps, as JSON values."""
    return {
        "rule": rule,
        "version": 1,
        "bins": ANGULAR_BINS,
        "blind_range": BLIND_RANGE,
        "visible": "seen by the first sweep",
        "x": list(SLICE_GRID.x_range),
        "y": list(SLICE_GRID.y_range),
        "z": list(SLICE_GRID.z_range),
        "shape": list(SLICE_GRID.shape),
        **_DETAILS[rule],
    }


def rule_digest(rule: Rule) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `rule_values`."""
    text = json.dumps(rule_values(rule), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rule_digests() -> dict[str, str]:
    """Return the digests of both rules by their names."""
    return {rule: rule_digest(rule) for rule in DESCRIPTIONS}


def slice_name(sweeps: int, rule: Rule) -> str:
    """Return the name of the slice protocol with so many sweeps: slice-300, or slice-300-paper by the other rule."""
    return f"slice-{sweeps}" if rule == "official" else f"slice-{sweeps}-{rule}"


def parse_slice_name(name: str) -> tuple[int, Rule] | None:
    """Return sweeps and rule of a name that `slice_name` gives, None for another."""
    match = re.fullmatch(r"slice-([1-9]\d{0,3})(-paper)?", name)
    if match is None or int(match[1]) <= OFFICIAL_TOLERANCE:
        return None
    return int(match[1]), "paper" if match[2] else "official"
