"""The guess that any depth has to beat: each image row's median true depth over the training split.

On a street most of the image is a ground plane and walls beside it, so that the row alone says much of the depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DataError
from vipocc.evaluation.depth import TruthReader
from vipocc.evaluation.depth.score import counted
from vipocc.evaluation.metrics import lower_median
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.protocols import DepthProtocol
from vipocc.evaluation.report import Kind

FRAMES = 200
"""Training frames that are looked at, at most, evenly spaced."""
_PIXELS = 20_000
"""Of a frame, at most, in evenly spaced columns."""


def row_medians(
    truth: TruthReader, keys: Sequence[FrameKey], protocol: DepthProtocol
) -> tuple[NDArray[np.float32], int]:
    """Return the lower median of true depth in each image row [H], and over how many frames; H is the first truth's.

    Rows where no frame has truth take the nearest row's. With no frame at all the medians are empty.
    """
    chosen = [keys[int(at)] for at in np.linspace(0, len(keys) - 1, min(FRAMES, len(keys)))] if keys else []
    rows: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    height = 0
    for key in chosen:
        try:
            depth = truth(key)
        except DataError:
            continue
        if isinstance(depth, str):
            continue
        mask = counted(depth, protocol)
        mask[:, ~_columns(mask)] = False
        if not mask.any():
            continue
        height = height or len(depth)
        rows.append(np.nonzero(mask)[0] * height // len(depth))  # images of another day may be a few rows higher
        values.append(depth[mask])
    if not values:
        return np.zeros(0, np.float32), 0
    where, what = np.concatenate(rows), np.concatenate(values)
    order = np.argsort(where, kind="stable")
    known = np.unique(where)
    medians = [lower_median(part) for part in np.split(what[order], np.searchsorted(where[order], known[1:]))]
    nearest = np.abs(np.arange(height)[:, None] - known[None, :]).argmin(1)
    return np.asarray(medians, np.float32)[nearest], len(values)


def _columns(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    step = max(1, int(np.count_nonzero(mask) // _PIXELS))
    return np.asarray(np.arange(mask.shape[1]) % step == 0)


class RowMedians:
    """Says the same of every image."""

    kind: Kind = "constant"
    name = "median of each row"

    def __init__(self, medians: NDArray[np.float32], frames: int) -> None:
        self._depth = torch.from_numpy(medians)[:, None]
        self.note = f"of the true depth of {frames} training frames"

    def missing(self, key: FrameKey) -> str | None:
        """Return None: there is always a guess."""
        return None

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        """Return [H, 1] for each frame, which stands for every column, see `DepthPredictor`."""
        return [self._depth] * len(batch.keys)
