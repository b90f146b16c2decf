"""What a thing that is evaluated has to do. The harness knows nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.report import Frame, Kind

Unit = Literal["density", "opacity", "probability", "occupancy"]
"""Of an occupancy prediction: 1/m, share of light stopped in a cell, a score in [0, 1], or 0 and 1."""


@dataclass(frozen=True)
class Batch:
    """Frames that are predicted together, on one device."""

    keys: Sequence[FrameKey]
    frames: Sequence[Frame]
    images: Tensor
    """[B, 3, H, W] in [0, 1], as prepared."""
    intrinsics_ndc: Tensor
    """[B, 3, 3], normalised."""
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """Per-pixel maps [B, C, H', W'] that a density head asks for, by name."""


class Predictor(Protocol):
    """A row of a table."""

    name: str
    kind: Kind
    note: str
    """What the table says of it, e.g. where its prior came from; empty if nothing."""

    def missing(self, key: FrameKey) -> str | None:
        """Return why there is no prediction for a frame (the frame is then counted under that reason), else None."""


class OccupancyPredictor(Predictor, Protocol):
    """Predicts occupancy at any points."""

    unit: Unit

    def occupancy(self, batch: Batch, points: Tensor) -> Tensor:
        """Return float32 [B, N] in `unit` at points [N, 3] (metres, key camera's frame: x right, y down, z forward).

        NaN or infinite where the prediction is broken: the frame is then reported, not averaged.
        """


class DepthPredictor(Predictor, Protocol):
    """Predicts the metric depth of the key image."""

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return float32 [H, W] for each frame: metres along the optical axis, NaN where there is no prediction."""
