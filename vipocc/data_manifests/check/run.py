"""The check itself: index a folder, compare it with the lists of a split, read some files. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vipocc.data_manifests.check.contents import describe_drive, find_repeats
from vipocc.data_manifests.check.cost import estimate_costs, training_bytes
from vipocc.data_manifests.check.faults import find_faults
from vipocc.data_manifests.check.lacks import report_job
from vipocc.data_manifests.check.needs import needs_of
from vipocc.data_manifests.check.report import JOBS, CheckReport
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import EVERY_DRIVE, adapter
from vipocc.data_manifests.manifest import SPLITS, Manifest
from vipocc.data_manifests.roles import also_trained, assign_roles, refuse_overlap, supervision_leaks
from vipocc.errors import UsageError


def check(
    root: Path,
    dataset: str,
    config: DataConfig,
    *,
    only: Sequence[str] | None = None,
    deep: bool = False,
    jobs: int = 1,
) -> CheckReport:
    """Compare a dataset's folder with what the configured split needs.

    Args:
        root: the dataset's folder.
        dataset: its id.
        config: split, cameras and gaps.
        only: of `JOBS`, those that the report and the search for damage are about; by default all, and every file.
        deep: read every file instead of a few of each drive and camera.
        jobs: threads that read, and cores that estimates are for.

    Raises:
        UsageError: a job is not known, or needs what is not made of this dataset.
        DataError: calibration or poses are absent or wrong, or the lists contradict one another.
    """
    reader = adapter(dataset).configured(config)
    lists = reader.lists(root, config)
    refuse_overlap(lists, reader.same_drive)
    manifest = assign_roles(Manifest(dataset, root, reader.index(root)), lists, config)
    possible = [job for job in JOBS if job != "eval-occupancy" or "occupancy" in reader.products]
    for job in only or ():
        if job not in possible:
            raise UsageError(f"{job} is not possible on {dataset}", fix=f"use --for {', '.join(possible)} or all")
    needs = [needs_of(job, manifest, reader, lists, config) for job in only or possible]
    faults, read = find_faults(manifest, reader, needs if only else None, deep=deep, threads=jobs)
    drives = [describe_drive(manifest, reader, drive, config) for drive in manifest.sequences]
    splits = [split for split in SPLITS if any(job.split == split for job in needs)]
    everywhere = [quirk.fact for quirk in reader.quirks if quirk.drive == EVERY_DRIVE]
    return CheckReport(
        dataset=dataset,
        licence=reader.licence,
        notes=[*everywhere, *reader.summary()["notes"]],
        root=str(root),
        split=lists.name,
        drives=drives,
        repeats=find_repeats(manifest),
        listed={split: lists.count(split) for split in splits},
        usable={split: sum(map(len, manifest.key_rows(split).values())) for split in splits},
        left_out={split: manifest.left_out[split] for split in splits},
        leaks=supervision_leaks(manifest) if "train" in splits else {},
        also_train=also_trained(lists, reader.same_drive) if "train" in splits else {},
        jobs=[report_job(wanted, manifest, reader) for wanted in needs],
        read=read,
        present=sum(camera.images for drive in drives for camera in drive.cameras.values())
        + sum(drive.scans for drive in drives),
        costs=estimate_costs(manifest, config, needs, reader.products, cores=jobs),
        training_bytes=sum(training_bytes(manifest, config, wanted) for wanted in needs if wanted.job == "train"),
        faults=faults,
    )
