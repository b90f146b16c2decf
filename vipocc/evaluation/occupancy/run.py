"""Occupancy of a workspace: what is missing is prepared, the checkpoint loaded, the report written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vipocc.data_manifests.ground_truth.rules import parse_slice_name
from vipocc.data_manifests.stage import ensure_prepared
from vipocc.evaluation.figures.collect import Chain, OccupancyPictures, check_named
from vipocc.evaluation.inputs import (
    FrameSource,
    choose_checkpoint,
    choose_device,
    load_model,
    map_readers,
    settings_of,
    untrained_model,
)
from vipocc.evaluation.occupancy.evaluate import Keep, evaluate_occupancy
from vipocc.evaluation.occupancy.judging import thresholds
from vipocc.evaluation.occupancy.opening import check_protocol, needed_stores, open_truth, protocol_keys
from vipocc.evaluation.predictors.entrants import Entrants, folder_occupancy, frames_of, occupancy_meta
from vipocc.evaluation.predictors.interface import OccupancyPredictor
from vipocc.evaluation.predictors.network import NetworkOccupancy
from vipocc.evaluation.predictors.sources import depth_sources
from vipocc.evaluation.protocols import PUBLISHED_OCCUPANCY, Protocol, VoxelProtocol, occupancy_protocol
from vipocc.evaluation.report import Report
from vipocc.evaluation.session import Say, announce, finish, without_network
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
    entrants: Entrants | None = None,
    picture: Sequence[str] = (),
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
        truth_folder: holds the published GT_Occ and Object_Label (the protocol is then slice-300-published unless
            another is named), or the voxels of the protocol `voxel`.
        entrants: baselines and others' predictions; the network is left out if these are all that is asked for.
        picture: frames to picture as SEQ/FRAME, beside `evaluation.pictures` evenly spaced ones.

    Raises:
        MissingInputError: nothing was trained, or frames are missing and `auto` is not set.
        UsageError: the protocol does not fit the dataset, the split or the folder.
    """
    if truth_folder is not None and protocol is None:
        protocol = PUBLISHED_OCCUPANCY.name
    chosen = occupancy_protocol(protocol, config.data.sweeps, config.data.occupancy_rule)
    check_protocol(workspace.dataset, split, chosen, truth_folder)
    entrants = entrants or Entrants()
    folders, found = entrants.open(workspace.dataset), None
    overrides = _with_truth(overrides, chosen, protocol)
    if entrants.wants_network(run, checkpoint):
        found = choose_checkpoint(workspace, config, path=checkpoint, run=run, overrides=overrides)
    settled = without_network(config, overrides) if found is None else found.config
    if protocol is None:
        chosen = occupancy_protocol(None, settled.data.sweeps, settled.data.occupancy_rule)
    where = choose_device(device)
    kinds = needed_stores(chosen)
    announce(say, workspace, found, f"occupancy under {chosen.name}", split, str(where), kinds)
    # Before anything is prepared: a checkpoint that does not fit leaves the workspace as it was.
    model = None if found is None else load_model(found, where)
    predictors: list[OccupancyPredictor] = []
    if model is not None:
        predictors.append(NetworkOccupancy("trained", "measured", model))
        if settled.evaluation.untrained:
            predictors.append(NetworkOccupancy("untrained", "untrained", untrained_model(settled, where)))
    manifest = ensure_prepared(workspace, settled, split, kinds, "perspective", auto=auto)
    source = FrameSource(
        manifest,
        StoreReader(workspace.store("frames")),
        settled,
        {} if model is None else map_readers(workspace, settled),
    )
    keys = protocol_keys(manifest, split, limit, chosen)
    trained = None if found is None else settled
    truth, cells = open_truth(workspace, manifest, chosen, truth_folder, where, keys, trained)
    savers = entrants.savers([occupancy_meta(one, workspace.dataset, cells.points, chosen) for one in predictors[:1]])
    convention = settled.data.convention
    frames = frames_of(manifest, keys)
    predictors += folder_occupancy(folders, manifest, frames, cells.points, cells.shape, chosen.name, convention)
    predictors += entrants.depth_baselines(*depth_sources(workspace, split, keys, model), convention)
    limits = {one.name: thresholds(one.unit, cells.opacity_length)[0] for one in predictors}
    pictures = OccupancyPictures(predictors, limits, settled.evaluation.pictures, check_named(picture, manifest, keys))
    report = evaluate_occupancy(
        predictors,
        source,
        keys,
        truth,
        chosen,
        split=split,
        device=where,
        cells=cells,
        keep=Chain(keep, pictures, None if savers is None else savers.keep),
    )
    pictures.put_into(report, source, where)
    if isinstance(chosen, VoxelProtocol) and folders:
        report.notes = [*report.notes, "On which frames the predictions from folders were trained is not known here."]
    return finish(report, workspace, found, settings_of(settled, where), settled)


def _with_truth(overrides: Sequence[str], protocol: Protocol, named: str | None) -> Sequence[str]:
    # A slice that is asked for by name decides how its ground truth is built.
    parsed = parse_slice_name(protocol.name)
    if named is None or parsed is None:
        return overrides
    return (*overrides, f"data.sweeps={parsed[0]}", f"data.occupancy_rule={parsed[1]}")
