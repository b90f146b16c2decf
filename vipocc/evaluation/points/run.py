"""The frames and query points of a workspace's split, under a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vipocc.data_manifests.stage import ensure_indexed, require_samples
from vipocc.evaluation.depth.setting import split_with_truth
from vipocc.evaluation.inputs import select_keys
from vipocc.evaluation.occupancy.cells import plane_cells
from vipocc.evaluation.occupancy.opening import protocol_keys
from vipocc.evaluation.occupancy.voxels import voxel_cells
from vipocc.evaluation.points.export import contents, write_points
from vipocc.evaluation.protocols import VoxelProtocol, depth_protocol, occupancy_protocol, require_truth
from vipocc.evaluation.session import Say
from vipocc.workspace import Workspace


def run_points(
    workspace: Workspace,
    config: Any,
    output: Path,
    *,
    say: Say,
    protocol: str | None = None,
    quantity: Literal["occupancy", "depth"] = "occupancy",
    split: str = "test",
    limit: int | None = None,
    auto: bool = True,
) -> None:
    """Write the frames, and of occupancy the query points, of an evaluation into `output` (`points.export`).

    Args:
        workspace: whose dataset; it is indexed, nothing else is prepared.
        config: the workspace's configuration; decides the default protocol.
        output: the `.npz` file.
        say: takes the lines that tell what was written.
        protocol: by name, by default what `vipocc eval` takes by default.
        quantity: what will be predicted.
        split: train, val or test.
        limit: at most so many frames, evenly spaced: those of an evaluation with the same limit.
        auto: generate an absent synthetic world; else refuse.

    Raises:
        UsageError: the protocol is unknown or does not fit the dataset.
        DataError: the split has no frame that the protocol judges.
        StoreError: the file cannot be written.
    """
    if quantity == "depth":
        chosen: Any = depth_protocol(protocol, workspace.dataset)
        split = split_with_truth(workspace, config, split)
    else:
        chosen = occupancy_protocol(protocol, config.data.sweeps, config.data.occupancy_rule)
    require_truth(workspace.dataset, chosen)
    manifest = ensure_indexed(workspace, config, auto=auto)
    require_samples(manifest, split)
    if quantity == "depth":
        keys = select_keys(manifest, split, limit)
        arrays, told = contents(manifest, keys, chosen), ""
    else:
        keys = protocol_keys(manifest, split, limit, chosen)
        voxels = isinstance(chosen, VoxelProtocol)
        cells = voxel_cells(manifest, keys, chosen)[0] if voxels else plane_cells(chosen)
        arrays = contents(manifest, keys, chosen, cells.points, cells.shape)
        told = f" and {len(cells.points):,} points of each"
    write_points(output, arrays)
    say(
        f"{output}: {len(keys):,} frames{told}, {quantity} under {chosen.name} ({chosen.digest}) on "
        f"{workspace.dataset} {split}; docs/evaluating-your-method.md says where predictions go"
    )
