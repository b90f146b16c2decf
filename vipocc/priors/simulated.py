"""Simulated priors for the synthetic world: the exact truth with a foundation model's faults.

They let the whole path run without any weights. They are not predictions: every record, first line and report that
they reach calls them simulated. Depth is wrong by a global factor and a smooth field (published_system 2.1 reports
about 1.6 for an outdoor model on KITTI-360, absolute relative error .586 as it is and .142 after median scaling),
its edges are blurred; of the instances some are missed, small ones more often, and touching ones merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vipocc.priors.config import MAX_INSTANCES, InstanceClass, SimulatedConfig
from vipocc.priors.generators import generator
from vipocc.priors.grounded_sam.records import Detections

VERSION = "simulated-1"
"""Named in every record; changes whenever a number that comes out could."""

_WAVES = 12
_FEWEST_PIXELS = 6


def scale_field(
    config: SimulatedConfig, seed: int, sequence: str, camera: str, row: int, height: int, width: int
) -> NDArray[np.float32]:
    """Return the logarithm [height, width] of the smooth part of the scale error.

    A sum of slow plane waves in x, y and time: mean 0 and standard deviation `config.field` over all places and
    times, changing over the image in about half its width and over time in about `config.field_frames` frames.
    """
    rng = generator(seed, "simulated-depth-field", sequence, camera)
    across, down, along = rng.normal(0, 0.9, _WAVES), rng.normal(0, 0.6, _WAVES), rng.normal(0, 0.25, _WAVES)
    phase = rng.uniform(0, 1, _WAVES) + along * row / config.field_frames
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    waves = np.exp(2j * np.pi * (np.outer(y, down) + phase)) @ np.exp(2j * np.pi * np.outer(across, x))
    return np.asarray(config.field * np.sqrt(2 / _WAVES) * waves.real, np.float32)


def simulate_depth(
    exact: NDArray[np.floating],
    config: SimulatedConfig,
    *,
    seed: int,
    sequence: str,
    camera: str,
    row: int,
    height: int,
    width: int,
) -> NDArray[np.float32]:
    """Return the simulated depth float32 [height, width] in metres, at most `config.cap`, the sky at it.

    Args:
        exact: true depth [h, w] along the optical axis in metres of the raw image, of any size; infinite (or not a
            positive number) where there is only sky.
        config: the faults.
        seed: of the run.
        sequence: with `camera` and `row`, the place that the draws belong to.
        camera: see `sequence`.
        row: see `sequence`.
        height: of the prepared image in pixels.
        width: of the prepared image in pixels.
    """
    seen = np.isfinite(exact) & (exact > 0)
    inverse = np.divide(1.0, exact, out=np.zeros(exact.shape, np.float64), where=seen).astype(np.float32)
    # Networks smear edges in inverse depth, where the near side wins.
    inverse = cv2.resize(inverse, (width, height), interpolation=cv2.INTER_AREA)
    if config.blur > 0:
        inverse = cv2.GaussianBlur(inverse, (0, 0), config.blur * width, borderType=cv2.BORDER_REPLICATE)
    field = scale_field(config, seed, sequence, camera, row, height, width)
    noise = generator(seed, "simulated-depth", sequence, camera, row).standard_normal((height, width), np.float32)
    factor = config.scale * np.exp(field + np.float32(config.noise) * noise)
    depth = factor / np.maximum(inverse, 1e-6)
    return np.asarray(np.minimum(depth, config.cap), np.float32)


def simulate_instances(
    ids: NDArray[np.integer],
    labels: Mapping[int, str],
    classes: Sequence[InstanceClass],
    config: SimulatedConfig,
    *,
    seed: int,
    sequence: str,
    camera: str,
    row: int,
    height: int,
    width: int,
) -> tuple[Detections, NDArray[np.bool_]]:
    """Return simulated detections and their masks bool [K, height, width].

    Args:
        ids: exact instance ids [h, w] of the raw image, of any size; ids without a label are nothing.
        labels: what each id is. Labels are matched with the labels and phrases of `classes`; others are not prompted.
        classes: the prompt's classes.
        config: the faults.
        seed: of the run.
        sequence: with `camera` and `row`, the place that the draws belong to.
        camera: see `sequence`.
        row: see `sequence`.
        height: of the prepared image in pixels.
        width: of the prepared image in pixels.
    """
    rng = generator(seed, "simulated-instances", sequence, camera, row)
    named = {name: index for index, entry in enumerate(classes) for name in (entry.label, *entry.phrases)}
    class_of = {number: named[label] for number, label in sorted(labels.items()) if label in named}
    small = cv2.resize(ids.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    groups = _merge(small, class_of, config.merged, rng)
    unit = config.small_area * (height / 192) ** 2
    found: list[tuple[float, NDArray[np.float32], int, NDArray[np.bool_]]] = []
    for members in groups:
        mask = np.isin(small, members)
        area = int(mask.sum())
        # Drawn for every group, seen or not, so that one more instance does not change the fate of the others.
        luck, wobble, sureness = rng.random(), rng.normal(0, config.box_jitter, 4), rng.random()
        if area < _FEWEST_PIXELS:
            continue
        share = unit / (unit + area)
        if luck < config.missed + (config.missed_small - config.missed) * share:
            continue
        box = _jitter(_bounds(mask), wobble, height, width)
        score = 0.3 + 0.65 * (1 - share) * (0.6 + 0.4 * sureness)
        found.append((score, box, class_of[members[0]], mask))
    found.sort(key=lambda entry: -entry[0])
    found = found[:MAX_INSTANCES]
    detections = Detections(
        np.array([box for _, box, _, _ in found], np.float32).reshape(-1, 4),
        np.array([score for score, _, _, _ in found], np.float32),
        np.array([label for _, _, label, _ in found], np.int16),
    )
    masks = np.array([mask for _, _, _, mask in found], bool).reshape(-1, height, width)
    return detections, masks


def _merge(
    ids: NDArray[np.uint16], class_of: Mapping[int, int], share: float, rng: np.random.Generator
) -> list[list[int]]:
    """Return the ids in view, grouped: touching neighbours of one class are joined with probability `share`."""
    present = [int(number) for number in np.unique(ids) if int(number) in class_of]
    group = {number: [number] for number in present}
    edges = np.concatenate(
        [
            np.stack([ids[:, :-1].ravel(), ids[:, 1:].ravel()], 1),
            np.stack([ids[:-1].ravel(), ids[1:].ravel()], 1),
        ]
    )
    edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], 1), axis=0)
    for first, second in edges.tolist():
        if class_of.get(first, -1) != class_of.get(second, -2):
            continue
        if rng.random() < share and group[first] is not group[second]:
            joined = sorted(group[first] + group[second])
            for number in joined:
                group[number] = joined
    return [members for number, members in group.items() if members[0] == number]


def _bounds(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _jitter(box: NDArray[np.float64], wobble: NDArray[np.float64], height: int, width: int) -> NDArray[np.float32]:
    sides = np.tile(box[2:] - box[:2], 2)
    moved = np.clip(box + np.clip(wobble, -0.3, 0.3) * sides, 0, [width, height, width, height])
    # A box keeps at least one pixel, whatever the draw.
    moved[2:] = np.maximum(moved[2:], np.minimum(moved[:2] + 1, [width, height]))
    moved[:2] = np.minimum(moved[:2], moved[2:] - 1)
    return moved.astype(np.float32)
