"""One frame's predictions held against its ground truth: counts of cells, and why a frame or a prediction has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DataError
from vipocc.evaluation.metrics import OBJECT, Mask, object_metrics, occupancy_metrics
from vipocc.evaluation.metrics import density_precision as density_precision_reference
from vipocc.evaluation.occupancy.cells import Cells
from vipocc.evaluation.occupancy.counting import Counts, cell_codes, count, ranked_precision
from vipocc.evaluation.occupancy.truth import SliceTruth, TruthReader
from vipocc.evaluation.predictors.interface import OccupancyPredictor, Unit
from vipocc.evaluation.protocols import OccupancyProtocol, VoxelProtocol

THRESHOLD = 0.5
"""Density in 1/m, opacity of a cell, or score in [0, 1] above which a cell counts as occupied."""
SEEN = "/seen"
"""Behind a predictor's name: the cells that are visible by its own depth."""
PARTS = ("scene", "objects", "moving", "standing")
"""Parts of a frame that are told apart; the rings come behind them."""


def thresholds(unit: Unit, length: float) -> tuple[float, float]:
    """Return above which value a prediction calls a cell occupied: by density, and by the opacity of `length` metres.

    A density d stops 1 - exp(-d length) of the light. A score in [0, 1] is neither, and has one threshold for both.
    """
    if unit == "density":
        return THRESHOLD, -math.log(1 - THRESHOLD) / length
    if unit == "opacity":
        return 1 - math.exp(-THRESHOLD * length), THRESHOLD
    return THRESHOLD, THRESHOLD


@dataclass(frozen=True)
class Scored:
    """What became of one prediction of a frame."""

    reason: str = ""
    """Why it was not judged; empty if it was."""
    counts: tuple[Counts, Counts] | None = None
    """By density and by opacity, [parts, 2, 2, 2]; see `counting`."""
    precision: float = math.nan
    """Average precision on the cells of the scene."""


@dataclass(frozen=True)
class Verdict:
    """What became of a frame."""

    truth: SliceTruth | None
    reason: str = ""
    """Why it was left out; empty if it was not."""
    scored: Mapping[str, Scored] = field(default_factory=dict)
    """By predictor."""


class Judge:
    """Judges frames; may be called in several threads at once."""

    def __init__(
        self,
        protocol: OccupancyProtocol | VoxelProtocol,
        cells: Cells,
        predictors: Sequence[OccupancyPredictor],
        truth: TruthReader,
    ) -> None:
        self._protocol, self._cells, self._predictors, self._truth = protocol, cells, predictors, truth
        self.parts = len(PARTS) + len(cells.rings)

    def __call__(self, keys: Sequence[FrameKey], arrays: Mapping[str, NDArray[Any]]) -> list[Verdict]:
        """Return what becomes of each frame; arrays [n, N] of its predictions by name."""
        return [self._frame(key, {name: values[at] for name, values in arrays.items()}) for at, key in enumerate(keys)]

    def _frame(self, key: FrameKey, predicted: Mapping[str, NDArray[Any]]) -> Verdict:
        try:
            truth = self._truth(key)
        except DataError as error:
            truth = error.what
        if isinstance(truth, str):
            return Verdict(None, truth)
        shape = truth.occupied.shape
        if shape != self._cells.shape:
            return Verdict(None, f"ground truth of another protocol: {list(shape)} cells")
        if not truth.visible.any():
            return Verdict(truth, "no visible cell")
        if truth.judged is not None and not truth.judged.any():
            return Verdict(truth, "no cell with known truth")
        shared = self._codes(truth, truth.visible)
        return Verdict(
            truth, scored={one.name: self._predictor(one, key, truth, shared, predicted) for one in self._predictors}
        )

    def _codes(self, truth: SliceTruth, visible: Mask) -> tuple[NDArray[np.intp], Mask, Mask]:
        """Return codes of the cells, which of them are judged, and what is occupied."""
        # On LiDAR's maps a cell that is seen counts as free.
        occupied = truth.occupied if isinstance(self._protocol, VoxelProtocol) else truth.occupied & ~visible
        judged = truth.judged if truth.judged is not None else np.ones(visible.shape, np.bool_)
        if isinstance(self._protocol, OccupancyProtocol) and self._protocol.far_margin_rows is not None:
            judged = judged & near_cells(truth.visible, self._protocol.far_margin_rows)
        none = np.zeros(visible.shape, np.bool_)
        objects = none if truth.objects is None else truth.objects
        moving = none if truth.moving is None else truth.moving
        standing = none if truth.moving is None else objects & ~moving
        rings = [judged & ring for ring in self._cells.rings]
        return cell_codes([judged, objects, moving, standing, *rings], occupied, visible), judged, occupied

    def _predictor(
        self,
        one: OccupancyPredictor,
        key: FrameKey,
        truth: SliceTruth,
        shared: tuple[NDArray[np.intp], Mask, Mask],
        predicted: Mapping[str, NDArray[Any]],
    ) -> Scored:
        reason = one.missing(key)
        values = predicted[one.name]
        if not reason and not np.isfinite(values).all():
            reason = "prediction not finite"
        if not reason and (values < 0).any():
            reason = "prediction negative"
        if reason:
            return Scored(reason)
        codes, judged, occupied = shared
        if one.name + SEEN in predicted:
            seen = predicted[one.name + SEEN].reshape(truth.visible.shape)
            codes, judged, occupied = self._codes(truth, truth.visible | seen)
        density, opacity = thresholds(one.unit, self._cells.opacity_length)
        by_density = count(codes, values > density, self.parts)
        by_opacity = by_density if density == opacity else count(codes, values > opacity, self.parts)
        chosen = judged.reshape(-1)
        precision = ranked_precision(values[chosen], occupied.reshape(-1)[chosen])
        return Scored("", (by_density, by_opacity), precision)


def near_cells(visible: Mask, margin: int) -> Mask:
    """Return the cells up to `margin` rows beyond the farthest row with a visible cell, in all layers alike.

    visible: bool [..., rows, columns], row 0 farthest. The rows of one plane are those of `metrics.judged_rows`.
    """
    seen = np.asarray(visible.any(axis=(*range(visible.ndim - 2), -1)))
    rows = np.flatnonzero(seen)
    near = np.arange(len(seen)) >= (rows[0] - margin if len(rows) else len(seen))
    return np.broadcast_to(near[:, None], visible.shape)


def frame_metrics_reference(density: NDArray[Any], truth: SliceTruth) -> dict[str, float]:
    """The plain twin, of a density [rows, columns] under the released protocol: mask by mask, as published."""
    called = np.asarray(density > THRESHOLD)
    scene = occupancy_metrics(called, truth.occupied, truth.visible)
    around = dict.fromkeys(OBJECT, math.nan)
    if truth.objects is not None:
        around = object_metrics(called, truth.occupied, truth.visible, truth.objects)
    precision = density_precision_reference(density, truth.occupied, truth.visible)
    return {**scene, **around, "average_precision": precision}
