"""The priors of a workspace against the truth: pseudo-depth and instances, in one report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vipocc import config as configuration
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.stage import ensure_indexed
from vipocc.data_manifests.views import rig
from vipocc.errors import MissingInputError
from vipocc.evaluation.depth import METRICS, SCALINGS, Contender, evaluate_depth
from vipocc.evaluation.depth.setting import Setting, prepare, split_with_truth
from vipocc.evaluation.inputs import committed, group_of, select_keys
from vipocc.evaluation.predictors.prior import PriorDepth
from vipocc.evaluation.priors.box_objects import BoxObjects
from vipocc.evaluation.priors.instances import (
    COUNTED,
    JUDGED,
    SMALLEST,
    ExactObjects,
    InstanceTables,
    ObjectReader,
    instance_tables,
)
from vipocc.evaluation.priors.row_medians import RowMedians, row_medians
from vipocc.evaluation.protocols import EXACT_DEPTH, DepthProtocol, Protocol, depth_protocol, require_truth
from vipocc.evaluation.report import Report
from vipocc.evaluation.session import Say, open_store, source_note
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace


@dataclass(frozen=True)
class InstanceProtocol(Protocol):
    """Instances of the prompt's classes against the objects that an image shows."""

    overlap: str = "intersection over union of boxes >= 0.5, surest first, each object once"
    average_precision: str = "area under precision made falling over recall, all points"
    smallest: float = SMALLEST
    """Pixels at a height of 192 that an object shows at least to be asked for."""
    masks: str = "intersection over union of the masks of matched pairs; overlaps belong to the smaller instance"


INSTANCES = InstanceProtocol("instances", 1)


def run_priors(
    workspace: Workspace,
    config: Any,
    *,
    say: Say,
    protocol: str | None = None,
    split: str = "test",
    limit: int | None = None,
    store: str | None = None,
    auto: bool = True,
) -> tuple[Report, Path]:
    """Evaluate pseudo-depth and instances on the key images of a split; result as `run_occupancy`.

    Args:
        workspace: whose stores.
        config: the workspace's configuration.
        say: takes the lines that tell what was assumed.
        protocol: of depth, by name; by default the dataset's own, of the synthetic world `exact`.
        split: train, val or test.
        limit: at most so many frames, evenly spaced.
        store: name of second stores, `depth-<store>.zarr` and `instances-<store>.zarr`.
        auto: prepare missing ground truth; else refuse.

    Raises:
        MissingInputError: there are neither pseudo-depth nor instances, or something is missing and `auto` is not set.
        UsageError: the protocol does not fit the dataset.
    """
    chosen = depth_protocol(protocol, workspace.dataset)
    if protocol is None and workspace.dataset == "synthetic":
        chosen = EXACT_DEPTH
    require_truth(workspace.dataset, chosen)
    split = split_with_truth(workspace, config, split)
    depths, instances = (_opened(workspace, kind, store, split) for kind in ("depth", "instances"))
    nothing = MissingInputError(
        f"there are neither pseudo-depth nor instances{f' named {store}' if store else ''} of split {split}",
        where=workspace.store("depth", store).parent,
        fix=f"run `vipocc priors depth --split {split}` or `vipocc priors sam --split {split}`",
    )
    stores = [one for one in (depths, instances) if one is not None]
    if not stores:
        raise nothing
    manifest = ensure_indexed(workspace, config, auto=auto)
    keys = select_keys(manifest, split, limit)
    if not any(committed(one, group_of(key), key.row) for one in stores for key in keys):
        raise nothing
    say(
        f"priors of {workspace.dataset} {split}, depth against {chosen.name}; "
        "missing ground truth is prepared first, priors are not"
    )
    if depths is not None:
        setting = prepare(workspace, config, chosen, split, limit, auto=auto, images=False, store=store)
        report = _depth_report(setting, chosen, split)
    else:
        described = {**chosen.describe(), "digest": chosen.digest}
        report = Report("priors", workspace.dataset, split, described, METRICS, [], [])
        report.notes = ["There is no pseudo-depth: depth is left out."]
    if instances is None:
        report.notes = [*report.notes, "There are no instances: they are left out."]
    else:
        labels = list(instances.attrs["labels"])
        classes, exact = config.priors.sam.classes, chosen is EXACT_DEPTH
        objects = (
            ExactObjects(manifest, classes, labels)
            if exact
            else BoxObjects.open(manifest, config.data, classes, labels, keys)
        )
        tables = instance_tables(
            manifest,
            instances,
            keys,
            labels,
            objects,
            resamples=config.evaluation.resamples,
            confidence=config.evaluation.confidence,
        )
        _add(report, tables, source_note(instances), objects)
    report.settings = {
        "resamples": config.evaluation.resamples,
        "confidence": config.evaluation.confidence,
        "store": store,
    }
    report.configuration = configuration.as_dict(config)
    report.notes = [*report.notes, *adapter(workspace.dataset).notes]
    return report, report.save(workspace.reports)


def _opened(workspace: Workspace, kind: str, name: str | None, split: str) -> StoreReader | None:
    if not workspace.store(kind, name).is_dir():
        return None
    command = "depth" if kind == "depth" else "sam"
    return open_store(workspace, kind, f"run `vipocc priors {command} --split {split}`", name)


def _depth_report(setting: Setting, protocol: DepthProtocol, split: str) -> Report:
    """Pseudo-depth under each scaling, beside the guess by image rows."""
    assert setting.priors is not None
    contenders = [Contender(PriorDepth(setting.priors, setting.prior_note), SCALINGS)]
    left = rig(setting.manifest.dataset).left
    train = [key for key in setting.manifest.keys("train") if key.camera == left]
    medians, frames = row_medians(setting.train_truth, train, protocol)
    notes = list(setting.notes)
    if frames:
        contenders.append(Contender(RowMedians(medians, frames)))
    else:
        notes.append("No training frame has true depth here: the guess by image rows is left out.")
    report = evaluate_depth(
        contenders,
        setting.source,
        setting.keys,
        setting.truth,
        protocol,
        split=split,
        device=torch.device("cpu"),
        kind="priors",
    )
    report.notes = [*report.notes, *notes]
    return report


def _add(report: Report, tables: InstanceTables, made_by: str, objects: ObjectReader | None) -> None:
    """Put the tables of instances into a report."""
    named = {f"Instances by class ({made_by})" if made_by else "Instances by class": tables.counted}
    if objects is not None and tables.judged:
        named[objects.title] = tables.judged
    report.breakdowns = {**report.breakdowns, **named}
    report.metrics = (*report.metrics, *COUNTED, *JUDGED)
    report.protocol = {**report.protocol, "instances": {**INSTANCES.describe(), "digest": INSTANCES.digest}}
    report.used = list(dict.fromkeys([*report.used, *tables.used]))
    report.skipped = [*report.skipped, *tables.skipped]
    report.notes = [*report.notes, f"{tables.empty:,} of {len(tables.used):,} images have no instance at all."]
    if objects is None:
        report.notes.append("Which instances are right is not judged: no 3D boxes of these drives are here.")
