"""What a depth protocol takes from a workspace: its images, its truth, pseudo-depth on the pixels of those images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.stage import ensure_indexed, ensure_prepared, require_samples
from vipocc.evaluation.depth.truth import exact_truth, lidar_truth, prepared_lidar_truth, sweep_truth
from vipocc.evaluation.depth.view import TruthReader, ViewPriors, ViewSource, pinhole, share_of_view
from vipocc.evaluation.inputs import FrameSource, map_readers, select_keys
from vipocc.evaluation.predictors.prior import Priors, StoredPriors
from vipocc.evaluation.protocols import DepthProtocol, SweepProtocol
from vipocc.evaluation.report import Skipped
from vipocc.evaluation.session import ground_truth, open_store, source_note
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace


@dataclass(frozen=True)
class Setting:
    """Everything that an evaluation of depth reads."""

    manifest: Manifest
    source: FrameSource
    keys: list[FrameKey]
    truth: TruthReader
    train_truth: TruthReader
    """The same of training frames, whose LiDAR depth is in no store: for what learns from the truth."""
    priors: Priors | None
    prior_note: str
    """What made the priors, in words."""
    notes: list[str]


class NoImages(FrameSource):
    """Stands in for prepared images where nobody looks at one: a black pixel each."""

    def __init__(self, manifest: Manifest, config: Any) -> None:
        """Give the frames of a manifest."""
        super().__init__(manifest, _Nothing(), config)
        self.size = (1, 1)

    def split(self, keys: Sequence[FrameKey]) -> tuple[list[FrameKey], list[Skipped]]:
        """Return all keys: nothing has to be prepared."""
        return list(keys), []

    def image(self, key: FrameKey) -> NDArray[np.uint8]:
        """Return the pixel."""
        return np.zeros((1, 1, 3), np.uint8)


class _Nothing:
    def has(self, group: str) -> bool:
        return False

    def rows(self, group: str) -> NDArray[np.bool_]:
        return np.zeros(0, bool)

    def read(self, group: str, row: int, array: str | None = None) -> NDArray[Any]:
        raise KeyError(group)


def split_with_truth(workspace: Workspace, config: Any, split: str) -> str:
    """Return `split`, or val in place of test where the dataset lists no test frame (DDAD, whose truth is withheld)."""
    if split != "test" or workspace.dataset == "synthetic":
        return split
    lists = adapter(workspace.dataset).configured(config.data).lists(workspace.root, config.data)
    return split if lists.count("test") or not lists.count("val") else "val"


def prepared_kinds(protocol: DepthProtocol) -> tuple[str, ...]:
    """Return which stores the protocol reads, besides those of priors."""
    if isinstance(protocol, SweepProtocol):
        return () if protocol.view is not None else ("frames",)
    return ("frames", "lidar") if protocol.truth == "lidar" else ("frames",)


def prepare(
    workspace: Workspace,
    config: Any,
    protocol: DepthProtocol,
    split: str,
    limit: int | None,
    *,
    auto: bool,
    images: bool = True,
    store: str | None = None,
) -> Setting:
    """Prepare what is missing and open what the protocol reads.

    Args:
        workspace: whose dataset and stores.
        config: says how images are prepared.
        protocol: what is measured.
        split: train, val or test.
        limit: at most so many frames, evenly spaced.
        auto: prepare what is missing; else refuse.
        images: whether images are needed; without them only ground truth is prepared.
        store: name of a second store of pseudo-depth; the first where it is None, none where it does not exist.

    Raises:
        MissingInputError: something is missing and `auto` is not set.
        DataError: the split has no usable sample.
    """
    kinds = tuple(kind for kind in prepared_kinds(protocol) if images or kind != "frames")
    if kinds:
        manifest = ensure_prepared(workspace, config, split, kinds, "perspective", auto=auto)
    else:
        manifest = ensure_indexed(workspace, config, auto=auto)
        require_samples(manifest, split)
    keys = select_keys(manifest, split, limit)
    stored = None
    if workspace.store("depth", store).is_dir():
        stored = open_store(workspace, "depth", f"run `vipocc priors depth --split {split}`", store)
    priors: Priors | None = None if stored is None else StoredPriors(stored)
    notes: list[str] = []
    if isinstance(protocol, SweepProtocol):
        truth = sweep_truth(manifest, protocol)
    elif protocol.truth == "lidar":
        truth = lidar_truth(ground_truth(workspace, "lidar"))
    else:
        truth = exact_truth(manifest)
    train_truth = prepared_lidar_truth(workspace, manifest, config.data) if protocol.truth == "lidar" else truth
    maps = map_readers(workspace, config) if images else {}
    size = tuple(config.data.image_size)
    source: FrameSource = NoImages(manifest, config)
    if isinstance(protocol, SweepProtocol) and protocol.view is not None:
        if images:
            cut = ViewSource(manifest, config, protocol.view, maps)
            source, truth = cut, cut.readable(truth)
        share = share_of_view(pinhole(manifest, keys[0]), protocol.view)
        notes.append(
            f"Images are the rows within KITTI-360's vertical field of view, of which this camera has {share:.0%}; "
            "resized to the network's size, with intrinsics that say so."
        )
        if priors is not None:
            priors = ViewPriors(priors, manifest, protocol.view, size)
    elif images:
        source = FrameSource(manifest, StoreReader(workspace.store("frames")), config, maps)
    return Setting(manifest, source, keys, truth, train_truth, priors, source_note(stored), notes)
