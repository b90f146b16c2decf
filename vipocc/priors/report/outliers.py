"""Frames that a person should look at before training on their priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Robust standard deviations from the median of its drive past which a frame's median depth is unusual.
UNUSUAL = 6.0
#: Share of pixels at the model's cap past which a depth map says little.
MOSTLY_CAPPED = 0.5
#: A map whose 95 % quantile is less than this many times its 5 % quantile is flat.
FLAT = 1.1
#: Factor between a frame's ratio to the LiDAR and its drive's past which its scale is unusual.
SCALE = 1.5


@dataclass(frozen=True)
class Outlier:
    """One thing about one frame."""

    group: str
    row: int
    reason: str
    severity: float
    """For sorting only; larger is worse."""


def find_outliers(depth: Mapping[str, NDArray[Any]], instances: Mapping[str, NDArray[Any]], most: int) -> list[Outlier]:
    """Return what is unusual, worst first.

    Args:
        depth: `tables.DEPTH` by group.
        instances: `tables.INSTANCES` by group.
        most: number of instances that an image's record can hold.
    """
    found: list[Outlier] = []
    for group, table in depth.items():
        found += _depth(group, table)
    for group, table in instances.items():
        full = table[table["count"] >= most]
        found += [Outlier(group, int(e["row"]), f"{most} instances, as many as fit", 2.0) for e in full]
    return sorted(found, key=lambda one: (-one.severity, one.group, one.row))


def _depth(group: str, table: NDArray[Any]) -> list[Outlier]:
    found = [
        Outlier(group, int(e["row"]), f"{100 * e['missing']:.1f} % of the depth is missing", 10.0 + float(e["missing"]))
        for e in table[table["missing"] > 0]
    ]
    whole = table[np.isfinite(table["median"])]
    for e in whole[whole["high"] < FLAT * whole["low"]]:
        found.append(Outlier(group, int(e["row"]), f"flat: 90 % within {e['low']:.1f} to {e['high']:.1f} m", 8.0))
    for e in whole[whole["capped"] > MOSTLY_CAPPED]:
        found.append(Outlier(group, int(e["row"]), f"{100 * e['capped']:.0f} % of pixels at the cap", 5.0))
    for e, score in _far_off(whole, np.log(whole["median"])):
        found.append(
            Outlier(group, int(e["row"]), f"median depth {e['median']:.1f} m, unlike its drive's", min(score / 4, 7.0))
        )
    compared = whole[np.isfinite(whole["ratio"])]
    if len(compared) >= 8:
        usual = float(np.median(compared["ratio"]))
        off = np.abs(np.log(np.maximum(compared["ratio"], 1e-6) / usual))
        for e, far in zip(compared, off, strict=True):
            if far > np.log(SCALE):
                text = f"{e['ratio']:.2f} times the LiDAR's depth, its drive {usual:.2f}"
                found.append(Outlier(group, int(e["row"]), text, 4.0 + float(far)))
    return found


def _far_off(table: NDArray[Any], values: NDArray[Any]) -> list[tuple[Any, float]]:
    if len(table) < 8:
        return []
    middle = np.median(values)
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), 0.02)
    scores = np.abs(values - middle) / spread
    return [(table[i], float(scores[i])) for i in np.flatnonzero(scores > UNUSUAL)]
