"""What the stages will cost: rows are counted, bytes and seconds estimated from figures that were measured.

Seconds are those of all cores of this machine for what the CPU does, and of one H100-class GPU for the networks
(bfloat16 at a large batch: Depth Anything V2 Large 59 images a second, Grounding DINO 60, SAM ViT-H 30). A command's
`--dry-run` measures on the device at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vipocc.data_manifests import rates
from vipocc.data_manifests.check.needs import Needs
from vipocc.data_manifests.check.report import Cost
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import rig

_DEPTH_SECONDS = 1 / 59
_INSTANCES_SECONDS = 1 / 60 + 1 / 30
_ANCHORS_SECONDS = 0.025

#: Bytes of a stored pixel of float16 depth and of instance masks, of instance records, of 25 draws of 64 anchors.
_DEPTH_PIXEL, _MASK_PIXEL, _RECORD_BYTES, _ANCHORS_BYTES = 0.85, 0.06, 500, 4 * 25 * 64


def estimate_costs(
    manifest: Manifest, config: DataConfig, jobs: Sequence[Needs], products: Sequence[str], *, cores: int
) -> list[Cost]:
    """Return what it costs to make everything that some jobs read, stage by stage.

    Args:
        manifest: of the dataset, with roles.
        config: size of prepared images, sweeps, frames of validation.
        jobs: what is to be run.
        products: the kinds of stores that can be prepared of this dataset.
        cores: of this machine.
    """
    names = {job.job for job in jobs}
    here, gpu = f"{cores} cores", "one H100-class GPU"
    pixels = float(np.prod(config.image_size))
    images = _images(manifest, jobs)
    rows = sum(len(of) for of in images.values())
    raw = sum(len(of) * _raw_pixels(manifest, *place) for place, of in images.items())
    costs = [
        Cost(
            "frames",
            rows,
            rows * pixels * rates.FRAME_BYTES_PER_PIXEL,
            (rates.DECODE_SECONDS_PER_PIXEL * raw + rows * pixels * rates.WRITE_SECONDS_PER_PIXEL) / cores,
            here,
        )
    ]
    if "lidar" in products and names & {"validation", "eval-depth"}:
        scans = _swept(manifest, jobs, ("validation", "eval-depth"))
        costs.append(
            Cost(
                "lidar", scans, scans * pixels * rates.LIDAR_BYTES_PER_PIXEL, scans * rates.SWEEP_SECONDS / cores, here
            )
        )
    if "occupancy" in products and names & {"validation", "eval-occupancy"}:
        truth = _swept(manifest, jobs, ("eval-occupancy",))
        truth += min(config.val_occupancy, _swept(manifest, jobs, ("validation",)))
        costs.append(
            Cost(
                "occupancy",
                truth,
                truth * rates.OCCUPANCY_BYTES_PER_ROW,
                truth * config.sweeps * rates.SWEEP_SECONDS / cores,
                here,
            )
        )
    if names & {"priors", "train"}:
        stereo = _images(manifest, [job for job in jobs if job.job in ("priors", "train")], manifest.dataset)
        of = sum(len(some) for some in stereo.values())
        depth, masks = _DEPTH_PIXEL * pixels, _MASK_PIXEL * pixels + _RECORD_BYTES
        costs += [
            Cost("depth", of, of * depth, of * _DEPTH_SECONDS, gpu),
            Cost("instances", of, of * masks, of * _INSTANCES_SECONDS, gpu),
            Cost("anchors", of, of * _ANCHORS_BYTES, of * _ANCHORS_SECONDS / cores, here),
        ]
    return costs


def training_bytes(manifest: Manifest, config: DataConfig, train: Needs) -> float:
    """Return the bytes of the stores that training reads: its images and the priors of its stereo frames."""
    pixels = float(np.prod(config.image_size))
    every = sum(len(rows) for rows in _images(manifest, [train]).values())
    stereo = sum(len(rows) for rows in _images(manifest, [train], manifest.dataset).values())
    priors = (_DEPTH_PIXEL + _MASK_PIXEL) * pixels + _RECORD_BYTES + _ANCHORS_BYTES
    return every * pixels * rates.FRAME_BYTES_PER_PIXEL + stereo * priors


def _images(
    manifest: Manifest, jobs: Sequence[Needs], stereo_of: str | None = None
) -> dict[tuple[str, str], np.ndarray]:
    """Return the rows of images that are there and that any of the jobs reads; of the key cameras only, if asked."""
    parts: dict[tuple[str, str], list[np.ndarray]] = {}
    for job in jobs:
        for (drive, camera), rows in job.images.items():
            if stereo_of is None or camera in rig(stereo_of).keys:
                parts.setdefault((drive, camera), []).append(rows[manifest.has_image(drive, camera)[rows]])
    return {place: np.unique(np.concatenate(rows)) for place, rows in parts.items()}


def _swept(manifest: Manifest, jobs: Sequence[Needs], names: Sequence[str]) -> int:
    """Return how many listed frames of the left camera have an image and a sweep of their own, for some jobs."""
    left = rig(manifest.dataset).left
    places: dict[str, list[np.ndarray]] = {}
    for job in jobs:
        if job.job not in names:
            continue
        for (drive, camera), rows in job.keys.items():
            if camera == left:
                there = manifest.has_image(drive, camera)[rows] & manifest.has_lidar(drive)[rows]
                places.setdefault(drive, []).append(rows[there])
    return sum(len(np.unique(np.concatenate(rows))) for rows in places.values())


def _raw_pixels(manifest: Manifest, drive: str, camera: str) -> int:
    model = manifest.camera_model(drive, camera)
    return model.width * model.height
