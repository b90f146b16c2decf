"""Which depths a workspace has to make baselines of: pseudo-depth of the split, and what its network gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.predictors.interface import DepthPredictor
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.evaluation.predictors.prior import PriorDepth, StoredPriors
from vipocc.evaluation.session import open_store, source_note
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace


def depth_sources(
    workspace: Workspace, split: str, keys: Sequence[FrameKey], model: ViPOcc | None
) -> tuple[dict[str, Callable[[], DepthPredictor]], dict[str, str]]:
    """Return what makes the depth of each baseline that can be had, and how to come by the others, by name.

    Args:
        workspace: whose `depth.zarr`.
        split: of the keys.
        keys: the frames; pseudo-depth of one of them is enough.
        model: the network that is evaluated; None if none is.
    """
    command = f"run `vipocc priors depth --split {split}`"
    sources: dict[str, Callable[[], DepthPredictor]] = {}
    why_not: dict[str, str] = {}
    priors, note = None, ""
    if workspace.store("depth").is_dir():
        reader = open_store(workspace, "depth", "run `vipocc priors depth`")
        stored = StoredPriors(reader)
        if any(stored.has(key) for key in keys):
            priors, note = stored, source_note(reader)
    if priors is not None:
        held = priors
        sources["prior"] = lambda: PriorDepth(held, note)
    else:
        why_not["prior"] = command
    if model is None:
        why_not["rendered"] = why_not["branch"] = "name a network with --run or --checkpoint"
        return sources, why_not
    network, branch = model, model.depth_branch
    sources["rendered"] = lambda: NetworkDepth(network, "rendered")
    if branch is None:
        why_not["branch"] = "the model has no depth branch: leave this baseline out"
    elif branch.needs_prior and priors is None:
        why_not["branch"] = command
    else:
        sources["branch"] = lambda: NetworkDepth(network, "branch", priors)
    return sources, why_not
