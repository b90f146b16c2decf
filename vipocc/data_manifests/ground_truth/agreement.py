"""How far ground truth from LiDAR and an exact one agree, and what the cells have to do with where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from vipocc.data_manifests.ground_truth.occupancy import Mask, OccupancyTruth
from vipocc.errors import UsageError

NEAR_CELLS = 2
"""Cells this near to matter on the slice count as its edge: 20 cm across and along."""


def agreement(built: OccupancyTruth, exact: OccupancyTruth, causes: Mapping[str, Mask] | None = None) -> dict[str, Any]:
    """Compare two ground truths of one frame as an evaluation would use them: visible cells are free.

    Args:
        built: from LiDAR.
        exact: of the same cells; what is visible lies outside of all solids.
        causes: cells to which something applies, by name, the likeliest cause of disagreement first. Each
            disagreeing visible cell is counted to the first that holds it; `edge` (near exact matter) is tried after
            them, `unexplained` is the rest.

    Returns:
        Counts: `cells`, `agree`; the same of cells that are exactly visible (`visible_cells`, `visible_agree`) and of
        the others (`hidden_...`); `visibility_agree` over all cells; `causes` of the visible cells that disagree.
    """
    maps = [*built, *exact, *(causes or {}).values()]
    if any(one.shape != exact.visible.shape or one.dtype != np.bool_ for one in maps):
        raise UsageError(f"boolean maps of one shape are needed, not {[(one.dtype.name, one.shape) for one in maps]}")
    equal = (built.occupied & ~built.visible) == (exact.occupied & ~exact.visible)
    seen = exact.visible
    left = seen & ~equal
    counted: dict[str, int] = {}
    around = np.ones((2 * NEAR_CELLS + 1,) * 2, np.uint8)
    edge = cv2.dilate(exact.occupied.astype(np.uint8), around) > 0
    for name, cells in (*(causes or {}).items(), ("edge", edge)):
        counted[name] = int((left & cells).sum())
        left = left & ~cells
    counted["unexplained"] = int(left.sum())
    return {
        "cells": equal.size,
        "agree": int(equal.sum()),
        "visible_cells": int(seen.sum()),
        "visible_agree": int((seen & equal).sum()),
        "hidden_cells": int((~seen).sum()),
        "hidden_agree": int((~seen & equal).sum()),
        "visibility_agree": int((built.visible == exact.visible).sum()),
        "causes": counted,
    }
