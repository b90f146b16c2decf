"""Constant guesses: what a metric gives to somebody who has not looked at the image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.predictors.interface import Batch, OccupancyPredictor, Unit
from vipocc.evaluation.report import Kind


class ConstantOccupancy:
    """Says the same of every point."""

    kind: Kind = "constant"
    unit: Unit = "occupancy"
    note = ""

    def __init__(self, name: str, value: Literal[0, 1]) -> None:
        self.name, self.value = name, value

    def missing(self, key: FrameKey) -> str | None:
        """Return None: there is always a guess."""
        return None

    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        """Return the value at every point, see `OccupancyPredictor`."""
        shape = (len(batch.keys), len(points))
        return torch.full(shape, float(self.value), dtype=torch.float32, device=points.device)


def constant_guesses() -> list[OccupancyPredictor]:
    """Return the two guesses that every report of occupancy shows."""
    return [ConstantOccupancy("everything free", 0), ConstantOccupancy("everything occupied", 1)]
