"""Scene and object occupancy on the slice in front of the key camera (published_system.md 7.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID, level_from_world, slice_grid
from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation import published
from vipocc.evaluation.inputs import FrameSource, frame_of
from vipocc.evaluation.metrics import (
    OBJECT,
    OURS,
    SCENE,
    density_precision,
    judged_rows,
    object_metrics,
    occupancy_metrics,
)
from vipocc.evaluation.occupancy.truth import SliceTruth, TruthReader
from vipocc.evaluation.protocols import PUBLISHED_OCCUPANCY, OccupancyProtocol
from vipocc.evaluation.report import Frame, Kind, Report, Row, Skipped, TruthDigest
from vipocc.geometry.poses import invert, transform_points
from vipocc.model.network import ViPOcc
from vipocc.progress import progress

METRICS = (*SCENE, *OBJECT, *OURS)
THRESHOLD = 0.5
"""Density in 1/m above which a cell counts as occupied."""


def slice_points() -> NDArray[np.float32]:
    """Return the queried points [12800, 3] in the key camera's frame; rows from far to near, columns left to right.

    The grid stands in the level frame, which the camera looks 5 degrees down in (golden G10).
    """
    level_from_camera = level_from_world(np.eye(4))
    return transform_points(invert(level_from_camera), slice_grid()).astype(np.float32)


@torch.no_grad()
def predict_density(
    model: ViPOcc, images: Tensor, intrinsics_ndc: Tensor, maps: Mapping[str, Tensor] | None = None
) -> NDArray[np.float32]:
    """Return the density [B, 160, 80] in 1/m on the slice, of images [B, 3, H, W] in [0, 1].

    maps: per-pixel maps of the images, by name, for a density head that asks for them.
    """
    points = torch.from_numpy(slice_points()).to(images.device).expand(len(images), -1, -1)
    density = model.density(model.encode_keys(images, intrinsics_ndc, maps), points, intrinsics_ndc)
    return np.asarray(density.reshape(len(images), *SLICE_GRID.shape).float().cpu().numpy())


def frame_metrics(density: NDArray[Any], truth: SliceTruth) -> dict[str, float]:
    """Return all metrics of a frame: published scene and object metrics, balanced accuracy, average precision.

    Object metrics are NaN where objects are unknown or none is on the slice.
    """
    predicted = np.asarray(density > THRESHOLD)
    scene = occupancy_metrics(predicted, truth.occupied, truth.visible)
    around = dict.fromkeys(OBJECT, math.nan)
    if truth.objects is not None:
        around = object_metrics(predicted, truth.occupied, truth.visible, truth.objects)
    values = {**scene, **around, "average_precision": density_precision(density, truth.occupied, truth.visible)}
    return {name: values[name] for name in METRICS}


def evaluate_occupancy(
    models: Mapping[str, tuple[Kind, ViPOcc]],
    source: FrameSource,
    keys: Sequence[FrameKey],
    truth: TruthReader,
    protocol: OccupancyProtocol,
    *,
    split: str,
    device: torch.device,
    keep: Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], SliceTruth], None] | None = None,
) -> Report:
    """Evaluate networks on the same frames, beside constant guesses and published rows.

    Args:
        models: networks by the name of their row.
        source: the prepared images.
        keys: the frames.
        truth: the protocol's ground truth.
        protocol: what is measured; stands in the report.
        split: its name, for the report.
        device: where the networks are.
        keep: called for each evaluated frame with its image, each network's density [160, 80] and the truth.

    Raises:
        MissingInputError: no frame is prepared.
    """
    keys, skipped = source.split(keys)
    truths: dict[FrameKey, SliceTruth] = {}
    for key in keys:
        read = truth(key)
        reason = read if isinstance(read, str) else _unusable(read)
        if reason:
            skipped.append(Skipped(frame_of(source.manifest, key), reason))
        elif not isinstance(read, str):
            truths[key] = read
    used = list(truths)

    digest, frames = TruthDigest(), [frame_of(source.manifest, key) for key in used]
    for frame, key in zip(frames, used, strict=True):
        found = truths[key]
        digest.add(frame, found.occupied, found.visible, *(() if found.objects is None else (found.objects,)))
    metrics, about_objects = _told_objects(list(truths.values()))
    nothing = dict.fromkeys(metrics, math.nan)

    def measure(density: NDArray[Any], truth: SliceTruth) -> dict[str, float]:
        every = frame_metrics(density, truth)
        return {name: every[name] for name in metrics}

    values: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    broken = dict.fromkeys(models, 0)
    config = source.config.evaluation
    with progress("occupancy", len(used)) as bar:
        for some, images, intrinsics in source.batches(used, config.batch_size, device):
            maps = source.maps(some, device)
            densities = {name: predict_density(model, images, intrinsics, maps) for name, (_, model) in models.items()}
            for at, key in enumerate(some):
                for name, density in densities.items():
                    finite = bool(np.isfinite(density[at]).all())
                    broken[name] += not finite
                    values[name].append(measure(density[at], truths[key]) if finite else nothing)
                if keep is not None:
                    shown = {name: density[at] for name, density in densities.items()}
                    keep(frame_of(source.manifest, key), source.image(key), shown, truths[key])
            bar.advance(len(some))

    interval = (config.resamples, config.confidence)
    rows = [
        Row.measured(
            name,
            kind,
            frames,
            values[name],
            *interval,
            note=f"{broken[name]} frames without a finite density" if broken[name] else "",
        )
        for name, (kind, _) in models.items()
    ]
    for name, guess in (("everything free", 0.0), ("everything occupied", 1.0)):
        constant = np.full(SLICE_GRID.shape, guess, dtype=np.float32)
        rows.append(Row.measured(name, "constant", frames, [measure(constant, truths[key]) for key in used], *interval))
    rows += [Row.published(name, means, published.NOTE) for name, means in published.OCCUPANCY.items()]
    return Report(
        kind="occupancy",
        dataset=source.manifest.dataset,
        split=split,
        protocol={**protocol.describe(), "digest": protocol.digest},
        metrics=metrics,
        rows=rows,
        used=frames,
        skipped=skipped,
        truth_digest=digest.value,
        notes=[*_notes(source.manifest.dataset, protocol), *about_objects],
    )


def _unusable(truth: SliceTruth) -> str:
    return "no visible cell" if judged_rows(truth.visible) is None else ""


def _told_objects(truths: Sequence[SliceTruth]) -> tuple[tuple[str, ...], list[str]]:
    """The metrics of a report, and what has to be said of those around objects."""
    unknown = Counter(truth.no_objects for truth in truths if truth.objects is None)
    reasons = ", ".join(f"{count:,} frames: {reason}" for reason, count in sorted(unknown.items()))
    if unknown.total() == len(truths):
        return tuple(name for name in METRICS if name not in OBJECT), (
            [f"Object metrics are left out, for objects are unknown ({reasons})."] if truths else []
        )
    without = sum(truth.objects is not None and not truth.objects.any() for truth in truths)
    with_objects = len(truths) - unknown.total() - without
    note = (
        f"Object metrics are means over the {with_objects:,} frames with an object on the slice; {without:,} have none"
    )
    return METRICS, [note + (f", of others objects are unknown ({reasons})." if unknown else ".")]


def _notes(dataset: str, protocol: OccupancyProtocol) -> list[str]:
    notes = ["Means over frames with bootstrap intervals; published rows are others' numbers, not measured here."]
    if dataset != "kitti-360" or protocol.name not in ("slice-300", PUBLISHED_OCCUPANCY.name):
        notes.append("Published rows are of KITTI-360 under slice-300 and not comparable with the others.")
    elif protocol.truth == "lidar":
        notes.append("Published object metrics are on object maps of unknown making and not comparable with ours.")
    notes.append("IE_rec is the recall of free space: everything free has 1.0 by definition.")
    return notes
