"""What other stages call to have their frames ready: generate the synthetic world, index, prepare what is missing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vipocc.data_manifests import preparation
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.devices import check_device
from vipocc.data_manifests.manifest import SPLITS, Cameras, Manifest, read_metadata
from vipocc.data_manifests.origin import refuse_other_root
from vipocc.data_manifests.roles import assign_roles, refuse_overlap
from vipocc.data_manifests.synthetic.generate import estimate, generate, is_complete
from vipocc.errors import DataError, MissingInputError, UsageError
from vipocc.progress import duration, say, size
from vipocc.stores.space import refuse_without_space
from vipocc.workspace import Workspace

_INDEX_VERSION = 1


@dataclass(frozen=True)
class Indexed:
    """A manifest, and whether it still has to be written."""

    manifest: Manifest
    fresh: bool


def ensure_indexed(workspace: Workspace, config: Any, *, auto: bool = True) -> Manifest:
    """Return the workspace's manifest, indexing again if the dataset or what the index depends on has changed.

    Args:
        workspace: whose dataset.
        config: the root configuration.
        auto: generate an absent synthetic world, which takes minutes; else refuse.

    Raises:
        DataError: the dataset's files are wrong; nothing is written then.
        MissingInputError: there is no synthetic world and `auto` is not set.
    """
    ensure_world(workspace, config, auto=auto)
    indexed = index(workspace, config)
    if indexed.fresh:
        indexed.manifest.save(workspace.manifest)
    return indexed.manifest


def ensure_prepared(
    workspace: Workspace,
    config: Any,
    split: str = "all",
    kinds: Sequence[str] = ("frames",),
    cameras: Cameras = "all",
    *,
    auto: bool = True,
    jobs: int | None = None,
    device: str = "cpu",
    part: tuple[int, int] | None = None,
    scheduler: str | None = None,
) -> Manifest:
    """Return the manifest with everything of `kinds` in the stores that the split's samples need.

    What is missing is said in one line with an estimate, then made. A second call finds nothing to do.

    Args:
        workspace: whose dataset.
        config: the root configuration.
        split: train, val, test or all.
        kinds: of frames, lidar, occupancy.
        cameras: `perspective` leaves the fisheyes out, `every` adds cameras that no sample looks through.
        auto: make what is missing; else refuse.
        jobs: processes, by default one for each core.
        device: cpu, or cuda for what can make use of it (occupancy).
        part: only part (i, n), i from 0, of the units, for array jobs.
        scheduler: address of a dask cluster's scheduler, whose workers do it.

    Raises:
        MissingInputError: something is missing and `auto` is not set.
        DeviceError: there is no such device.
        StoreError: what is missing does not fit on the disk.
        DataError: the split has no usable sample, or an input file is wrong; nothing is written then.
    """
    refuse_unknown_kinds(workspace.dataset, kinds)
    check_device(device)
    workers = jobs or cores()
    ensure_world(workspace, config, auto=auto, jobs=workers)
    indexed = index(workspace, config)
    manifest = indexed.manifest
    require_samples(manifest, split)
    work = plan_jobs(workspace, config.data, manifest, split, kinds, cameras)
    if part is not None:
        work = [job.part(*part) for job in work]
    _carry_out(workspace, indexed, work, split, auto=auto, workers=workers, device=device, scheduler=scheduler)
    return manifest


def refuse_unknown_kinds(dataset: str, kinds: Sequence[str]) -> None:
    """Raise `UsageError` if one of the kinds is none, or cannot be prepared from the dataset."""
    products = adapter(dataset).products
    if not kinds:
        raise UsageError("there is nothing to prepare", fix=f"use {', '.join(products)}")
    for kind in kinds:
        if kind not in preparation.KINDS:
            raise UsageError(f"'{kind}' cannot be prepared", fix=f"use {', '.join(products)}")
        if kind not in products:
            raise UsageError(f"{kind} cannot be prepared from {dataset}", fix=f"use {', '.join(products)}")


def ensure_validation(workspace: Workspace, config: Any, *, jobs: int | None = None) -> None:
    """Prepare images, LiDAR depth and occupancy ground truth of the val keys that training validates on.

    They are the `data.val_occupancy` ones with scans; a dataset without any is left as it is, and one that gives no
    occupancy ground truth has its LiDAR depth alone. Errors as `ensure_prepared`.
    """
    ensure_world(workspace, config)
    indexed = index(workspace, config)
    rows = preparation.occupancy_rows(indexed.manifest, "val", config.data)
    if not rows:
        return
    place = (indexed.manifest, workspace.manifest)
    work = [
        preparation.plan_frames(*place, workspace.store("frames"), config.data, rows),
        preparation.plan_lidar(*place, workspace.store("lidar"), config.data, rows),
    ]
    if "occupancy" in adapter(workspace.dataset).products:
        # Without 3D boxes: the synthetic world's are exact truth, which training never meets.
        work.append(preparation.plan_occupancy(*place, workspace.store("occupancy"), config.data, rows, objects=False))
    _carry_out(workspace, indexed, work, "val", auto=True, workers=jobs or cores())


def _carry_out(
    workspace: Workspace,
    indexed: Indexed,
    work: Sequence[preparation.Job],
    split: str,
    *,
    auto: bool,
    workers: int,
    device: str = "cpu",
    scheduler: str | None = None,
) -> None:
    """Do what is missing of the jobs, saying so, once their inputs have been looked at."""
    todo = [(job, job.plan().missing) for job in work]
    todo = [(job, missing) for job, missing in todo if missing]
    if todo and not auto:
        what = ", ".join(f"{missing:,} rows of {job.kind}" for job, missing in todo)
        raise MissingInputError(
            f"{what} are not prepared", fix=f"run `vipocc data prepare --split {split}`, or leave --no-auto out"
        )
    for job, _ in todo:
        preparation.refuse_bad_inputs(indexed.manifest, job)
    refuse_without_space(
        workspace.store("frames").parent,
        sum(missing * job.bytes_per_row for job, missing in todo),
        " and ".join(f"{missing:,} rows of {job.kind}" for job, missing in todo),
        "use a workspace on another disk (`vipocc init -C FOLDER`)",
    )
    if indexed.fresh:
        indexed.manifest.save(workspace.manifest)
    for job, missing in todo:
        took = duration(missing * job.seconds_per_row / workers)
        say(f"preparing {missing:,} rows of {job.kind}: about {took}, {size(missing * job.bytes_per_row)}")
        for note in job.notes:
            say(f"note: {note}")
        job.run(workers, device, scheduler)


def plan_jobs(
    workspace: Workspace,
    config: DataConfig,
    manifest: Manifest,
    split: str,
    kinds: Sequence[str],
    cameras: Cameras = "all",
) -> list[preparation.Job]:
    """Return the preparation jobs of a split; writes nothing."""
    made = []
    for kind in kinds:
        place = (manifest, workspace.manifest, workspace.store(kind), config)
        if kind == "frames":
            made.append(preparation.plan_frames(*place, manifest.needed(split, cameras)))
        elif kind == "lidar":
            made.append(preparation.plan_lidar(*place, preparation.lidar_rows(manifest, split)))
        else:
            made.append(preparation.plan_occupancy(*place, preparation.occupancy_rows(manifest, split, config)))
    return made


def ensure_world(workspace: Workspace, config: Any, *, auto: bool = True, jobs: int | None = None) -> None:
    """Generate the synthetic world if the workspace's is absent or unfinished; does nothing for other datasets."""
    if workspace.dataset != "synthetic" or is_complete(workspace.root, config.data.world):
        return
    if not auto:
        raise MissingInputError(
            "the synthetic world is not generated",
            where=workspace.root,
            fix="run `vipocc data prepare`, or leave --no-auto out",
        )
    workers = jobs or cores()
    seconds, count = estimate(config.data.world, workers)
    frames = config.data.world.frames
    say(f"generating a synthetic world of {frames:,} frames: about {duration(seconds)}, {size(count)}")
    generate(workspace.root, config.data.world, workers)


def index(workspace: Workspace, config: Any, *, again: bool = False) -> Indexed:
    """Return the manifest that is on disk if it still holds, else a new one that is not written yet.

    Args:
        workspace: whose dataset.
        config: the root configuration.
        again: index anew in any case.

    Raises:
        StoreError: the root was changed to a folder of other files than the stores were made from.
    """
    refuse_other_root(workspace)
    reader = adapter(workspace.dataset).configured(config.data)
    lists = reader.lists(workspace.root, config.data)
    refuse_overlap(lists, reader.same_drive)
    digest = _digest(workspace.dataset, reader.state(workspace.root), lists.digest(), config.data)
    if not again and _holds(workspace.manifest, workspace.dataset, digest):
        return Indexed(Manifest.load(workspace.manifest, dataset=workspace.dataset, root=workspace.root), fresh=False)
    manifest = Manifest(workspace.dataset, workspace.root, reader.index(workspace.root), digest=digest)
    return Indexed(assign_roles(manifest, lists, config.data), fresh=True)


def require_listed(workspace: Workspace, config: Any, split: str) -> None:
    """Raise `DataError` if a split lists no sample at all, whatever is on disk: nothing could be made for it.

    For commands that have other things to refuse, such as an absent model, before they come to the samples.
    """
    if workspace.dataset == "synthetic":
        return  # its lists are generated with it
    lists = adapter(workspace.dataset).configured(config.data).lists(workspace.root, config.data)
    if any(lists.count(one) for one in (SPLITS if split == "all" else (split,))):
        return
    filled = " and ".join(one for one in SPLITS if lists.count(one))
    raise DataError(
        f"the split '{lists.name}' of {workspace.dataset} has no {split} samples, only {filled}",
        fix=f"set data.split to a folder with {split}_files.txt",
    )


def require_samples(manifest: Manifest, split: str) -> None:
    """Raise `DataError` saying why, if a split has no usable sample."""
    if manifest.key_rows(split):
        return
    counts: dict[str, int] = {}
    for one in SPLITS if split == "all" else (split,):
        for reason, count in manifest.left_out.get(one, {}).items():
            counts[reason] = counts.get(reason, 0) + count
    why = "; ".join(f"{reason}: {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
    others = " or ".join(one for one in SPLITS if split != "all" and manifest.key_rows(one))
    raise DataError(
        f"no sample of split {split} can be used ({why or 'it lists none'})",
        where=manifest.root,
        fix=(f"use --split {others}, " if others else "")
        + "see what to download with `vipocc data check`, or set data.split"
        + (" (or data.fisheye=false)" if any("fisheye" in reason for reason in counts) else ""),
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _holds(path: Path, dataset: str, digest: str) -> bool:
    try:
        metadata = read_metadata(path)
    except MissingInputError:
        return False
    except DataError:
        return False  # damaged or of another version: it is derived data, so it is made again
    return bool(metadata["dataset"] == dataset and metadata["digest"] == digest)


def _digest(dataset: str, state: str, lists: str, config: DataConfig) -> str:
    parts = {
        "version": _INDEX_VERSION,
        "dataset": dataset,
        "state": state,
        "lists": lists,
        **config.model_dump(include={"fisheye", "fisheye_offset", "max_gap_ids", "max_gap_metres"}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
