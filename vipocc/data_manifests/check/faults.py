"""Reading files to find those that are there and cannot be used: a few of each folder, or all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice

import numpy as np

from vipocc.data_manifests.check.needs import Needs
from vipocc.data_manifests.check.report import Fault
from vipocc.data_manifests.datasets import Adapter
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.manifest import Manifest
from vipocc.errors import DataError
from vipocc.progress import progress

#: Files of each drive and camera that are read when not all are.
SAMPLES = 4

#: Files that threads are given at once: the list of all files is never in memory.
_AT_ONCE = 256

#: (drive, camera or "" for its LiDAR, rows).
Folder = tuple[str, str, np.ndarray]


def find_faults(
    manifest: Manifest, reader: Adapter, jobs: Sequence[Needs] | None, *, deep: bool, threads: int
) -> tuple[list[Fault], int]:
    """Return the damaged files of a dataset, and how many files were read whole, empty ones included.

    Args:
        manifest: of the dataset.
        reader: its adapter.
        jobs: look only at files that one of these reads; None for all files of posed frames.
        deep: read every file instead of a few, evenly spaced, of each drive and camera.
        threads: how many read at once.
    """
    whole = list(_folders(manifest, jobs))
    chosen = [(drive, camera, rows if deep else _few(rows)) for drive, camera, rows in whole]
    total = sum(len(rows) for _, _, rows in chosen)
    faults = list(_empty(manifest, reader, jobs))
    empty = len(faults)
    files = ((drive, camera, int(row)) for drive, camera, rows in chosen for row in rows)
    shown = progress("reading", total, "files") if deep else nullcontext()
    with ThreadPoolExecutor(max(1, threads)) as pool, shown as bar:
        while some := list(islice(files, _AT_ONCE)):
            faults += [found for found in pool.map(lambda file: _read(manifest, reader, *file), some) if found]
            if bar is not None:
                bar.advance(len(some), damaged=len(faults))
    return faults, total + empty


def _folders(manifest: Manifest, jobs: Sequence[Needs] | None) -> Iterator[Folder]:
    """Yield the folders with the rows whose file is there, empty images left out."""
    for drive in manifest.sequences:
        for camera in manifest.cameras(drive):
            yield drive, camera, _of_jobs(np.flatnonzero(manifest.file_sizes(drive, camera) > 0), jobs, drive, camera)
        yield drive, "", _of_jobs(np.flatnonzero(manifest.has_lidar(drive)), jobs, drive, "")


def _of_jobs(rows: np.ndarray, jobs: Sequence[Needs] | None, drive: str, camera: str) -> np.ndarray:
    """Return those of the rows whose file one of the jobs reads."""
    if jobs is None:
        return rows
    none = np.zeros(0, np.int64)
    read = [job.images.get((drive, camera), none) if camera else job.scans.get(drive, none) for job in jobs]
    return rows[np.isin(rows, np.concatenate(read))] if read else none


def _few(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= SAMPLES:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, SAMPLES).astype(int)])


def _empty(manifest: Manifest, reader: Adapter, jobs: Sequence[Needs] | None) -> Iterator[Fault]:
    # The index knows all sizes, so every empty image is found without reading any.
    for drive in manifest.sequences:
        for camera in manifest.cameras(drive):
            rows = np.flatnonzero(manifest.file_sizes(drive, camera) == 0)
            for row in _of_jobs(rows, jobs, drive, camera):
                relative = manifest.image_path(drive, camera, int(row)).relative_to(manifest.root).as_posix()
                yield Fault(relative, "an image is empty", reader.way_out(relative))


def _read(manifest: Manifest, reader: Adapter, drive: str, camera: str, row: int) -> Fault | None:
    path = manifest.image_path(drive, camera, row) if camera else manifest.lidar_path(drive, row)
    if path is None:
        return None
    relative = path.relative_to(manifest.root).as_posix()
    fix = reader.way_out(relative)
    try:
        if camera:
            model = manifest.camera_model(drive, camera)
            read_image(path, (model.height, model.width), fix)
        else:
            reader.read_scan(path)
    except DataError as error:
        return Fault(relative, error.what, fix)
    return None
