"""Where true depth comes from: sparse LiDAR in a store, the synthetic world's exact depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.evaluation.inputs import RowReader, committed, group_of

TruthReader: TypeAlias = Callable[[FrameKey], "NDArray[np.float32] | None"]
"""Returns a key's true depth [H, W] in metres, 0 or NaN where unknown; None where there is none at all."""


def lidar_truth(reader: RowReader) -> TruthReader:
    """Return a reader of the sparse depth in `lidar.zarr`."""

    def read(key: FrameKey) -> NDArray[np.float32] | None:
        group = group_of(key)
        if not committed(reader, group, key.row):
            return None
        return np.asarray(reader.read(group, key.row, "depth"), np.float32)

    return read


def exact_truth(manifest: Manifest) -> TruthReader:
    """Return a reader of the synthetic world's exact depth, which nothing but the protocol `exact` may open."""
    from vipocc.data_manifests.synthetic.exact import ExactTruth

    truth = ExactTruth(manifest.root)

    def read(key: FrameKey) -> NDArray[np.float32] | None:
        frame_id = int(manifest.frame_ids(key.sequence)[key.row])
        return truth.depth(key.sequence, key.camera, frame_id)

    return read
