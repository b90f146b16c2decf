"""Occupancy of a workspace: what is missing is prepared, the checkpoint loaded, the report written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.published import OCCUPANCY_FOLDER, PublishedFiles
from vipocc.data_manifests.ground_truth.rules import parse_slice_name
from vipocc.data_manifests.stage import ensure_prepared
from vipocc.errors import UsageError
from vipocc.evaluation import occupancy
from vipocc.evaluation.inputs import (
    FrameSource,
    choose_checkpoint,
    choose_device,
    load_model,
    map_readers,
    select_keys,
    settings_of,
    untrained_model,
)
from vipocc.evaluation.predictors.interface import OccupancyPredictor
from vipocc.evaluation.predictors.network import NetworkOccupancy
from vipocc.evaluation.protocols import (
    PUBLISHED_OCCUPANCY,
    OccupancyProtocol,
    occupancy_protocol,
    require_truth,
)
from vipocc.evaluation.report import Frame, Report
from vipocc.evaluation.session import Say, announce, finish, ground_truth
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

#: Called for each evaluated frame: image [H, W, 3], maps by name, truth.
KeepOccupancy = Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], occupancy.SliceTruth], None]


def run_occupancy(
    workspace: Workspace,
    config: Any,
    *,
    say: Say,
    protocol: str | None = None,
    split: str = "test",
    limit: int | None = None,
    run: str | None = None,
    checkpoint: Path | None = None,
    device: str | None = None,
    auto: bool = True,
    overrides: Sequence[str] = (),
    keep: KeepOccupancy | None = None,
    truth_folder: Path | None = None,
) -> tuple[Report, Path]:
    """Evaluate occupancy and return the report with the folder that it was written to.

    Args:
        workspace: whose runs and stores.
        config: the workspace's configuration, for what the checkpoint's does not say.
        say: takes the lines that tell what was assumed.
        protocol: by name; by default the slice with `data.sweeps` sweeps.
        split: train, val or test; LiDAR ground truth exists for val and test.
        limit: at most so many frames, evenly spaced.
        run: name of the run whose best checkpoint is taken; by default the newest run.
        checkpoint: folder of a checkpoint, instead.
        device: where the networks run.
        auto: prepare missing frames and ground truth; else refuse.
        overrides: `section.key=value` strings over the checkpoint's configuration.
        keep: see `evaluate_occupancy`.
        truth_folder: holds the published GT_Occ and Object_Label; the protocol is then slice-300-published.

    Raises:
        MissingInputError: nothing was trained, or frames are missing and `auto` is not set.
        UsageError: the protocol does not fit the dataset, the split or the folder.
    """
    if truth_folder is not None and protocol is None:
        protocol = PUBLISHED_OCCUPANCY.name
    chosen = occupancy_protocol(protocol, config.data.sweeps, config.data.occupancy_rule)
    require_truth(workspace.dataset, chosen)
    if (chosen.truth == "published") != (truth_folder is not None):
        raise UsageError(
            f"--protocol {PUBLISHED_OCCUPANCY.name} and --truth-folder belong together",
            fix=f"give the folder that holds {OCCUPANCY_FOLDER}, or leave both out",
        )
    files = None if truth_folder is None else PublishedFiles(truth_folder)
    if chosen.truth == "lidar" and split == "train":
        raise UsageError("there is no LiDAR ground truth of split train", fix="use --split test or val")
    found = choose_checkpoint(
        workspace, config, path=checkpoint, run=run, overrides=_with_truth(overrides, chosen, protocol)
    )
    if protocol is None:
        chosen = occupancy_protocol(None, found.config.data.sweeps, found.config.data.occupancy_rule)
    where = choose_device(device)
    kinds = ("frames", "occupancy") if chosen.truth == "lidar" else ("frames",)
    announce(say, workspace, found, f"occupancy under {chosen.name}", split, str(where), kinds)
    # Before anything is prepared: a checkpoint that does not fit leaves the workspace as it was.
    predictors: list[OccupancyPredictor] = [NetworkOccupancy("trained", "measured", load_model(found, where))]
    if found.config.evaluation.untrained:
        predictors.append(NetworkOccupancy("untrained", "untrained", untrained_model(found.config, where)))
    manifest = ensure_prepared(workspace, found.config, split, kinds, "perspective", auto=auto)
    source = FrameSource(
        manifest, StoreReader(workspace.store("frames")), found.config, map_readers(workspace, found.config)
    )
    if chosen.truth == "lidar":
        truth = occupancy.lidar_truth(ground_truth(workspace, "occupancy"), chosen)
    elif files is not None:
        truth = occupancy.published_truth(manifest, files)
    else:
        truth = occupancy.exact_truth(manifest)
    keys = select_keys(manifest, split, limit)
    report = occupancy.evaluate_occupancy(predictors, source, keys, truth, chosen, split=split, device=where, keep=keep)
    return finish(report, workspace, found, settings_of(found.config, where))


def _with_truth(overrides: Sequence[str], protocol: OccupancyProtocol, named: str | None) -> Sequence[str]:
    # A slice that is asked for by name decides how its ground truth is built.
    parsed = parse_slice_name(protocol.name)
    if named is None or parsed is None:
        return overrides
    return (*overrides, f"data.sweeps={parsed[0]}", f"data.occupancy_rule={parsed[1]}")
