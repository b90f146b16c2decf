"""Depth of a workspace: what is missing is prepared, the checkpoint loaded, the report written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vipocc.errors import DataError
from vipocc.evaluation import depth
from vipocc.evaluation.depth.evaluate import SCALINGS, Contender, KeepDepth
from vipocc.evaluation.depth.setting import prepare, prepared_kinds, split_with_truth
from vipocc.evaluation.figures.collect import DepthPictures, chain, check_named
from vipocc.evaluation.inputs import choose_checkpoint, choose_device, load_model, settings_of
from vipocc.evaluation.metrics import Scaling
from vipocc.evaluation.predictors.interface import DepthPredictor
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.evaluation.predictors.prior import PriorDepth, Priors
from vipocc.evaluation.protocols import depth_protocol, require_truth
from vipocc.evaluation.report import Report
from vipocc.evaluation.session import Say, announce, finish, open_store
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
) -> tuple[Report, Path]:
    """Evaluate depth; arguments, result and errors as `run_occupancy`.

    `picture` names frames to picture as SEQ/FRAME, beside `evaluation.pictures` evenly spaced ones.
    `protocol` is by default the dataset's own, `scaling` (of networks' depth; `all` gives a row each) the protocol's.
    The prior is shown under all scalings. The branch and the prior are evaluated on the frames whose pseudo-depth is in
    the store; none is computed here. Where a dataset lists no test frames, val takes their place.
    """
    chosen = depth_protocol(protocol, workspace.dataset)
    require_truth(workspace.dataset, chosen)
    found = choose_checkpoint(workspace, config, path=checkpoint, run=run, overrides=overrides)
    split = split_with_truth(workspace, found.config, split)
    where = choose_device(device)
    announce(say, workspace, found, f"depth against {chosen.name}", split, str(where), prepared_kinds(chosen))
    # Before anything is prepared: a checkpoint that does not fit leaves the workspace as it was.
    model = load_model(found, where)
    stored = open_store(workspace, "depth", "run `vipocc priors depth`") if workspace.store("depth").is_dir() else None
    setting = prepare(workspace, found.config, chosen, split, limit, auto=auto, stored=stored)
    wanted = SCALINGS if scaling == "all" else (scaling or chosen.scaling,)
    contenders = [Contender(one, wanted) for one in networks(model, setting.priors, setting.prior_note)]
    if setting.priors is not None:
        contenders.append(Contender(PriorDepth(setting.priors, setting.prior_note), SCALINGS))
    pictures = DepthPictures(
        found.config.evaluation.pictures, check_named(picture, setting.source.manifest, setting.keys)
    )
    report = depth.evaluate_depth(
        contenders,
        setting.source,
        setting.keys,
        setting.truth,
        chosen,
        split=split,
        device=where,
        keep=chain(keep, pictures.keep),
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
    if model.depth_branch is None:
        report.notes.append("The model has no depth branch.")
    return finish(report, workspace, found, settings_of(found.config, where))


def networks(model: ViPOcc, priors: Priors | None, prior_note: str) -> list[DepthPredictor]:
    """Return the depth maps that a network has: rendered, and its branch's if it has one."""
    found: list[DepthPredictor] = [NetworkDepth(model, "rendered")]
    if model.depth_branch is not None:
        branch = NetworkDepth(model, "branch", priors)
        branch.note = prior_note if branch.needs_prior else ""
        found.append(branch)
    return found
