"""Occupancy in front of the key camera, of whatever predicts it (published_system.md 7.1, 7.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DataError, UsageError
from vipocc.evaluation.figures.choosing import wanted
from vipocc.evaluation.inputs import FrameSource, frame_of
from vipocc.evaluation.metrics import OBJECT
from vipocc.evaluation.occupancy.cells import Cells, plane_cells
from vipocc.evaluation.occupancy.judging import SEEN, Judge, Verdict
from vipocc.evaluation.occupancy.tables import tables
from vipocc.evaluation.occupancy.truth import SliceTruth, TruthReader
from vipocc.evaluation.predictors.constant import constant_guesses
from vipocc.evaluation.predictors.depth_shell import depth_to_occupancy
from vipocc.evaluation.predictors.interface import Batch, OccupancyPredictor
from vipocc.evaluation.protocols import (
    BTS_SWEEPS,
    OccupancyProtocol,
    VoxelProtocol,
    slice_protocol,
)
from vipocc.evaluation.published import rows_beside
from vipocc.evaluation.report import Frame, Report, Skipped, TruthDigest
from vipocc.evaluation.stream import judged, judged_reference, stream, stream_reference
from vipocc.progress import progress

MOST_STREAMED = 200_000
"""Cells of a frame above which frames go through one by one: a group of them would fill the memory."""

Keep = Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], SliceTruth], None]
"""Takes each evaluated frame with its image, each predictor's values as the cells are arranged, and the truth.

One that has a method `wants(frame)` is called for the frames alone that this agrees to.
"""


def evaluate_occupancy(
    predictors: Sequence[OccupancyPredictor],
    source: FrameSource,
    keys: Sequence[FrameKey],
    truth: TruthReader,
    protocol: OccupancyProtocol | VoxelProtocol,
    *,
    split: str,
    device: torch.device,
    cells: Cells | None = None,
    keep: Keep | None = None,
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
        cells: where the protocol's cells are; needed for voxels alone, whose place the calibration decides.
        keep: see `Keep`.

    Raises:
        MissingInputError: no frame is prepared.
        DataError: no frame can be judged; it tells the reasons.
        UsageError: two predictors have one name, or one answers in another shape than was asked for.
    """
    if cells is None:
        if isinstance(protocol, VoxelProtocol):
            raise UsageError("voxels lie where the calibration says: give their cells")
        cells = plane_cells(protocol)
    evaluated = [*predictors, *constant_guesses()]
    names = [one.name for one in evaluated]
    if len(set(names)) < len(names):
        raise UsageError(f"two rows have one name: {', '.join(names)}", fix="name predictors differently")
    keys, skipped = source.split(keys)
    points = torch.from_numpy(cells.points).to(device)
    joined = protocol == slice_protocol(BTS_SWEEPS)

    def predict(batch: Batch) -> dict[str, Tensor]:
        found = {}
        for one in evaluated:
            found[one.name] = _ask(one, batch, points)
            if joined and hasattr(one, "depth"):
                found[one.name + SEEN] = _seen(one, batch, points)
        return found

    judge = Judge(protocol, cells, evaluated, truth)
    size = source.config.evaluation.batch_size
    if len(points) <= MOST_STREAMED:
        results = judged(stream(source, keys, size, device), predict, judge)
    else:
        results = judged_reference(stream_reference(source, keys, 1, device), predict, judge)
    digest, frames, verdicts = TruthDigest(), [], []
    with progress("occupancy", len(keys)) as bar:
        for one in results:
            frame = frame_of(source.manifest, one.key)
            if one.result.reason or one.result.truth is None:
                skipped.append(Skipped(frame, one.result.reason))
            else:
                known = one.result.truth
                digest.add(frame, *(part for part in (known.occupied, known.visible, *known[2::2]) if _is_mask(part)))
                frames.append(frame)
                # What a verdict holds of the truth is needed no more but for whether objects are known.
                verdicts.append(replace(one.result, truth=_about_objects(known)))
                if keep is not None and wanted(keep, frame):
                    shown = {p.name: one.arrays[p.name].reshape(cells.shape) for p in predictors}
                    keep(frame, source.image(one.key), shown, known)
            bar.advance(1)
    if not frames:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in Counter(s.reason for s in skipped).most_common())
        raise DataError(
            f"no frame of split {split} can be judged under {protocol.name}: {reasons or 'there is none'}",
            where=source.manifest.dataset,
            fix="prepare its ground truth, or use another --split or --protocol",
        )
    around, about_objects = _told_objects(protocol, verdicts)
    found = tables(protocol, cells, evaluated, frames, verdicts, around, source.config.evaluation)
    dataset, described = source.manifest.dataset, {**protocol.describe(), "digest": protocol.digest}
    return Report(
        kind="occupancy",
        dataset=dataset,
        split=split,
        protocol=described,
        metrics=found.metrics,
        rows=[*found.rows, *rows_beside("occupancy", dataset, split, described, len(frames))],
        used=frames,
        skipped=skipped,
        truth_digest=digest.value,
        truth_frames=digest.frames,
        breakdowns=found.breakdowns,
        notes=[*_notes(protocol), *about_objects],
    )


def _ask(one: OccupancyPredictor, batch: Batch, points: Tensor) -> Tensor:
    """Return a predictor's values [B, N]; NaN in frames that it has no prediction of."""
    there = [at for at, key in enumerate(batch.keys) if one.missing(key) is None]
    if not there:
        return torch.full((len(batch.keys), len(points)), torch.nan, device=points.device)
    found = one.occupancy(batch if len(there) == len(batch.keys) else _some(batch, there), points)
    if tuple(found.shape) != (len(there), len(points)):
        raise UsageError(
            f"'{one.name}' answers with {list(found.shape)} for {len(there)} frames and {len(points):,} points",
            fix="a predictor of occupancy returns [B, N]",
        )
    if len(there) == len(batch.keys):
        return found.float()
    values = torch.full((len(batch.keys), len(points)), torch.nan, device=points.device)
    values[there] = found.float()
    return values


def _seen(one: Any, batch: Batch, points: Tensor) -> Tensor:
    """Return which points [B, N] are nearer than a predictor's own depth."""
    seen = torch.zeros((len(batch.keys), len(points)), dtype=torch.bool, device=points.device)
    there = [at for at, key in enumerate(batch.keys) if one.missing(key) is None]
    if there:
        some = batch if len(there) == len(batch.keys) else _some(batch, there)
        for at, depth in zip(there, one.depth(some), strict=True):
            seen[at] = depth_to_occupancy(depth.to(points.device), points, batch.intrinsics_ndc[at]) == 0
    return seen


def _some(batch: Batch, chosen: Sequence[int]) -> Batch:
    return Batch(
        [batch.keys[at] for at in chosen],
        [batch.frames[at] for at in chosen],
        batch.images[list(chosen)],
        batch.intrinsics_ndc[list(chosen)],
        {name: one[list(chosen)] for name, one in batch.maps.items()},
    )


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray)


def _about_objects(truth: SliceTruth) -> SliceTruth:
    """The same truth with one cell: whether there is an object, and whether that is known."""
    objects = None if truth.objects is None else np.asarray([truth.objects.any()])
    moving = None if truth.moving is None else np.asarray([truth.moving.any()])
    nothing = np.zeros(1, np.bool_)
    return SliceTruth(nothing, nothing, objects, truth.no_objects, moving)


def _told_objects(
    protocol: OccupancyProtocol | VoxelProtocol, verdicts: Sequence[Verdict]
) -> tuple[tuple[str, ...], list[str]]:
    """The metrics around objects that a report has, and what has to be said of them."""
    if isinstance(protocol, VoxelProtocol) or not protocol.objects:
        return (), []
    truths = [one.truth for one in verdicts if one.truth is not None]
    unknown = Counter(truth.no_objects for truth in truths if truth.objects is None)
    reasons = ", ".join(f"{count:,} frames: {reason}" for reason, count in sorted(unknown.items()))
    if unknown.total() == len(truths):
        return (), [f"Object metrics are left out, for objects are unknown ({reasons})."]
    without = sum(truth.objects is not None and not truth.objects.any() for truth in truths)
    with_objects = len(truths) - unknown.total() - without
    note = (
        f"Object metrics are means over the {with_objects:,} frames with an object on the slice; {without:,} have none"
    )
    return OBJECT, [note + (f", of others objects are unknown ({reasons})." if unknown else ".")]


def _notes(protocol: OccupancyProtocol | VoxelProtocol) -> list[str]:
    notes = ["Means over frames with bootstrap intervals; published rows are others' numbers, not measured here."]
    if protocol == slice_protocol(BTS_SWEEPS):
        notes.append(
            "A cell is visible, too, where it lies before a row's own depth (of a network, what its density renders "
            "to): rows are judged on different cells, and a row whose note says LiDAR alone on others again."
        )
    notes.append("IE_rec is the recall of free space: everything free has 1.0 by definition.")
    return notes
