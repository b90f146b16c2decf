"""What every evaluation of a workspace shares: opening its stores, saying what is assumed, writing the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vipocc import config as configuration
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.manifest import Manifest
from vipocc.errors import MissingInputError, StoreError
from vipocc.evaluation.inputs import Checkpoint
from vipocc.evaluation.report import Report
from vipocc.evaluation.report.selection import selection
from vipocc.model.checkpoint import WEIGHTS
from vipocc.priors.sources import fingerprint_models
from vipocc.stores import StoreReader
from vipocc.stores.files import digest_file
from vipocc.workspace import Workspace

Say = Callable[[str], None]


def source_note(reader: StoreReader | None) -> str:
    """Return what made a store of priors, in words: the models' ids, or that they are simulated."""
    if reader is None:
        return ""
    notes = set()
    for group in reader.groups():
        made_by: Mapping[str, Any] | None = reader.fingerprint(group)
        if made_by is not None:
            models = " and ".join(str(model["model"]) for model in fingerprint_models(made_by))
            notes.add("simulated prior" if made_by.get("source") == "simulated" else models)
    return ", ".join(sorted(notes - {""}))


def ground_truth(workspace: Workspace, kind: str) -> StoreReader:
    """Open a store of ground truth; raises `MissingInputError` if the dataset has none."""
    path = workspace.store(kind)
    if not path.is_dir():
        raise MissingInputError(
            f"this dataset has no LiDAR to make {kind} ground truth of",
            where=workspace.root,
            fix="see `vipocc data check`",
        )
    return open_store(workspace, kind, "run `vipocc data prepare`")


def open_store(workspace: Workspace, kind: str, fix: str, name: str | None = None) -> StoreReader:
    """Open a store of the workspace, a second one by `name`; raises `StoreError` if it is another dataset's."""
    reader = StoreReader(workspace.store(kind, name), fix=fix)
    held = reader.attrs.get("dataset")
    if held != workspace.dataset:
        raise StoreError(
            f"the store is of dataset '{held}', not '{workspace.dataset}'",
            where=reader.path,
            fix="use the workspace it belongs to, or move it away",
        )
    return reader


def without_network(config: Any, overrides: Sequence[str] = ()) -> Any:
    """Return the configuration of an evaluation in which no checkpoint has a say: the workspace's, and overrides."""
    return configuration.load(base=configuration.as_dict(config), overrides=overrides)


def announce(
    say: Say, workspace: Workspace, found: Checkpoint | None, what: str, split: str, device: str, kinds: Sequence[str]
) -> None:
    """Say what is about to be evaluated; `found` is None where no network is."""
    told = "no network of ours (--run or --checkpoint add one)"
    if found is not None:
        told = f"checkpoint {found.describe(workspace)['path']} ({found.rule})"
    missing = f"{' and '.join(kinds)} are prepared first where they are missing" if kinds else "no store is needed"
    say(f"{what} on {workspace.dataset} {split}, {told}, on {device}; {missing}")


def finish(
    report: Report, workspace: Workspace, found: Checkpoint | None, settings: Mapping[str, Any], config: Any = None
) -> tuple[Report, Path]:
    """Put the checkpoint, the settings and the dataset's notes into the report, and write it.

    `config` is the resolved configuration, by default the checkpoint's.
    """
    if found is not None:
        report.checkpoint = {**found.describe(workspace), **_chosen(report, workspace, found)}
    report.settings = settings
    resolved = found.config if config is None and found is not None else config
    if resolved is not None:
        report.configuration = configuration.as_dict(resolved)
    report.notes = [*report.notes, *adapter(workspace.dataset).notes, selection(report)[0]]
    return report, report.save(workspace.reports)


def _chosen(report: Report, workspace: Workspace, found: Checkpoint) -> dict[str, Any]:
    """What decides whether the checkpoint was chosen by the frames that it is judged by."""
    told: dict[str, Any] = {"named": found.named, "weights_digest": digest_file(found.path / WEIGHTS)}
    if not found.named:
        told["metric"] = found.config.training.best_metric
    manifest = Manifest.load(workspace.manifest, dataset=workspace.dataset, root=workspace.root)
    used = {(frame.sequence, frame.camera, frame.row) for frame in report.used}
    for split in ("train", "val"):
        if split != report.split:
            keys = ((key.sequence, key.camera, key.row) for key in manifest.keys(split))
            told[f"shared_with_{split}"] = len(used.intersection(keys))
    return told
