"""An evaluation from a workspace: what is missing is prepared, the checkpoint loaded, the report written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.published import OCCUPANCY_FOLDER, PublishedFiles
from vipocc.data_manifests.ground_truth.rules import parse_slice_name
from vipocc.data_manifests.stage import ensure_indexed, ensure_prepared
from vipocc.errors import MissingInputError, StoreError, UsageError
from vipocc.evaluation import depth, occupancy
from vipocc.evaluation.inputs import (
    Checkpoint,
    FrameSource,
    choose_checkpoint,
    choose_device,
    load_model,
    map_readers,
    select_keys,
    settings_of,
    untrained_model,
)
from vipocc.evaluation.metrics import Scaling
from vipocc.evaluation.protocols import (
    PUBLISHED_OCCUPANCY,
    OccupancyProtocol,
    depth_protocol,
    occupancy_protocol,
    require_truth,
)
from vipocc.evaluation.report import Frame, Report
from vipocc.evaluation.sampler import evaluate_sampler
from vipocc.priors.sources import fingerprint_models
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace

Say = Callable[[str], None]
#: Called for each evaluated frame: image [H, W, 3], maps by name, truth.
KeepOccupancy = Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], occupancy.SliceTruth], None]
KeepDepth = Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], NDArray[np.float32]], None]


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
    _announce(say, workspace, found, f"occupancy under {chosen.name}", split, str(where), kinds)
    # Before anything is prepared: a checkpoint that does not fit leaves the workspace as it was.
    models: dict[str, Any] = {"trained": ("measured", load_model(found, where))}
    if found.config.evaluation.untrained:
        models["untrained"] = ("untrained", untrained_model(found.config, where))
    manifest = ensure_prepared(workspace, found.config, split, kinds, "perspective", auto=auto)
    source = FrameSource(
        manifest, StoreReader(workspace.store("frames")), found.config, map_readers(workspace, found.config)
    )
    if chosen.truth == "lidar":
        truth = occupancy.lidar_truth(_ground_truth(workspace, "occupancy"), chosen)
    elif files is not None:
        truth = occupancy.published_truth(manifest, files)
    else:
        truth = occupancy.exact_truth(manifest)
    keys = select_keys(manifest, split, limit)
    report = occupancy.evaluate_occupancy(models, source, keys, truth, chosen, split=split, device=where, keep=keep)
    return _finish(report, workspace, found, settings_of(found.config, where))


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
    _announce(say, workspace, found, f"depth against {chosen.name}", split, str(where), kinds)
    model = load_model(found, where)
    manifest = ensure_prepared(workspace, found.config, split, kinds, "perspective", auto=auto)
    source = FrameSource(
        manifest, StoreReader(workspace.store("frames")), found.config, map_readers(workspace, found.config)
    )
    lidar = chosen.truth == "lidar"
    truth = depth.lidar_truth(_ground_truth(workspace, "lidar")) if lidar else depth.exact_truth(manifest)
    priors = _reader(workspace, "depth", "run `vipocc priors depth`") if workspace.store("depth").is_dir() else None
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
    return _finish(report, workspace, found, settings_of(found.config, where))


def run_sampler(
    workspace: Workspace, config: Any, *, say: Say, split: str = "test", limit: int | None = None
) -> tuple[Report, Path]:
    """Measure the ray samplers on the instances of a split; result as `run_occupancy`.

    Raises:
        MissingInputError: `vipocc priors sam` has not run on the split.
    """
    settings = config.evaluation
    say(
        f"sampler efficiency on {workspace.dataset} {split}: {settings.iterations:,} draws by each sampler, "
        f"seed {config.seed}"
    )
    manifest = ensure_indexed(workspace, config, auto=False)
    fix = f"run `vipocc priors sam --split {split}`"
    if not workspace.store("instances").is_dir():
        raise MissingInputError("there are no instances", where=workspace.store("instances"), fix=fix)
    reader = _reader(workspace, "instances", fix)
    report = evaluate_sampler(
        manifest,
        reader,
        select_keys(manifest, split, limit),
        config.priors.snog,
        split=split,
        iterations=settings.iterations,
        seed=config.seed,
        resamples=settings.resamples,
        confidence=settings.confidence,
        note=source_note(reader),
    )
    report.settings = {"seed": config.seed, "resamples": settings.resamples, "confidence": settings.confidence}
    return report, report.save(workspace.reports)


def source_note(reader: StoreReader | None) -> str:
    """Return what made a store of priors, in words: the models' ids, or that they are simulated."""
    if reader is None:
        return ""
    notes = set()
    for group in reader.groups():
        made_by: Mapping[str, Any] | None = reader.fingerprint(group)
        if made_by is not None:
            models = " and ".join(str(model["model"]) for model in fingerprint_models(made_by))
            notes.add("simulated prior" if made_by.get("source") == "simulated" else models)
    return ", ".join(sorted(notes - {""}))


def _with_truth(overrides: Sequence[str], protocol: OccupancyProtocol, named: str | None) -> Sequence[str]:
    # A slice that is asked for by name decides how its ground truth is built.
    parsed = parse_slice_name(protocol.name)
    if named is None or parsed is None:
        return overrides
    return (*overrides, f"data.sweeps={parsed[0]}", f"data.occupancy_rule={parsed[1]}")


def _ground_truth(workspace: Workspace, kind: str) -> StoreReader:
    path = workspace.store(kind)
    if not path.is_dir():
        raise MissingInputError(
            f"this dataset has no LiDAR to make {kind} ground truth of",
            where=workspace.root,
            fix="see `vipocc data check`",
        )
    return _reader(workspace, kind, "run `vipocc data prepare`")


def _reader(workspace: Workspace, kind: str, fix: str) -> StoreReader:
    """Open a store of the workspace; raises `StoreError` if it is another dataset's."""
    reader = StoreReader(workspace.store(kind), fix=fix)
    held = reader.attrs.get("dataset")
    if held != workspace.dataset:
        raise StoreError(
            f"the store is of dataset '{held}', not '{workspace.dataset}'",
            where=reader.path,
            fix="use the workspace it belongs to, or move it away",
        )
    return reader


def _announce(
    say: Say, workspace: Workspace, found: Checkpoint, what: str, split: str, device: str, kinds: Sequence[str]
) -> None:
    path = found.describe(workspace)["path"]
    say(
        f"{what} on {workspace.dataset} {split}, checkpoint {path} ({found.rule}), on {device}; "
        f"{' and '.join(kinds)} are prepared first where they are missing"
    )


def _finish(
    report: Report, workspace: Workspace, found: Checkpoint, settings: Mapping[str, Any]
) -> tuple[Report, Path]:
    report.checkpoint = found.describe(workspace)
    report.settings = settings
    chosen_by = "The checkpoint was named by the user." if found.named else f"The checkpoint is {found.rule}."
    if report.split == "val" and not found.named:
        chosen_by += " Validation frames chose it, so figures on val flatter it."
    report.notes = [*report.notes, *adapter(workspace.dataset).notes, chosen_by]
    return report, report.save(workspace.reports)
