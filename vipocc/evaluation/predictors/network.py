"""Our networks as what is evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.predictors.interface import Batch, Unit
from vipocc.evaluation.report import Kind
from vipocc.model.network import ViPOcc


class NetworkOccupancy:
    """The density of a network in evaluation mode."""

    unit: Unit = "density"

    def __init__(self, name: str, kind: Kind, model: ViPOcc, note: str = "") -> None:
        self.name, self.kind, self.model, self.note = name, kind, model, note

    def missing(self, key: FrameKey) -> str | None:
        """Return None: a network needs the image alone."""
        return None

    @torch.no_grad()
    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        """Return sigma in 1/m at the points, see `OccupancyPredictor`."""
        features = self.model.encode_keys(batch.images, batch.intrinsics_ndc, batch.maps)
        density = self.model.density(features, points.expand(len(batch.images), -1, -1), batch.intrinsics_ndc)
        return density.float()
