"""What a prior of a split amounts to: which rows of which store, from what, computed by whom.

The commands and the demo describe a job first (which checks configuration, models and inputs and writes nothing), then
run it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vipocc.data_manifests.manifest import Manifest
from vipocc.priors import inputs
from vipocc.priors.anchors import AnchorsComputer, anchors_fingerprint
from vipocc.priors.config import PriorsConfig
from vipocc.priors.inputs import Refs, Rows
from vipocc.priors.job import Job, Recipe, model_line, shown_kind
from vipocc.priors.sources import DepthSource, InstanceSource, Source, make_source
from vipocc.priors.store_specs import anchors_spec, depth_spec, instances_spec
from vipocc.stores import StoreReader, StoreSpec, requests_for
from vipocc.workspace import Workspace

PriorKind = Literal["depth", "instances", "anchors"]

_BYTES_PER_PIXEL = {"float16": 0.85, "float32": 2.3}
"""Of stored depth, compressed (dependencies: 75 to 106 kB for 192x640 in float16, 270 to 314 kB in float32)."""


def describe(kind: PriorKind, workspace: Workspace, config: Any, rows: Rows, name: str | None = None) -> Job:
    """Describe the job of a kind of prior: `depth_job`, `instances_job` or `anchors_job`."""
    return {"depth": depth_job, "instances": instances_job, "anchors": anchors_job}[kind](workspace, config, rows, name)


def depth_job(workspace: Workspace, config: Any, rows: Rows, name: str | None = None) -> Job:
    """Describe the pseudo-depth of `rows` in the store called `name`.

    Args:
        workspace: where frames.zarr lies.
        config: the resolved root configuration.
        rows: of each (sequence, camera); their frames must be prepared.
        name: of a second store of this kind.

    Raises:
        UsageError, ConfigError: see `make_source`.
        CheckpointError: the model is absent, damaged or of another kind.
        MissingInputError: frames are not prepared.
    """
    source = _depth(workspace, config)
    refs = inputs.prepared_images(workspace, rows)
    if source.images == "raw":
        manifest = Manifest.load(workspace.manifest, dataset=workspace.dataset, root=workspace.root)
        refs = inputs.raw_images(manifest, rows)
    spec = depth_spec(workspace.dataset, source.size, source.stored)
    path = workspace.store("depth", store_name(source, name))
    return _job(workspace, spec, path, source, refs)


def store_name(source: Source, name: str | None) -> str | None:
    """Return the name of the store that depth goes into: `raw` for depth of raw images, if none was asked for."""
    return name or ("raw" if isinstance(source, DepthSource) and source.images == "raw" else None)


def instances_job(workspace: Workspace, config: Any, rows: Rows, name: str | None = None) -> Job:
    """Describe the instances of `rows`; arguments and errors as for `depth_job`."""
    source = _instances(workspace, config)
    refs = inputs.prepared_images(workspace, rows)
    spec = instances_spec(workspace.dataset, source.size, source.classes)
    return _job(workspace, spec, workspace.store("instances", name), source, refs)


def anchors_job(workspace: Workspace, config: Any, rows: Rows, name: str | None = None) -> Job:
    """Describe the anchors of `rows`, drawn from the instances' store of the same `name`.

    Raises:
        UsageError: the image is too small for the anchors asked for.
        MissingInputError: instances are missing.
    """
    snog, path = config.priors.snog, workspace.store("instances", name)
    spec = anchors_spec(workspace.dataset, _size(config), snog)
    refs = inputs.instance_rows(path, rows)
    reader = StoreReader(path)
    made_by = reader.fingerprint(next(iter(refs)))
    assert made_by is not None, "a store that holds rows says what made them"
    fingerprint = anchors_fingerprint(snog, list(reader.attrs["sampling"]), config.seed, made_by["source"])
    requests = [r for group, of in sorted(refs.items()) for r in requests_for(group, sorted(of), fingerprint, of)]
    made = replace(anchors_recipe(workspace, config, name), shown=shown_kind("anchors", made_by["source"]))
    ids = inputs.frame_ids(path, refs)
    return Job(workspace.store("anchors", name), spec, made, tuple(requests), ids, workspace.root)


def anchors_recipe(workspace: Workspace, config: Any, name: str | None = None) -> Recipe:
    """Return how anchors are drawn from the instances called `name` and what each image takes."""
    snog = config.priors.snog
    computer = AnchorsComputer(workspace.store("instances", name), snog, config.seed)
    return Recipe("anchors", "SNOG", computer, _size(config), 4.0 * snog.draws * snog.anchors, accelerated=False)


def source_recipe(source: Source) -> Recipe:
    """Return how a source makes its prior and what each image takes; raises what `Source.fingerprint` raises."""
    pixels = source.size[0] * source.size[1]
    stored = _BYTES_PER_PIXEL[source.stored] * pixels if isinstance(source, DepthSource) else 0.06 * pixels + 500
    shown, model = shown_kind(source.kind, source.name), model_line(source.fingerprint())
    return Recipe(shown, model, source.computer(), source.size, stored, source.accelerated)


def check(kind: PriorKind, workspace: Workspace, config: Any, cameras: Literal["perspective", "all"]) -> Source | None:
    """Find what is wrong with the configuration, the models or the image size before any stage runs.

    Returns the source of depth or instances, None for anchors.

    Raises:
        ConfigError, CheckpointError, UsageError: see `depth_job`, `instances_job` and `anchors_job`.
    """
    priors: PriorsConfig = config.priors
    if kind != "depth":
        anchors_spec(workspace.dataset, _size(config), priors.snog)
    if kind == "anchors":
        return None
    source = make_source(kind, workspace, config)
    source.check(cameras)
    source.fingerprint()
    return source


def _job(workspace: Workspace, spec: StoreSpec, path: Path, source: Source, refs: Refs) -> Job:
    fingerprint = source.fingerprint()
    requests = [r for group, of in sorted(refs.items()) for r in requests_for(group, sorted(of), fingerprint, of)]
    ids = inputs.frame_ids(workspace.store("frames"), refs)
    return Job(path, spec, source_recipe(source), tuple(requests), ids, workspace.root)


def _depth(workspace: Workspace, config: Any) -> DepthSource:
    source = make_source("depth", workspace, config)
    assert isinstance(source, DepthSource)
    return source


def _instances(workspace: Workspace, config: Any) -> InstanceSource:
    source = make_source("instances", workspace, config)
    assert isinstance(source, InstanceSource)
    return source


def _size(config: Any) -> tuple[int, int]:
    height, width = config.data.image_size
    return int(height), int(width)
