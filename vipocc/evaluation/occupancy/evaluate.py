"""Scene and object occupancy on the slice in front of the key camera (published_system.md 7.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.data_manifests.ground_truth.occupancy import SLICE_GRID
from vipocc.data_manifests.manifest import FrameKey
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
from vipocc.evaluation.occupancy.slices import slice_points
from vipocc.evaluation.occupancy.truth import SliceTruth, TruthReader
from vipocc.evaluation.predictors.constant import constant_guesses
from vipocc.evaluation.predictors.interface import Batch, OccupancyPredictor
from vipocc.evaluation.protocols import OccupancyProtocol
from vipocc.evaluation.published import rows_beside
from vipocc.evaluation.report import Frame, Report, Row, Skipped, TruthDigest
from vipocc.progress import progress

METRICS = (*SCENE, *OBJECT, *OURS)
THRESHOLD = 0.5
"""Density in 1/m above which a cell counts as occupied."""
_NOTES = (
    "Means over frames with bootstrap intervals; published rows are others' numbers, not measured here.",
    "IE_rec is the recall of free space: everything free has 1.0 by definition.",
)


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
    predictors: Sequence[OccupancyPredictor],
    source: FrameSource,
    keys: Sequence[FrameKey],
    truth: TruthReader,
    protocol: OccupancyProtocol,
    *,
    split: str,
    device: torch.device,
    keep: Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], SliceTruth], None] | None = None,
) -> Report:
    """Evaluate predictors on the same frames, beside constant guesses and published rows.

    Args:
        predictors: what is evaluated, a row each, in order.
        source: the prepared images.
        keys: the frames.
        truth: the protocol's ground truth.
        protocol: what is measured; stands in the report.
        split: its name, for the report.
        device: where they compute.
        keep: called for each evaluated frame with its image, each predictor's values [160, 80] and the truth.

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

    evaluated = [*predictors, *constant_guesses()]
    values: dict[str, list[dict[str, float]]] = {one.name: [] for one in evaluated}
    broken = dict.fromkeys(values, 0)
    config = source.config.evaluation
    points = torch.from_numpy(slice_points()).to(device)
    with progress("occupancy", len(used)) as bar, torch.no_grad():
        for some, images, intrinsics in source.batches(used, config.batch_size, device):
            shown = [frame_of(source.manifest, key) for key in some]
            batch = Batch(some, shown, images, intrinsics, source.maps(some, device))
            predicted = {
                one.name: one.occupancy(batch, points).reshape(len(some), *SLICE_GRID.shape).float().cpu().numpy()
                for one in evaluated
            }
            for at, key in enumerate(some):
                for name, found_here in predicted.items():
                    finite = bool(np.isfinite(found_here[at]).all())
                    broken[name] += not finite
                    values[name].append(measure(found_here[at], truths[key]) if finite else nothing)
                if keep is not None:
                    theirs = {one.name: predicted[one.name][at] for one in predictors}
                    keep(shown[at], source.image(key), theirs, truths[key])
            bar.advance(len(some))

    interval = (config.resamples, config.confidence)
    rows = [
        Row.measured(one.name, one.kind, frames, values[one.name], *interval, note=_note(one, broken[one.name]))
        for one in evaluated
    ]
    described = {**protocol.describe(), "digest": protocol.digest}
    rows += rows_beside("occupancy", source.manifest.dataset, split, described, len(frames))
    return Report(
        kind="occupancy",
        dataset=source.manifest.dataset,
        split=split,
        protocol=described,
        metrics=metrics,
        rows=rows,
        used=frames,
        skipped=skipped,
        truth_digest=digest.value,
        truth_frames=digest.frames,
        notes=[*_NOTES, *about_objects],
    )


def _note(predictor: OccupancyPredictor, broken: int) -> str:
    return "; ".join(filter(None, (predictor.note, f"{broken} frames without a finite prediction" if broken else "")))


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
