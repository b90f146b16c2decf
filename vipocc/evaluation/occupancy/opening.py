"""A protocol's ground truth and cells, opened for a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vipocc.data_manifests.ground_truth.published import OCCUPANCY_FOLDER, PublishedFiles
from vipocc.data_manifests.ground_truth.voxels import VoxelFiles
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import StoreError, UsageError
from vipocc.evaluation.inputs import select_keys
from vipocc.evaluation.occupancy.cells import Cells, plane_cells
from vipocc.evaluation.occupancy.truth import TruthReader, exact_truth, lidar_truth, published_truth
from vipocc.evaluation.occupancy.volume import VolumeTruth
from vipocc.evaluation.occupancy.voxels import Voxels, labelled_keys, refuse_alone, why_refused
from vipocc.evaluation.protocols import PUBLISHED_OCCUPANCY, VOXEL, OccupancyProtocol, VoxelProtocol, require_truth
from vipocc.evaluation.rows import ShardRows
from vipocc.evaluation.session import ground_truth
from vipocc.workspace import Workspace

FOLDERS = {"published": OCCUPANCY_FOLDER, "voxels": "SSCBench-KITTI-360's voxels"}
"""What a folder holds that the user has to name, by the kind of truth."""


def check_protocol(
    dataset: str, split: str, protocol: OccupancyProtocol | VoxelProtocol, truth_folder: Path | None
) -> None:
    """Look at what the user named before anything is read.

    Raises:
        UsageError: the protocol does not fit the dataset, the split or the folder.
        MissingInputError: the folder does not hold the protocol's ground truth.
    """
    require_truth(dataset, protocol)
    kind = truth_kind(protocol)
    if kind in FOLDERS and truth_folder is None:
        raise UsageError(
            f"--protocol {protocol.name} and --truth-folder belong together",
            fix=f"give the folder that holds {FOLDERS[kind]}, or use another --protocol",
        )
    if kind not in FOLDERS and truth_folder is not None:
        raise UsageError(
            f"--protocol {PUBLISHED_OCCUPANCY.name} or {VOXEL.name} and --truth-folder belong together",
            fix=f"leave it out: the ground truth of {protocol.name} is made here",
        )
    if truth_folder is not None:
        open_files(protocol, truth_folder)
    if kind == "lidar" and split == "train":
        raise UsageError("there is no LiDAR ground truth of split train", fix="use --split test or val")


def open_files(protocol: OccupancyProtocol | VoxelProtocol, folder: Path) -> PublishedFiles | VoxelFiles:
    """Return the user's files of a protocol's ground truth; raises `MissingInputError` if the folder holds none."""
    return VoxelFiles(folder) if isinstance(protocol, VoxelProtocol) else PublishedFiles(folder)


def truth_kind(protocol: OccupancyProtocol | VoxelProtocol) -> str:
    """Return where a protocol's truth comes from: lidar, exact, published or voxels."""
    return "voxels" if isinstance(protocol, VoxelProtocol) else protocol.truth


def needed_stores(protocol: OccupancyProtocol | VoxelProtocol) -> tuple[str, ...]:
    """Return which stores a protocol needs."""
    stored = isinstance(protocol, OccupancyProtocol) and protocol.truth == "lidar" and len(protocol.heights) == 1
    return ("frames", "occupancy") if stored else ("frames",)


def protocol_keys(
    manifest: Manifest, split: str, limit: int | None, protocol: OccupancyProtocol | VoxelProtocol
) -> list[FrameKey]:
    """Return the frames that a protocol judges, see `inputs.select_keys`; of voxels only the labelled ones."""
    if not isinstance(protocol, VoxelProtocol):
        return select_keys(manifest, split, limit)
    keys = labelled_keys(select_keys(manifest, split, None))
    if limit is not None and limit < len(keys):
        keys = [keys[int(at)] for at in np.linspace(0, len(keys) - 1, limit)]
    return keys


def open_truth(
    workspace: Workspace,
    manifest: Manifest,
    protocol: OccupancyProtocol | VoxelProtocol,
    truth_folder: Path | None,
    device: torch.device,
    keys: Sequence[FrameKey],
    trained: Any = None,
) -> tuple[TruthReader, Cells]:
    """Return a protocol's ground truth and where its cells are.

    Args:
        workspace: whose stores.
        manifest: of its dataset.
        protocol: whose truth.
        truth_folder: for a protocol whose files the user has.
        device: where the truth of a volume, and what is visible among voxels, is computed.
        keys: the frames, see `protocol_keys`.
        trained: configuration of the network among what is evaluated, None if there is none.

    Raises:
        MissingInputError: there is none.
        UsageError: the network must not be scored on any of the frames.
        StoreError: the store's ground truth is by another rule than the protocol's.
    """
    if isinstance(protocol, VoxelProtocol):
        assert truth_folder is not None
        refused = "" if trained is None else why_refused(manifest, trained)
        refuse_alone(keys, refused)
        voxels = Voxels(manifest, keys, VoxelFiles(truth_folder), protocol, device)
        voxels.refuse(refused)
        return voxels.truth, voxels.cells
    cells = plane_cells(protocol)
    if truth_folder is not None:
        return published_truth(manifest, PublishedFiles(truth_folder)), cells
    if protocol.truth == "exact":
        return exact_truth(manifest, protocol), cells
    if len(protocol.heights) > 1:
        return VolumeTruth(manifest, protocol, device), cells
    store = ground_truth(workspace, "occupancy")
    if protocol.truth_rule_digest not in store.attrs.get("rules", {}).values():
        raise StoreError(
            f"its ground truth is of another protocol than {protocol.name}",
            where=store.path,
            fix="remove it and run `vipocc data prepare`",
        )
    return lidar_truth(ShardRows(store), protocol, manifest), cells
