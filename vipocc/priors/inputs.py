"""What priors are made from: which rows a split needs, and where each row's image is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import Manifest
from vipocc.errors import MissingInputError
from vipocc.stores import StoreReader, file_ref, row_refs
from vipocc.workspace import Workspace

Rows: TypeAlias = Mapping[tuple[str, str], NDArray[np.int64]]
"""Rows of each (sequence, camera)."""
Refs: TypeAlias = dict[str, dict[int, list[dict[str, Any]]]]
"""Of each group `<sequence>/<camera>`, the references of each row's inputs."""


def wanted_rows(
    manifest: Manifest,
    split: str,
    cameras: Literal["perspective", "all"] = "perspective",
    limit: int | None = None,
) -> Rows:
    """Return the rows that the samples of a split touch (keys, their t+1, the other camera) and whose image exists.

    With `limit`, only so many in all, the first ones in the manifest's order.

    Raises:
        MissingInputError: no image of the split exists.
    """
    found: dict[tuple[str, str], NDArray[np.int64]] = {}
    left = limit
    for (sequence, camera), rows in manifest.needed(split, cameras).items():
        there = rows[manifest.has_image(sequence, camera)[rows]][:left]
        if left is not None:
            left -= len(there)
        if len(there):
            found[sequence, camera] = there
    if not found:
        raise MissingInputError(
            f"no image of split '{split}' exists",
            where=manifest.root,
            fix="see `vipocc data check`, or use --split all",
        )
    return found


def prepared_images(workspace: Workspace, rows: Rows) -> Refs:
    """Return the references of prepared images.

    Raises:
        MissingInputError: some are not prepared.
    """
    path = workspace.store("frames")
    reader = StoreReader(path, fix="run `vipocc data prepare`")
    found: Refs = {}
    for (sequence, camera), some in rows.items():
        group = f"{sequence}/{camera}"
        held = held_rows(reader, group, some)
        if len(held) < len(some):
            raise MissingInputError(
                f"{len(some) - len(held)} of {len(some)} frames of {group} are not prepared",
                where=path,
                fix="run `vipocc data prepare`, or leave out --no-auto",
            )
        found[group] = store_refs(reader, group, held)
    return found


def raw_images(manifest: Manifest, rows: Rows) -> Refs:
    """Return the references of the dataset's own images."""
    return {
        f"{sequence}/{camera}": {
            int(row): [file_ref(manifest.image_path(sequence, camera, int(row)), manifest.root)] for row in some
        }
        for (sequence, camera), some in rows.items()
    }


def instance_rows(path: Path, rows: Rows) -> Refs:
    """Return the references of those rows that the store of instances at `path` holds, and their groups only.

    Raises:
        MissingInputError: it holds none of them, or there is no such store.
    """
    reader = StoreReader(path, fix="run `vipocc priors sam`")
    found = {
        f"{sequence}/{camera}": store_refs(
            reader, f"{sequence}/{camera}", held_rows(reader, f"{sequence}/{camera}", some)
        )
        for (sequence, camera), some in rows.items()
    }
    found = {group: refs for group, refs in found.items() if refs}
    if not found:
        raise MissingInputError(
            "there are no instances to draw anchors from", where=path, fix="run `vipocc priors sam`"
        )
    return found


def frame_ids(path: Path, refs: Refs) -> dict[str, NDArray[np.int64]]:
    """Return the frame ids of all rows of each group, from the store at `path`."""
    reader = StoreReader(path)
    return {group: np.asarray(reader.frame_ids(group), np.int64) for group in refs}


def held_rows(reader: StoreReader, group: str, rows: NDArray[np.int64]) -> list[int]:
    """Return those of `rows` that a store holds."""
    if not reader.has(group):
        return []
    there = reader.rows(group)
    return [int(row) for row in rows if there[row]]


def store_refs(reader: StoreReader, group: str, rows: list[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the references of rows of a store, as inputs of rows of another."""
    return {row: [ref] for row, ref in row_refs(reader, group, rows).items()} if rows else {}
