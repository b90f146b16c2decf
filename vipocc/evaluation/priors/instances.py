"""Instances of `instances.zarr`: how many of which class, and how they agree with the synthetic world's objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.evaluation.inputs import RowReader, committed, frame_of, group_of
from vipocc.evaluation.metrics import aggregate_all
from vipocc.evaluation.priors.matching import Matches, detection_metrics, match
from vipocc.evaluation.report import Frame, Row, Skipped
from vipocc.priors.config import InstanceClass

COUNTED = ("detections", "empty", "area_share")
"""Instances a frame, share of frames without any, share of the image."""
JUDGED = ("ap50", "recall50", "mask_iou")
SMALLEST = 32.0
"""Pixels at a height of 192, in proportion to the image's area: true objects that show less are not asked for."""


@dataclass(frozen=True)
class Found:
    """The instances of one image."""

    labels: NDArray[np.int64]
    """[K] index of the class."""
    scores: NDArray[np.float64]
    """[K]"""
    boxes: NDArray[np.float64]
    """[K, 4] x0, y0, x1, y1 in pixels of the prepared image."""
    index: NDArray[np.uint8]
    """[H, W] instance number + 1, 0 none, overlaps going to the smaller one."""


def read_found(reader: RowReader, key: FrameKey) -> Found:
    """Return the instances of a key image."""
    group = group_of(key)
    count = int(reader.read(group, key.row, "count"))
    return Found(
        np.asarray(reader.read(group, key.row, "label"), np.int64)[:count],
        np.asarray(reader.read(group, key.row, "score"), np.float64)[:count],
        np.asarray(reader.read(group, key.row, "box"), np.float64)[:count],
        np.asarray(reader.read(group, key.row, "masks")),
    )


def class_figures(found: Found, classes: int) -> list[dict[str, float]]:
    """Return the figures `COUNTED` of one image for each class, and last of all classes together."""
    pixels = np.bincount(found.index.reshape(-1), minlength=len(found.labels) + 1)[1 : len(found.labels) + 1]
    counts = np.bincount(found.labels, minlength=classes)
    areas = np.bincount(found.labels, weights=pixels, minlength=classes)
    pairs = [*zip(counts, areas, strict=True), (counts.sum(), areas.sum())]
    return [
        {"detections": float(count), "empty": float(count == 0), "area_share": float(area) / found.index.size}
        for count, area in pairs
    ]


@dataclass(frozen=True)
class Objects:
    """The true objects that an image shows, of the classes that were asked for."""

    labels: NDArray[np.int64]
    """[M] index of the class."""
    boxes: NDArray[np.float64]
    """[M, 4]"""
    counts: NDArray[np.bool_]
    """[M] which are to be found; the others are too small or hidden, and it is no fault to find them."""
    masks: NDArray[np.bool_] | None
    """[M, H, W] at the prepared size; None where only boxes are known."""


class ObjectReader(Protocol):
    """Where true objects come from."""

    title: str
    """Of the table of agreement."""

    def read(self, key: FrameKey, size: tuple[int, int]) -> Objects:
        """Return the objects of a key image at a prepared size (height, width)."""


def class_numbers(classes: Sequence[InstanceClass], labels: Sequence[str]) -> dict[str, int]:
    """Return the position in a store's `labels` of each label and of the phrases that `classes` has for it."""
    phrases = {entry.label: entry.phrases for entry in classes}
    return {name: at for at, label in enumerate(labels) for name in (label, *phrases.get(label, ()))}


def least_pixels(size: tuple[int, int]) -> float:
    """Return how many pixels of an image of `size` an object has to show."""
    return SMALLEST * (size[0] / 192) ** 2


class ExactObjects:
    """Reads the synthetic world's objects as a prepared image shows them."""

    title = "Instances against the objects that the image shows"

    def __init__(self, manifest: Manifest, classes: Sequence[InstanceClass], labels: Sequence[str]) -> None:
        """Look for objects of a store's `labels`, by these names or the phrases that `classes` has for them."""
        from vipocc.data_manifests.synthetic.exact import ExactTruth

        self.manifest, self._truth = manifest, ExactTruth(manifest.root)
        self._class_of = class_numbers(classes, labels)

    def read(self, key: FrameKey, size: tuple[int, int]) -> Objects:
        """Return the objects of a key image whose label is a label or phrase of the prompt."""
        frame = int(self.manifest.frame_ids(key.sequence)[key.row])
        ids, shown = self._truth.instances(key.sequence, key.camera, frame)
        small = cv2.resize(ids, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        labels, boxes, masks = [], [], []
        for one in shown:
            mask = small == one.id
            if one.label not in self._class_of or one.box is None or not mask.any():
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            labels.append(self._class_of[one.label])
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            masks.append(mask)
        shown_as = np.array(masks, bool).reshape(-1, *size)
        counts = shown_as.sum((1, 2)) >= least_pixels(size)
        return Objects(np.array(labels, np.int64), np.array(boxes, np.float64).reshape(-1, 4), counts, shown_as)


def judge(found: Found, objects: Objects, label: int) -> tuple[Matches, list[float]]:
    """Return the matches of one class in one image, and the overlap of the masks of each pair."""
    ours, theirs = np.flatnonzero(found.labels == label), np.flatnonzero(objects.labels == label)
    matches = match(found.scores[ours], found.boxes[ours], objects.boxes[theirs], objects.counts[theirs])
    overlaps: list[float] = []
    if objects.masks is not None:
        for detection, thing in matches.pairs:
            mask, true = found.index == ours[detection] + 1, objects.masks[theirs[thing]]
            overlaps.append(int(np.count_nonzero(mask & true)) / int(np.count_nonzero(mask | true)))
    return matches, overlaps


@dataclass(frozen=True)
class InstanceTables:
    """What is said of instances."""

    counted: list[Row]
    """A row for each class and one for all."""
    judged: list[Row]
    """A row for each class that true objects are of; none where there is no truth."""
    used: list[Frame]
    skipped: list[Skipped]
    empty: int
    """Frames without any instance."""


def instance_tables(
    manifest: Manifest,
    reader: RowReader,
    keys: Sequence[FrameKey],
    classes: Sequence[str],
    truth: ObjectReader | None,
    *,
    resamples: int,
    confidence: float,
) -> InstanceTables:
    """Count the instances of key images by class and, with `truth`, compare them with true objects.

    Args:
        manifest: of the dataset.
        reader: `instances.zarr`.
        keys: the images; those without a record are left out.
        classes: names of the classes, as the store has them.
        truth: the true objects, or None.
        resamples: of the bootstrap.
        confidence: of the intervals.
    """
    there = [key for key in keys if committed(reader, group_of(key), key.row)]
    absent = set(keys) - set(there)
    skipped = [Skipped(frame_of(manifest, key), "no instances computed") for key in keys if key in absent]
    frames = [frame_of(manifest, key) for key in there]
    figures: list[list[dict[str, float]]] = [[] for _ in range(len(classes) + 1)]
    matches: list[list[Matches]] = [[] for _ in classes]
    overlaps: list[list[list[float]]] = [[] for _ in classes]
    for key in there:
        found = read_found(reader, key)
        for at, values in enumerate(class_figures(found, len(classes))):
            figures[at].append(values)
        if truth is not None:
            objects = truth.read(key, (found.index.shape[0], found.index.shape[1]))
            for label in range(len(classes)):
                taken, shared = judge(found, objects, label)
                matches[label].append(taken)
                overlaps[label].append(shared)
    counted = [
        Row.measured(name, "prior", frames, values, resamples, confidence)
        if name == "all classes"
        else Row(name, "prior", aggregate_all(values, resamples, confidence))
        for name, values in zip([*classes, "all classes"], figures, strict=True)
        if values
    ]
    judged = [
        Row(name, "prior", detection_metrics(taken, shared, resamples, confidence), note=f"{_objects(taken):,} objects")
        for name, taken, shared in zip(classes, matches, overlaps, strict=True)
        if _objects(taken)
    ]
    empty = sum(values["empty"] > 0 for values in figures[-1])
    return InstanceTables(counted, judged, frames, skipped, empty)


def _objects(matches: Sequence[Matches]) -> int:
    return sum(one.objects for one in matches)
