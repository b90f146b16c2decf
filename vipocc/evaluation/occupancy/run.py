"""Occupancy of a workspace: what is missing is prepared, the checkpoint loaded, the report written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vipocc.data_manifests.ground_truth.rules import parse_slice_name
from vipocc.data_manifests.stage import ensure_prepared
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
from vipocc.evaluation.occupancy.evaluate import Keep, evaluate_occupancy
from vipocc.evaluation.occupancy.opening import check_protocol, needed_stores, open_truth
from vipocc.evaluation.predictors.interface import OccupancyPredictor
from vipocc.evaluation.predictors.network import NetworkOccupancy
from vipocc.evaluation.protocols import PUBLISHED_OCCUPANCY, Protocol, occupancy_protocol
from vipocc.evaluation.report import Report
from vipocc.evaluation.session import Say, announce, finish
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace


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
    keep: Keep | None = None,
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
    check_protocol(workspace.dataset, split, chosen, truth_folder)
    found = choose_checkpoint(
        workspace, config, path=checkpoint, run=run, overrides=_with_truth(overrides, chosen, protocol)
    )
    if protocol is None:
        chosen = occupancy_protocol(None, found.config.data.sweeps, found.config.data.occupancy_rule)
    where = choose_device(device)
    kinds = needed_stores(chosen)
    announce(say, workspace, found, f"occupancy under {chosen.name}", split, str(where), kinds)
    # Before anything is prepared: a checkpoint that does not fit leaves the workspace as it was.
    predictors: list[OccupancyPredictor] = [NetworkOccupancy("trained", "measured", load_model(found, where))]
    if found.config.evaluation.untrained:
        predictors.append(NetworkOccupancy("untrained", "untrained", untrained_model(found.config, where)))
    manifest = ensure_prepared(workspace, found.config, split, kinds, "perspective", auto=auto)
    source = FrameSource(
        manifest, StoreReader(workspace.store("frames")), found.config, map_readers(workspace, found.config)
    )
    truth, cells = open_truth(workspace, manifest, chosen, truth_folder, where)
    keys = select_keys(manifest, split, limit)
    report = evaluate_occupancy(
        predictors, source, keys, truth, chosen, split=split, device=where, cells=cells, keep=keep
    )
    return finish(report, workspace, found, settings_of(found.config, where))


def _with_truth(overrides: Sequence[str], protocol: Protocol, named: str | None) -> Sequence[str]:
    # A slice that is asked for by name decides how its ground truth is built.
    parsed = parse_slice_name(protocol.name)
    if named is None or parsed is None:
        return overrides
    return (*overrides, f"data.sweeps={parsed[0]}", f"data.occupancy_rule={parsed[1]}")
