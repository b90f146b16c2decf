"""What preparation reads: sweeps of rows, references to them, and a look at all files before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.image_files import header_fault
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.preparation.job import Job, Json
from vipocc.errors import DataError, UsageError
from vipocc.stores import file_ref


def sweep_rows(manifest: Manifest, sequence: str, row: int, sweeps: int) -> np.ndarray:
    """Return the rows among `row` .. `row + sweeps - 1` that have a sweep, fewer where the drive ends."""
    window = np.arange(row, min(row + sweeps, manifest.rows(sequence)))
    return np.asarray(window[manifest.has_lidar(sequence)[window]])


def scan_refs(manifest: Manifest, sequence: str, rows: Sequence[int] | np.ndarray) -> list[Json]:
    """Return references to the sweeps of those rows that have one."""
    refs = []
    for row in rows:
        path = manifest.lidar_path(sequence, int(row))
        if path is not None:
            refs.append(file_ref(path, manifest.root))
    return refs


def refuse_bad_inputs(manifest: Manifest, job: Job) -> None:
    """Look at the files that a job would read before anything is written.

    Raises:
        DataError: naming the first image that is absent, empty, truncated or of another size than its calibration
            says, or the first sweep that is empty or cut within a point, or another file that cannot be read.
    """
    todo = list(_todo(job))
    for sequence in sorted({sequence for sequence, _, _ in todo}):
        job.computer.check(sequence)
    for sequence, rows, camera in todo:
        if job.kind == "frames":
            model = manifest.camera_model(sequence, camera)
            for row in rows:
                path = manifest.image_path(sequence, camera, row)
                fault = header_fault(path, (model.height, model.width))
                if fault is not None:
                    fix = adapter(manifest.dataset).way_out(path.relative_to(manifest.root).as_posix())
                    raise DataError(f"an image {fault}", where=path, fix=fix)
            continue
        sweeps = job.computer.config.sweeps if job.kind == "occupancy" else 1
        windows = [sweep_rows(manifest, sequence, row, sweeps) for row in rows]
        for row in np.unique(np.concatenate(windows)) if windows else ():
            _refuse_bad_scan(manifest, sequence, int(row))


def _todo(job: Job) -> Iterator[tuple[str, tuple[int, ...], str]]:
    for todo in job.plan().todo:
        first, second = todo.request.unit.group.split("/")
        yield (second, todo.missing, "") if job.kind == "occupancy" else (first, todo.missing, second)


def _refuse_bad_scan(manifest: Manifest, sequence: str, row: int) -> None:
    path = manifest.lidar_path(sequence, row)
    if path is None:
        raise UsageError(f"row {row} of {sequence} has no LiDAR scan")
    fix = adapter(manifest.dataset).way_out(path.relative_to(manifest.root).as_posix())
    fault = adapter(manifest.dataset).scan_fault(path, file_ref(path, manifest.root)["size"])
    if fault is not None:
        raise DataError(fault, where=path, fix=fix)
