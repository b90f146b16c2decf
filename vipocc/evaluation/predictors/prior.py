"""Pseudo-depth: read for the networks that refine it, and evaluated as a predictor of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.inputs import RowReader, committed, group_of
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.report import Kind

NO_PRIOR = "no pseudo-depth"


class Priors(Protocol):
    """Pseudo-depth of key images."""

    def has(self, key: FrameKey) -> bool:
        """Whether there is one of a frame."""

    def read(self, key: FrameKey) -> NDArray[Any]:
        """Return metres along the optical axis [H, W] on the pixels of the image that goes in, NaN where missing."""


class StoredPriors:
    """The pseudo-depth of `depth.zarr`."""

    def __init__(self, reader: RowReader) -> None:
        self.reader = reader

    def has(self, key: FrameKey) -> bool:
        """See `Priors`."""
        return committed(self.reader, group_of(key), key.row)

    def read(self, key: FrameKey) -> NDArray[Any]:
        """See `Priors`."""
        return np.asarray(self.reader.read(group_of(key), key.row, "depth"))


class PriorDepth:
    """The prior itself."""

    kind: Kind = "prior"

    def __init__(self, priors: Priors, note: str = "", name: str = "prior") -> None:
        self.priors, self.note, self.name = priors, note, name

    def missing(self, key: FrameKey) -> str | None:
        """Return why a frame has none, None if it has one."""
        return None if self.priors.has(key) else NO_PRIOR

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return the pseudo-depth as it is stored, see `DepthPredictor`."""
        return [torch.from_numpy(np.asarray(self.priors.read(key), np.float32)) for key in batch.keys]
