"""What training reads, checked before anything starts: frames, pseudo-depth and anchors of the training split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import Manifest
from vipocc.errors import MissingInputError, StoreError
from vipocc.model.config import MapConfig
from vipocc.progress import size as readable_size
from vipocc.stores.reader import StoreReader
from vipocc.training.samples import SamplePaths
from vipocc.training.step import needs_depth_branch, needs_prior
from vipocc.training.table import SampleTable
from vipocc.workspace import Workspace

Rows = Mapping[str, NDArray[np.int64]]

_FRAMES = "vipocc data prepare --split train"
_DEPTH, _ANCHORS = "vipocc priors depth --split train", "vipocc priors sam --split train"
_BYTES = {"frames": 1.8, "depth": 0.85, "anchors": 0.0}
"""Of a stored row, compressed, per pixel of the prepared image; anchors are small."""
_MADE_FOR = ("image_size", "resize", "convention", "fisheye_pitch")
"""Values of the `data` section that prepared frames depend on and record."""


@dataclass(frozen=True)
class Need:
    """Rows of one store that the samples touch."""

    kind: str
    array: str
    noun: str
    command: str
    rows: Rows


def training_inputs(
    workspace: Workspace, manifest: Manifest, table: SampleTable, config: Any, *, auto: bool = True
) -> SamplePaths:
    """Return the stores that training reads, once everything that the samples need is in them.

    Args:
        workspace: where the stores are.
        manifest: of the dataset.
        table: the samples.
        config: the root configuration.
        auto: prepare images that are missing, such as the fisheyes', which priors have no use for. Priors themselves
            are never started from here.

    Raises:
        MissingInputError: something is missing; one sentence says how much of each kind and the commands that make it.
        StoreError: a store belongs to another dataset, or holds images of another size or preparation.
    """
    needs = _needs(table, config)
    size = config.data.image_size
    readers = {need.kind: _open(workspace, need.kind) for need in needs}
    missing = {need.kind: count_missing(readers[need.kind], need.rows) for need in needs}
    lacking = [need for need in needs if missing[need.kind] and not (auto and need.kind == "frames")]
    if lacking:
        amounts = [
            f"{missing[need.kind]:,} {need.noun}"
            + (
                f" (about {readable_size(room)})"
                if (room := _BYTES[need.kind] * missing[need.kind] * np.prod(size))
                else ""
            )
            for need in lacking
        ]
        commands = dict.fromkeys(need.command for need in lacking)
        raise MissingInputError(
            f"training on {len(table):,} samples lacks {_listed(amounts)}",
            where=workspace.store("frames").parent,
            fix=f"run {' and then '.join(f'`{command}`' for command in commands)}; each first says how long it takes, "
            "and with --dry-run does no more",
        )
    if missing["frames"]:
        # Imported here, since it can generate the synthetic world and so knows of its exact truth.
        from vipocc.data_manifests.stage import ensure_prepared

        ensure_prepared(workspace, config, "train", ("frames",), "all")
        readers["frames"] = _open(workspace, "frames")
    for need in needs:
        reader = readers[need.kind]
        assert reader is not None
        _check(reader, need, manifest, config)
    held = {kind: workspace.store(kind) if kind in readers else None for kind in ("depth", "anchors")}
    maps = {
        name: (_checked_map(workspace, manifest, table, name, where), where.array)
        for name, where in config.model.head.maps.items()
    }
    return SamplePaths(workspace.store("frames"), held["depth"], held["anchors"], maps)


def _checked_map(workspace: Workspace, manifest: Manifest, table: SampleTable, name: str, where: MapConfig) -> Path:
    """Return the store of a per-pixel map of the key views, once it is known to hold them all."""
    path, rows = workspace.store(where.store), table.rows_by_group(slice(1))
    reader = _open(workspace, where.store)
    if reader is not None and where.array not in {array.name for array in reader.spec.arrays}:
        raise StoreError(
            f"the store has no array '{where.array}' for the density head's map '{name}'",
            where=path,
            fix=f"set -o model.head.maps.{name}.array to one of {', '.join(a.name for a in reader.spec.arrays)}",
        )
    missing = count_missing(reader, rows)
    if reader is None or missing:
        raise MissingInputError(
            f"training lacks {missing:,} of the density head's maps '{name}'",
            where=path,
            fix=f"make that store, or name another with -o model.head.maps.{name}.store=NAME",
        )
    _check_frames(reader, rows, manifest)
    return path


def count_missing(reader: StoreReader | None, needed: Rows) -> int:
    """Return how many of the needed rows, by group, are not in a store; all of them where there is no store."""
    missing = 0
    for group, rows in needed.items():
        held = reader.rows(group) if reader is not None and reader.has(group) else np.zeros(0, dtype=np.bool_)
        inside = rows[rows < len(held)]
        missing += len(rows) - int(np.count_nonzero(held[inside]))
    return missing


def _needs(table: SampleTable, config: Any) -> list[Need]:
    training, branch = config.training, config.model.depth_branch
    depth = needs_prior(training, branch)
    depth_patches = training.depth_sampler == "snog" and needs_depth_branch(training, branch)
    anchors = training.sampler == "snog" or depth_patches
    needs = [Need("frames", "rgb", "prepared images", _FRAMES, table.rows_by_group(slice(None)))]
    if depth:
        needs.append(Need("depth", "depth", "pseudo-depth maps", _DEPTH, table.rows_by_group(slice(2))))
    if anchors:
        perspective = table.rows_by_group(slice(None), pinhole_only=True)
        needs.append(Need("anchors", "anchors", "images' anchors", _ANCHORS, perspective))
    return needs


def _open(workspace: Workspace, kind: str) -> StoreReader | None:
    path = workspace.store(kind)
    return StoreReader(path) if (path / "zarr.json").is_file() else None


def _check(reader: StoreReader, need: Need, manifest: Manifest, config: Any) -> None:
    """Raise `StoreError` unless a store is of this dataset, these frames and this image size."""
    height, width = config.data.image_size
    if need.kind == "anchors":
        held, patch = (reader.attrs["height"], reader.attrs["width"]), reader.attrs["patch"]
        if patch != config.training.patch_size:
            raise StoreError(
                f"the anchors are of patches of {patch} pixels, not of {config.training.patch_size}",
                where=reader.path,
                fix=f"set -o training.patch_size={patch}, or draw others with another priors.snog.patch",
            )
    else:
        shape = reader.spec.array(need.array).shape
        held = (shape[0], shape[1])
    if tuple(held) != (height, width):
        raise StoreError(
            f"the store is of images of {held[0]}x{held[1]}, not of {height}x{width} as data.image_size says",
            where=reader.path,
            fix=f"set -o data.image_size=[{held[0]},{held[1]}], or make it again in another workspace",
        )
    _check_frames(reader, need.rows, manifest)
    if need.kind == "frames":
        for group in need.rows:
            _check_preparation(reader, group, config.data)


def _check_frames(reader: StoreReader, rows: Rows, manifest: Manifest) -> None:
    """Raise `StoreError` unless a store is of this dataset and these frames."""
    if reader.attrs.get("dataset") != manifest.dataset:
        raise StoreError(
            f"the store is of dataset '{reader.attrs.get('dataset')}', not '{manifest.dataset}'",
            where=reader.path,
            fix="use the workspace it belongs to",
        )
    for group in rows:
        if not np.array_equal(reader.frame_ids(group), manifest.frame_ids(group.split("/")[0])):
            raise StoreError(
                f"group '{group}' is of other frames than the manifest lists",
                where=reader.path,
                fix="make it again in another workspace, or restore the dataset's poses",
            )


def _check_preparation(reader: StoreReader, group: str, data: DataConfig) -> None:
    made = reader.fingerprint(group) or {}
    values = data.model_dump(mode="json", include=set(_MADE_FOR))
    for name in _MADE_FOR:
        if name in made and made[name] != values[name]:
            raise StoreError(
                f"the frames were prepared with data.{name}={made[name]} and not {values[name]}",
                where=reader.path,
                fix="train with the configuration they were prepared with, or prepare others in another workspace",
            )


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
