"""Depth of a workspace: what is missing is prepared, the checkpoint loaded, the report written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vipocc.errors import DataError
from vipocc.evaluation import depth
from vipocc.evaluation.depth.evaluate import SCALINGS, Contender, KeepDepth
from vipocc.evaluation.depth.setting import prepare, prepared_kinds, split_with_truth
from vipocc.evaluation.figures.collect import Chain, DepthPictures, check_named
from vipocc.evaluation.inputs import choose_checkpoint, choose_device, load_model, settings_of
from vipocc.evaluation.metrics import Scaling
from vipocc.evaluation.predictors.entrants import Entrants, depth_meta, distinct, folder_depth, frames_of
from vipocc.evaluation.predictors.interface import DepthPredictor
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.evaluation.predictors.prior import PriorDepth, Priors
from vipocc.evaluation.protocols import depth_protocol, require_truth
from vipocc.evaluation.report import Report
from vipocc.evaluation.session import Say, announce, finish, without_network
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace


def run_depth(
    workspace: Workspace,
    config: Any,
    *,
    say: Say,
    protocol: str | None = None,
    scaling: Scaling | Literal["all"] | None = None,
    split: str = "test",
    limit: int | None = None,
    run: str | None = None,
    checkpoint: Path | None = None,
    device: str | None = None,
    auto: bool = True,
    overrides: Sequence[str] = (),
    keep: KeepDepth | None = None,
    picture: Sequence[str] = (),
    entrants: Entrants | None = None,
) -> tuple[Report, Path]:
    """Evaluate depth; arguments, result and errors as `run_occupancy`.

    `picture` names frames to picture as SEQ/FRAME, beside `evaluation.pictures` evenly spaced ones.
    `protocol` is by default the dataset's own, `scaling` (of networks' depth; `all` gives a row each) the protocol's.
    The prior is shown under all scalings. The branch and the prior are evaluated on the frames whose pseudo-depth is in
    the store; none is computed here. `entrants` brings others' predictions; the network is left out if they are all
    that is asked for. Where a dataset lists no test frames, val takes their place.
    """
    chosen = depth_protocol(protocol, workspace.dataset)
    require_truth(workspace.dataset, chosen)
    entrants = entrants or Entrants()
    folders, found = entrants.open(workspace.dataset), None
    if entrants.wants_network(run, checkpoint):
        found = choose_checkpoint(workspace, config, path=checkpoint, run=run, overrides=overrides)
    settled = without_network(config, overrides) if found is None else found.config
    split = split_with_truth(workspace, settled, split)
    where = choose_device(device)
    announce(say, workspace, found, f"depth against {chosen.name}", split, str(where), prepared_kinds(chosen))
    # Before anything is prepared: a checkpoint that does not fit leaves the workspace as it was.
    model = None if found is None else load_model(found, where)
    setting = prepare(workspace, settled, chosen, split, limit, auto=auto)
    wanted = SCALINGS if scaling == "all" else (scaling or chosen.scaling,)
    ours = [] if model is None else networks(model, setting.priors, setting.prior_note)
    manifest = setting.source.manifest
    theirs = folder_depth(folders, manifest, frames_of(manifest, setting.keys))
    contenders = [Contender(one, wanted) for one in [*ours, *theirs]]
    if setting.priors is not None:
        contenders.append(Contender(PriorDepth(setting.priors, setting.prior_note), SCALINGS))
    distinct([one.predictor.name for one in contenders])
    pictures = DepthPictures(settled.evaluation.pictures, check_named(picture, manifest, setting.keys))
    savers = entrants.savers([depth_meta(one, workspace.dataset) for one in ours])
    report = depth.evaluate_depth(
        contenders,
        setting.source,
        setting.keys,
        setting.truth,
        chosen,
        split=split,
        device=where,
        keep=Chain(keep, pictures, None if savers is None else savers.keep),
    )
    if not report.used:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons().items())
        raise DataError(
            f"no frame of split {split} has a depth to compare with ({reasons})",
            where=workspace.root,
            fix="see `vipocc data check`, or use another --split",
        )
    report.notes = [*report.notes, *setting.notes]
    pictures.put_into(report)
    if model is not None and model.depth_branch is None:
        report.notes.append("The model has no depth branch.")
    return finish(report, workspace, found, settings_of(settled, where), settled)


def networks(model: ViPOcc, priors: Priors | None, prior_note: str) -> list[DepthPredictor]:
    """Return the depth maps that a network has: rendered, and its branch's if it has one."""
    found: list[DepthPredictor] = [NetworkDepth(model, "rendered")]
    if model.depth_branch is not None:
        branch = NetworkDepth(model, "branch", priors)
        branch.note = prior_note if branch.needs_prior else ""
        found.append(branch)
    return found
