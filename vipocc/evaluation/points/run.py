"""The frames and query points of a workspace's split, under a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vipocc.data_manifests.stage import ensure_indexed, require_samples
from vipocc.errors import UsageError
from vipocc.evaluation.inputs import select_keys
from vipocc.evaluation.occupancy.cells import plane_cells
from vipocc.evaluation.points.export import contents, write_points
from vipocc.evaluation.protocols import OccupancyProtocol, depth_protocol, occupancy_protocol, require_truth
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
        UsageError: the protocol is unknown, does not fit the dataset or has other points in each frame.
        StoreError: the file cannot be written.
    """
    if quantity == "depth":
        chosen: Any = depth_protocol(protocol, workspace.dataset)
    else:
        chosen = occupancy_protocol(protocol, config.data.sweeps, config.data.occupancy_rule)
    require_truth(workspace.dataset, chosen)
    cells = None
    if quantity == "occupancy":
        if not isinstance(chosen, OccupancyProtocol):
            raise UsageError(
                f"points of protocol {chosen.name} cannot be written", fix="use a slice, cuboid or exact protocol"
            )
        cells = plane_cells(chosen)
    manifest = ensure_indexed(workspace, config, auto=auto)
    require_samples(manifest, split)
    keys = select_keys(manifest, split, limit)
    if cells is None:
        arrays, told = contents(manifest, keys, chosen), ""
    else:
        arrays = contents(manifest, keys, chosen, cells.points, cells.shape)
        told = f" and {len(cells.points):,} points of each"
    write_points(output, arrays)
    say(
        f"{output}: {len(keys):,} frames{told}, {quantity} under {chosen.name} ({chosen.digest}) on "
        f"{workspace.dataset} {split}; docs/evaluating-your-method.md says where predictions go"
    )
