"""What training reads, checked before anything starts: frames, pseudo-depth and anchors of the training split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import MissingInputError, StoreError
from vipocc.progress import size as readable_size
from vipocc.stores.reader import StoreReader
from vipocc.training.samples import SamplePaths, SampleTable
from vipocc.training.step import needs_depth_branch
from vipocc.workspace import Workspace


def training_inputs(workspace: Workspace, table: SampleTable, config: Any) -> SamplePaths:
    """Return the stores that training reads, once everything that the samples need is in them.

    Raises:
        MissingInputError: something is missing; one sentence says what of each kind and the commands that make it.
        StoreError: a store holds images of another size.
    """
    training = config.training
    frames = workspace.store("frames")
    depth = workspace.store("depth") if needs_depth_branch(training) else None
    uses_anchors = "snog" in (training.sampler, training.depth_sampler)
    anchors = workspace.store("anchors") if uses_anchors else None

    height, width = config.data.image_size
    missing, commands = [], []
    absent = count_missing(frames, table.rows_by_group(slice(None)))
    if absent:
        missing.append(f"{absent:,} prepared images ({readable_size(absent * height * width * 3)})")
    without_depth = 0 if depth is None else count_missing(depth, table.rows_by_group(slice(2)))
    if without_depth:
        missing.append(f"{without_depth:,} pseudo-depth maps ({readable_size(without_depth * height * width * 2)})")
    if absent or without_depth:
        commands.append("`vipocc priors depth --split train`" if depth is not None else "`vipocc data prepare`")
    if anchors is not None:
        without = count_missing(anchors, table.rows_by_group(slice(None), pinhole_only=True))
        if without:
            missing.append(f"anchors of {without:,} images")
            commands.append("`vipocc priors sam --split train`")
    if missing:
        raise MissingInputError(
            f"training on {len(table):,} samples lacks {_listed(missing)}",
            where=frames.parent,
            fix=f"run {' and then '.join(commands)}; each says first how long it will take",
        )
    _check_size(frames, table, (height, width))
    return SamplePaths(frames, depth, anchors)


def count_missing(store: Path, needed: Mapping[str, NDArray[np.int64]]) -> int:
    """Return how many of the needed rows, by group, are not in a store; all of them where there is no store."""
    if not store.is_dir():
        return sum(len(rows) for rows in needed.values())
    reader = StoreReader(store)
    missing = 0
    for group, rows in needed.items():
        if not reader.has(group):
            missing += len(rows)
            continue
        held = reader.rows(group)
        missing += int(np.count_nonzero(rows >= len(held)) + np.count_nonzero(~held[rows[rows < len(held)]]))
    return missing


def _check_size(frames: Path, table: SampleTable, size: tuple[int, int]) -> None:
    group, row = table.groups[int(table.group[0, 0])], int(table.row[0, 0])
    held = StoreReader(frames).read(group, row, "rgb").shape[:2]
    if tuple(held) != tuple(size):
        raise StoreError(
            f"the prepared images are {held[0]}x{held[1]}, not {size[0]}x{size[1]} as data.image_size says",
            where=frames,
            fix=f"set -o data.image_size=[{held[0]},{held[1]}], or prepare them again in another workspace",
        )


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
