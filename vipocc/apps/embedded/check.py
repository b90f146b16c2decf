"""A quick check of trained models on held-out drives, through the engines that priors run through.

`vipocc eval priors` is the measure; this one says right after training whether the weights are worth keeping.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.apps.embedded.architectures import MAX_DEPTH
from vipocc.apps.embedded.pictures import KINDS, Pictures
from vipocc.priors.config import DepthConfig, SamConfig
from vipocc.priors.embedded import EmbeddedModel
from vipocc.priors.grounded_sam.boxes import overlap
from vipocc.priors.grounded_sam.records import Detections

_CAR_PIXELS = 32
"""Fewest pixels at 192x640 of a car that has to be found; whoever finds a smaller one is not wrong."""
_MASK_PIXELS = 32
_FOR_ROWS = 200
"""Pictures that are enough for the constant depth of each row."""


def check(
    name: EmbeddedModel, folder: Path, pictures: Pictures, train: Pictures, device: str = "cpu"
) -> dict[str, Any]:
    """Return what the model in `folder` reaches on held-out pictures; `train` is for the baseline of depth alone."""
    if name == "depth":
        return check_depth(folder, pictures, train, device)
    return check_detector(folder, pictures, device) if name == "detector" else check_segmenter(folder, pictures, device)


def check_depth(folder: Path, pictures: Pictures, train: Pictures, device: str) -> dict[str, Any]:
    """Return the mean relative error of depth, and that of the best constant of each row of pixels."""
    from vipocc.priors.depth.depth_anything import DepthAnything

    model = DepthAnything(DepthConfig(model=str(folder), stored="float32", batch_size=4), device)
    rows = row_depths(train)
    found = _in_parts(model, pictures.image)
    truth = pictures.depth.astype(np.float32)
    error = float(np.mean([relative_error(a, b) for a, b in zip(found, truth, strict=True)]))
    constant = np.broadcast_to(rows[:, None], truth.shape[1:])
    baseline = float(np.mean([relative_error(constant, one) for one in truth]))
    better = round(1 - error / baseline, 4)
    return {"abs_rel": round(error, 4), "abs_rel_constant_rows": round(baseline, 4), "below_the_constant_rows": better}


def row_depths(pictures: Pictures) -> NDArray[np.float32]:
    """Return the depth [H] of each row of pixels whose mean relative error on `pictures` is least.

    It is the median weighted by 1 / depth: of |c / d - 1| the slope in c is 1 / d.
    """
    depth = pictures.depth[:: max(1, len(pictures.depth) // _FOR_ROWS)].astype(np.float32)
    best = np.full(depth.shape[1], MAX_DEPTH, np.float32)
    for row in range(depth.shape[1]):
        values = depth[:, row][_measured(depth[:, row])]
        if len(values):
            values = np.sort(values)
            weight = np.cumsum(1 / values.astype(np.float64))
            best[row] = values[np.searchsorted(weight, weight[-1] / 2)]
    return best


def relative_error(depth: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]]) -> float:
    """Return the mean of |depth - truth| / truth over the pixels whose true depth is below 80 m."""
    seen = _measured(truth)
    return float(np.mean(np.abs(depth[seen] - truth[seen]) / truth[seen]))


def check_detector(folder: Path, pictures: Pictures, device: str) -> dict[str, Any]:
    """Return the average precision of cars and of persons at an overlap of .5."""
    from vipocc.priors.grounded_sam.detector import GroundingDino

    figures: dict[str, Any] = {}
    # At the default thresholds, as stores have it; and with unsure boxes kept, to tell what another threshold is worth.
    stored = SamConfig(detector=str(folder), batch_size=4)
    unsure = stored.model_copy(update={"box_threshold": 0.1, "text_threshold": 0.1})
    for config, end in ((stored, ""), (unsure, "_unsure_kept")):
        found: list[Detections] = _in_parts(GroundingDino(config, device), pictures.image)
        figures |= {f"{key}{end}": value for key, value in _detector_figures(found, pictures, config).items()}
    return figures


def _detector_figures(found: Sequence[Detections], pictures: Pictures, config: SamConfig) -> dict[str, Any]:
    labels = [entry.label for entry in config.classes]
    figures: dict[str, Any] = {"boxes_of_a_picture": round(float(np.mean([len(one) for one in found])), 1)}
    for label, kind in (("car", "car"), ("pedestrian", "person")):
        truth = [boxes_of(pictures, index, kind) for index in range(len(found))]
        mine = [
            (one.boxes[one.labels == labels.index(label)], one.scores[one.labels == labels.index(label)])
            for one in found
        ]
        figures[f"ap50_{label}"] = round(average_precision(mine, truth), 4)
        figures[f"{label}s"] = int(sum(wanted.sum() for _, wanted in truth))
    return figures


def boxes_of(pictures: Pictures, index: int, kind: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the boxes [K, 4] of a kind in one picture, and which of them have to be found [K]."""
    mine = pictures.kind[index] == KINDS.index(kind)
    return pictures.box[index][mine], pictures.area[index][mine] >= _CAR_PIXELS


def average_precision(
    found: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    truth: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]],
    least: float = 0.5,
) -> float:
    """Return the area under precision over recall, precision made monotonic (Pascal VOC from 2010 on).

    Args:
        found: boxes [N, 4] and scores [N] of each picture.
        truth: boxes [K, 4] of each picture, and which of them count; one that does not neither helps nor harms.
        least: overlap from which a box is right.
    """
    scores, right = [], []
    for (boxes, chance), (wanted, counts) in zip(found, truth, strict=True):
        taken = np.zeros(len(wanted), bool)
        table = overlap(boxes, wanted)
        for index in np.argsort(-chance, kind="stable"):
            free = np.where(taken, -1.0, table[index]) if len(wanted) else np.zeros(0)
            best = int(free.argmax()) if len(free) else -1
            hit = best >= 0 and free[best] >= least
            if hit:
                taken[best] = True
                if not counts[best]:
                    continue
            scores.append(float(chance[index]))
            right.append(hit)
    total = int(sum(counts.sum() for _, counts in truth))
    if not total:
        return float("nan")
    order = np.argsort(-np.array(scores), kind="stable")
    hits = np.cumsum(np.array(right, float)[order])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.concatenate([[0.0], hits])) / total * precision))


def check_segmenter(folder: Path, pictures: Pictures, device: str) -> dict[str, Any]:
    """Return the mean overlap of the masks for the true boxes, of all things and of cars."""
    from vipocc.priors.grounded_sam.segmenter import Sam

    model = Sam(SamConfig(segmenter=str(folder), batch_size=4), device)
    overlaps, kinds = [], []
    for index, image in enumerate(pictures.image):
        keep = np.flatnonzero(pictures.area[index] >= _MASK_PIXELS)
        boxes = pictures.box[index][keep]
        masks = model(image[None], [Detections(boxes, np.ones(len(keep), np.float32), np.zeros(len(keep), np.int16))])[
            0
        ]
        for mask, number in zip(masks, keep, strict=True):
            true = pictures.thing[index] == number
            overlaps.append(float((mask & true).sum() / (mask | true).sum()))
            kinds.append(int(pictures.kind[index][number]))
    values, of = np.array(overlaps), np.array(kinds)
    cars = values[of == KINDS.index("car")]
    figures = {"mask_iou": round(float(values.mean()), 4), "masks": len(values)}
    return {**figures, "mask_iou_car": round(float(cars.mean()), 4) if len(cars) else None}


def seconds_an_image(name: EmbeddedModel, folder: Path, pictures: Pictures, repeats: int = 5) -> float:
    """Return the median time of one picture on the CPU, with as many threads as torch has now."""
    from vipocc.priors.depth.depth_anything import DepthAnything
    from vipocc.priors.grounded_sam.detector import GroundingDino
    from vipocc.priors.grounded_sam.segmenter import Sam

    image = pictures.image[:1]
    model: Any
    if name == "segmenter":
        sam, keep = Sam(SamConfig(segmenter=str(folder), batch_size=1)), pictures.area[0] >= _MASK_PIXELS
        boxes = pictures.box[0][keep][:10]
        some = [Detections(boxes, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.int16))]
        model = lambda picture: sam(picture, some)  # noqa: E731
    elif name == "depth":
        model = DepthAnything(DepthConfig(model=str(folder), batch_size=1))
    else:
        model = GroundingDino(SamConfig(detector=str(folder), batch_size=1))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model(image)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times[1:])), 4)


def _measured(depth: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(depth) & (depth > 0) & (depth < MAX_DEPTH))


def _in_parts(model: Any, images: NDArray[np.uint8], size: int = 16) -> list[Any]:
    return [one for start in range(0, len(images), size) for one in model(images[start : start + size])]
