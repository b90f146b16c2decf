"""What a prior of a split amounts to: which rows of which store, from what, computed by whom.

The commands and the demo describe a job first (which checks configuration, models and inputs and writes nothing), then
run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import Manifest
from vipocc.errors import ConfigError, MissingInputError, UsageError
from vipocc.priors.anchors import AnchorsComputer, anchors_fingerprint
from vipocc.priors.config import PriorsConfig
from vipocc.priors.depth.computer import DepthComputer, RawDepthComputer
from vipocc.priors.grounded_sam.computer import InstancesComputer
from vipocc.priors.job import Job, PriorComputer, Source
from vipocc.priors.simulated_source import (
    SimulatedDepthComputer,
    SimulatedInstancesComputer,
    simulated_fingerprint,
)
from vipocc.priors.store_specs import anchors_spec, depth_spec, instances_spec
from vipocc.stores import StoreReader, StoreSpec, file_ref, requests_for, row_refs
from vipocc.workspace import Workspace

Rows = Mapping[tuple[str, str], NDArray[np.int64]]
"""Rows of each (sequence, camera)."""

_BYTES_PER_PIXEL = {"float16": 0.85, "float32": 2.3}
"""Of stored depth, compressed (dependencies: 75 to 106 kB for 192x640 in float16, 270 to 314 kB in float32)."""


def resolve_source(config: PriorsConfig, dataset: str) -> Source:
    """Return what priors of `dataset` are computed by; `auto` means simulated for the synthetic world alone.

    Raises:
        ConfigError: `simulated` for a dataset that has no exact truth.
    """
    if config.source == "auto":
        return "simulated" if dataset == "synthetic" else "transformers"
    if config.source == "simulated" and dataset != "synthetic":
        raise ConfigError(
            f"priors of {dataset} cannot be simulated, only the synthetic world has an exact truth",
            fix="use --source transformers",
        )
    return config.source


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


def depth_job(workspace: Workspace, config: Any, rows: Rows, name: str | None = None) -> Job:
    """Describe the pseudo-depth of `rows` in the store called `name`.

    Args:
        workspace: where frames.zarr lies.
        config: the resolved root configuration.
        rows: of each (sequence, camera); their frames must be prepared.
        name: of a second store of this kind.

    Raises:
        ConfigError: see `resolve_source`.
        CheckpointError: the model is absent, damaged or of another kind.
        MissingInputError: frames are not prepared.
    """
    priors: PriorsConfig = config.priors
    size, source = _size(config), resolve_source(priors, workspace.dataset)
    stored = priors.depth.stored
    computer: PriorComputer
    if source == "simulated":
        fingerprint = simulated_fingerprint(priors.simulated, config.seed, stored=stored)
        computer = SimulatedDepthComputer(
            workspace.root, workspace.store("frames"), size, priors.simulated, config.seed, stored=stored
        )
    else:
        from vipocc.priors.depth.depth_anything import depth_fingerprint

        fingerprint = depth_fingerprint(priors.depth)
        computer = DepthComputer(workspace.store("frames"), priors.depth)
    inputs = _from_frames(workspace, rows)
    if source == "transformers" and priors.depth.images == "raw":
        manifest = Manifest.load(workspace.manifest, dataset=workspace.dataset, root=workspace.root)
        inputs = _from_raw_images(manifest, rows), inputs[1]
        first = manifest.camera_model(*next(iter(rows)))
        computer = RawDepthComputer(
            workspace.store("frames"), priors.depth, workspace.manifest, workspace.dataset, workspace.root, size,
            (first.height, first.width),
        )  # fmt: skip
    return _job(
        workspace,
        depth_spec(workspace.dataset, size, stored),
        workspace.store("depth", depth_store_name(priors, source, name)),
        computer,
        fingerprint,
        inputs,
        size,
        _BYTES_PER_PIXEL[stored] * size[0] * size[1],
        _named(fingerprint["model"], fingerprint["licence"]),
    )


def depth_store_name(priors: PriorsConfig, source: Source, name: str | None) -> str | None:
    """Return the name of the store that depth goes into: `raw` for depth of raw images, if none was asked for."""
    return name or ("raw" if source == "transformers" and priors.depth.images == "raw" else None)


def instances_job(workspace: Workspace, config: Any, rows: Rows, name: str | None = None) -> Job:
    """Describe the instances of `rows`; arguments and errors as for `depth_job`."""
    priors: PriorsConfig = config.priors
    size, source = _size(config), resolve_source(priors, workspace.dataset)
    computer: PriorComputer
    if source == "simulated":
        classes = [entry.model_dump(mode="json") for entry in priors.sam.classes]
        fingerprint = simulated_fingerprint(priors.simulated, config.seed, classes=classes)
        computer = SimulatedInstancesComputer(
            workspace.root,
            workspace.store("frames"),
            size,
            priors.simulated,
            config.seed,
            classes=priors.sam.classes,
        )
        model = _named(fingerprint["model"], fingerprint["licence"])
    else:
        from vipocc.priors.grounded_sam.provenance import instances_fingerprint

        fingerprint = instances_fingerprint(priors.sam)
        computer = InstancesComputer(workspace.store("frames"), priors.sam)
        model = " and ".join(
            _named(fingerprint[part]["model"], fingerprint[part]["licence"]) for part in ("detector", "segmenter")
        )
    return _job(
        workspace,
        instances_spec(workspace.dataset, size, priors.sam.classes),
        workspace.store("instances", name),
        computer,
        fingerprint,
        _from_frames(workspace, rows),
        size,
        0.06 * size[0] * size[1] + 500,
        model,
    )


def anchors_job(workspace: Workspace, config: Any, rows: Rows, name: str | None = None) -> Job:
    """Describe the anchors of `rows`, drawn from the instances' store of the same `name`.

    Raises:
        UsageError: the image is too small for the anchors asked for.
        MissingInputError: instances are missing.
    """
    priors: PriorsConfig = config.priors
    size, path = _size(config), workspace.store("instances", name)
    spec = anchors_spec(workspace.dataset, size, priors.snog)
    reader = _reader(path, "vipocc priors sam")
    inputs = {
        f"{sequence}/{camera}": _refs(reader, f"{sequence}/{camera}", _held(reader, sequence, camera, some))
        for (sequence, camera), some in rows.items()
    }
    inputs = {group: refs for group, refs in inputs.items() if refs}
    if not inputs:
        raise MissingInputError(
            "there are no instances to draw anchors from", where=path, fix="run `vipocc priors sam`"
        )
    made_by = reader.fingerprint(next(iter(inputs))) or {}
    source: Source = "simulated" if made_by.get("source") == "simulated" else "transformers"
    fingerprint = anchors_fingerprint(priors.snog, list(reader.attrs["sampling"]), config.seed, source)
    frame_ids = {group: np.asarray(reader.frame_ids(group), np.int64) for group in inputs}
    return _job(
        workspace,
        spec,
        workspace.store("anchors", name),
        AnchorsComputer(path, priors.snog, config.seed),
        fingerprint,
        (inputs, frame_ids),
        size,
        4.0 * priors.snog.draws * priors.snog.anchors,
        "SNOG",
    )


_Inputs = tuple[dict[str, dict[int, list[dict[str, Any]]]], dict[str, NDArray[np.int64]]]


def _job(
    workspace: Workspace,
    spec: StoreSpec,
    path: Path,
    computer: PriorComputer,
    fingerprint: dict[str, Any],
    inputs: _Inputs,
    size: tuple[int, int],
    bytes_per_row: float,
    model: str,
) -> Job:
    per_group, frame_ids = inputs
    requests = [
        request
        for group, refs in sorted(per_group.items())
        for request in requests_for(group, sorted(refs), fingerprint, refs)
    ]
    source: Source = "simulated" if fingerprint["source"] == "simulated" else "transformers"
    return Job(
        path, spec, computer, tuple(requests), frame_ids, size, bytes_per_row, source, model, root=workspace.root
    )


def _from_frames(workspace: Workspace, rows: Rows) -> _Inputs:
    path = workspace.store("frames")
    reader = _reader(path, "vipocc data prepare")
    inputs, frame_ids = {}, {}
    for (sequence, camera), some in rows.items():
        group = f"{sequence}/{camera}"
        held = _held(reader, sequence, camera, some)
        if len(held) < len(some):
            raise MissingInputError(
                f"{len(some) - len(held)} of {len(some)} frames of {group} are not prepared",
                where=path,
                fix="run `vipocc data prepare`, or leave out --no-auto",
            )
        inputs[group] = _refs(reader, group, held)
        frame_ids[group] = np.asarray(reader.frame_ids(group), np.int64)
    return inputs, frame_ids


def _from_raw_images(manifest: Manifest, rows: Rows) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Return the references of the dataset's own images of these rows, by group."""
    return {
        f"{sequence}/{camera}": {
            int(row): [file_ref(manifest.image_path(sequence, camera, int(row)), manifest.root)] for row in some
        }
        for (sequence, camera), some in rows.items()
    }


def _refs(reader: StoreReader, group: str, rows: list[int]) -> dict[int, list[dict[str, Any]]]:
    return {row: [ref] for row, ref in row_refs(reader, group, rows).items()} if rows else {}


def _held(reader: StoreReader, sequence: str, camera: str, rows: NDArray[np.int64]) -> list[int]:
    group = f"{sequence}/{camera}"
    if not reader.has(group):
        return []
    there = reader.rows(group)
    return [int(row) for row in rows if there[row]]


def _reader(path: Path, command: str) -> StoreReader:
    return StoreReader(path, fix=f"run `{command}`")


def _size(config: Any) -> tuple[int, int]:
    height, width = config.data.image_size
    return int(height), int(width)


def _named(model: str, licence: str) -> str:
    return f"{model} ({licence})" if not licence.startswith("none") else model


def check(kind: Literal["depth", "instances", "anchors"], workspace: Workspace, config: Any) -> Source:
    """Find what is wrong with the configuration, the models or the image size before any stage runs.

    Raises:
        ConfigError, CheckpointError, UsageError: see `depth_job`, `instances_job` and `anchors_job`.
    """
    priors: PriorsConfig = config.priors
    source = resolve_source(priors, workspace.dataset)
    if kind != "depth":
        anchors_spec(workspace.dataset, _size(config), priors.snog)
    if source == "transformers" and kind == "depth":
        from vipocc.priors.depth.depth_anything import depth_fingerprint

        depth_fingerprint(priors.depth)
    elif source == "transformers" and kind == "instances":
        from vipocc.priors.grounded_sam.provenance import instances_fingerprint

        instances_fingerprint(priors.sam)
    return source


def check_cameras(cameras: str, source: Source) -> None:
    """Raise `UsageError` for fisheyes of the synthetic world: its exact truth holds the stereo pair only."""
    if cameras == "all" and source == "simulated":
        raise UsageError(
            "simulated priors exist for the stereo pair only", fix="use --cameras perspective, or --source transformers"
        )
