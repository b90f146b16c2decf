"""What a job lacks, and the downloads that fill the gaps; files that were never published are counted apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vipocc.data_manifests.check.needs import Needs, ready
from vipocc.data_manifests.check.report import JobReport, Lack
from vipocc.data_manifests.datasets import Adapter, FileKind
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.splits import expand
from vipocc.data_manifests.views import rig

_WHAT: dict[FileKind, str] = {
    "poses": "poses",
    "images": "images",
    "fisheyes": "fisheye images",
    "scans": "LiDAR sweeps",
}


@dataclass
class _Tally:
    missing: int = 0
    needed: int = 0
    unpublished: int = 0
    drives: set[str] = field(default_factory=set)


def report_job(wanted: Needs, manifest: Manifest, reader: Adapter) -> JobReport:
    """Return what a job would run on, what it lacks and what nobody has."""
    tallies = {kind: _Tally() for kind in wanted.kinds}
    for kind, drive, ids, missing in _files(wanted, manifest):
        tally = tallies[kind]
        gone = missing & np.isin(ids, _unpublished(reader, drive, kind)) if missing.any() else missing
        lacking = int((missing & ~gone).sum())
        tally.needed += len(ids) - int(gone.sum())
        tally.missing += lacking
        tally.unpublished += int(gone.sum())
        if lacking:
            tally.drives.add(drive)
    lacks = [
        Lack(_WHAT[kind], tally.missing, tally.needed, _downloads(reader, kind, tally.drives))
        for kind, tally in tallies.items()
        if tally.missing
    ]
    unpublished = {_WHAT[kind]: tally.unpublished for kind, tally in tallies.items() if tally.unpublished}
    listed = sum(len(ids) for ids in wanted.listed.values())
    return JobReport(wanted.job, wanted.split, listed, ready(wanted, manifest), lacks, unpublished)


def _files(wanted: Needs, manifest: Manifest) -> Iterator[tuple[FileKind, str, np.ndarray, np.ndarray]]:
    """Yield (kind, drive, frame ids [N], bool [N] whether the file is missing) of everything that a job reads."""
    known = set(manifest.sequences)
    for drive, ids in wanted.listed.items():
        if drive in known:
            yield "poses", drive, ids, ~np.isin(ids, manifest.frame_ids(drive))
            continue
        # Of a drive that is not there, one file of each kind for every sample is as much as can be known.
        for kind in wanted.kinds:
            yield kind, drive, ids, np.ones(len(ids), bool)
    fisheyes = set(rig(manifest.dataset).fisheye.values())
    for (drive, camera), rows in wanted.images.items():
        image: FileKind = "fisheyes" if camera in fisheyes else "images"
        yield image, drive, manifest.frame_ids(drive)[rows], ~manifest.has_image(drive, camera)[rows]
    for drive, rows in wanted.scans.items():
        yield "scans", drive, manifest.frame_ids(drive)[rows], ~manifest.has_lidar(drive)[rows]


def _unpublished(reader: Adapter, drive: str, kind: FileKind) -> np.ndarray:
    ranges = [quirk.unpublished[kind] for quirk in reader.quirks_of(drive) if kind in quirk.unpublished]
    return expand(" ".join(ranges))


def _downloads(reader: Adapter, kind: FileKind, drives: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for drive in sorted(drives):
        found.setdefault(reader.download(kind, drive), []).append(drive)
    return found
