"""Which depths a workspace has to make baselines of: pseudo-depth of the split, and what its network gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.predictors.interface import DepthPredictor
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.evaluation.predictors.prior import PriorDepth, Priors, StoredPriors
from vipocc.evaluation.session import open_store, source_note
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace


class ReadAhead:
    """Priors that threads read before they are asked for, keys being asked for in order."""

    def __init__(self, priors: Priors, keys: Sequence[FrameKey], ahead: int = 48, threads: int = 2) -> None:
        """Read `priors` of `keys`, at most `ahead` of them beforehand; others are read when they are asked for."""
        self._priors, self._ahead = priors, ahead
        self._keys = [key for key in keys if priors.has(key)]
        self._place = {key: at for at, key in enumerate(self._keys)}
        self._begun, self._reading = 0, dict[FrameKey, Future[NDArray[Any]]]()
        self._pool = ThreadPoolExecutor(threads, "vipocc-priors")

    def has(self, key: FrameKey) -> bool:
        """See `Priors`."""
        return key in self._place or self._priors.has(key)

    def read(self, key: FrameKey) -> NDArray[Any]:
        """See `Priors`."""
        place = self._place.get(key)
        if place is not None:
            for at in range(max(self._begun, place + 1), min(place + 1 + self._ahead, len(self._keys))):
                self._reading[self._keys[at]] = self._pool.submit(self._priors.read, self._keys[at])
                self._begun = at + 1
        begun = self._reading.pop(key, None)
        return self._priors.read(key) if begun is None else begun.result()


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
        sources["prior"] = lambda: PriorDepth(ReadAhead(held, keys), note)
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
