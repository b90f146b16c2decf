"""Depth of a workspace: what is missing is prepared, the checkpoint loaded, the report written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.stage import ensure_prepared
from vipocc.evaluation import depth
from vipocc.evaluation.inputs import (
    FrameSource,
    choose_checkpoint,
    choose_device,
    load_model,
    map_readers,
    select_keys,
    settings_of,
)
from vipocc.evaluation.metrics import Scaling
from vipocc.evaluation.protocols import (
    depth_protocol,
    require_truth,
)
from vipocc.evaluation.report import Frame, Report
from vipocc.evaluation.session import Say, announce, finish, ground_truth, open_store, source_note
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

#: Called for each evaluated frame: image [H, W, 3], depth maps by name, truth.
KeepDepth = Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], NDArray[np.float32]], None]


def run_depth(
    workspace: Workspace,
    config: Any,
    *,
    say: Say,
    protocol: str | None = None,
    scaling: Scaling = "none",
    split: str = "test",
    limit: int | None = None,
    run: str | None = None,
    checkpoint: Path | None = None,
    device: str | None = None,
    auto: bool = True,
    overrides: Sequence[str] = (),
    keep: KeepDepth | None = None,
) -> tuple[Report, Path]:
    """Evaluate depth; arguments, result and errors as `run_occupancy`, `scaling` being that of the network's depth.

    The branch and the prior are evaluated on the frames whose pseudo-depth is in the store; none is computed here.
    """
    chosen = depth_protocol(protocol)
    require_truth(workspace.dataset, chosen)
    found = choose_checkpoint(workspace, config, path=checkpoint, run=run, overrides=overrides)
    where = choose_device(device)
    kinds = ("frames", "lidar") if chosen.truth == "lidar" else ("frames",)
    announce(say, workspace, found, f"depth against {chosen.name}", split, str(where), kinds)
    model = load_model(found, where)
    manifest = ensure_prepared(workspace, found.config, split, kinds, "perspective", auto=auto)
    source = FrameSource(
        manifest, StoreReader(workspace.store("frames")), found.config, map_readers(workspace, found.config)
    )
    lidar = chosen.truth == "lidar"
    truth = depth.lidar_truth(ground_truth(workspace, "lidar")) if lidar else depth.exact_truth(manifest)
    priors = open_store(workspace, "depth", "run `vipocc priors depth`") if workspace.store("depth").is_dir() else None
    report = depth.evaluate_depth(
        model,
        source,
        select_keys(manifest, split, limit),
        truth,
        priors,
        chosen,
        split=split,
        device=where,
        prior_note=source_note(priors),
        scaling=scaling,
        keep=keep,
    )
    return finish(report, workspace, found, settings_of(found.config, where))
