"""The engines by name, and the choice between them: by what was asked for, else by the layout of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vipocc.errors import CheckpointError
from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.networks import DETECTOR, SEGMENTER, DetectorNetwork, SegmenterNetwork
from vipocc.priors.grounded_sam.original_dino import OriginalDino
from vipocc.priors.grounded_sam.original_sam import OriginalSam
from vipocc.priors.grounded_sam.transformers_dino import TransformersDino
from vipocc.priors.grounded_sam.transformers_sam import TransformersSam
from vipocc.priors.pth import find_pth, is_pth, load_pth
from vipocc.priors.weights import PROCESSOR, Weights, find_weights, read_config

PUBLISHED_SIDES = (800, 1333)
"""Shortest and longest side of the detector's input where its folder does not say."""


@dataclass(frozen=True)
class Engine:
    """A package that runs the two networks from weights of one layout."""

    name: str
    """As `--engine` and the records say it."""
    reads_pth: bool
    """Whether it reads official `.pth` files; otherwise folders and hub ids."""
    detector: Callable[[SamConfig, Weights], DetectorNetwork]
    segmenter: Callable[[Weights], SegmenterNetwork]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("transformers", False, TransformersDino, TransformersSam),
        Engine("original", True, OriginalDino, OriginalSam),
    )
}


def choose_engine(config: SamConfig, name: str, option: str) -> Engine:
    """Return the engine that runs the weights `name`, which `option` named.

    Raises:
        CheckpointError: the engine asked for cannot read weights of this layout.
    """
    if config.engine == "auto":
        return next(engine for engine in ENGINES.values() if engine.reads_pth == is_pth(name))
    engine = ENGINES[config.engine]
    if engine.reads_pth == is_pth(name):
        return engine
    if engine.reads_pth:
        what = "reads original checkpoints (*.pth) only"
        fix = f"give {option} a .pth file, or use --engine auto"
    else:
        what = "does not read original checkpoints"
        fix = f"use --engine auto, or run `vipocc priors convert {name} FOLDER` and give {option} FOLDER"
    raise CheckpointError(f"the engine '{engine.name}' {what}", where=name, fix=fix)


def detector_weights(config: SamConfig) -> Weights:
    """Return the detector's weights; raises `CheckpointError` for anything but a Grounding DINO."""
    if choose_engine(config, config.detector, DETECTOR).reads_pth:
        return _official(config.detector, DETECTOR, "a Grounding DINO", "transformer.tgt_embed.weight")
    weights = find_weights(config.detector, config.detector_revision, DETECTOR)
    read_config(weights, "grounding-dino", DETECTOR)
    return weights


def detector_sides(config: SamConfig, weights: Weights) -> tuple[int, int]:
    """Return the shortest and the longest side of the detector's input: as asked for, else by its image processor.

    Raises:
        CheckpointError: the processor's settings cannot be read.
    """
    stated: Any = None
    path = weights.folder / PROCESSOR
    if path.is_file():
        try:
            stated = json.loads(path.read_text(encoding="utf-8")).get("size")
        except (OSError, ValueError, AttributeError):
            raise CheckpointError(
                "the image processor's settings cannot be read", where=path, fix=f"correct {DETECTOR}"
            ) from None
    sides = stated if isinstance(stated, dict) else {}
    shortest = config.shortest_side or int(sides.get("shortest_edge") or PUBLISHED_SIDES[0])
    longest = config.longest_side or int(sides.get("longest_edge") or PUBLISHED_SIDES[1])
    return shortest, longest


def segmenter_weights(config: SamConfig) -> Weights:
    """Return SAM's weights; raises `CheckpointError` for anything but a SAM."""
    if choose_engine(config, config.segmenter, SEGMENTER).reads_pth:
        return _official(config.segmenter, SEGMENTER, "a SAM", "image_encoder.pos_embed")
    weights = find_weights(config.segmenter, config.segmenter_revision, SEGMENTER)
    read_config(weights, "sam", SEGMENTER)
    return weights


def load_detector(config: SamConfig) -> DetectorNetwork:
    """Return the detector on the CPU, by the engine that its weights ask for."""
    return choose_engine(config, config.detector, DETECTOR).detector(config, detector_weights(config))


def load_segmenter(config: SamConfig) -> SegmenterNetwork:
    """Return SAM on the CPU, by the engine that its weights ask for."""
    return choose_engine(config, config.segmenter, SEGMENTER).segmenter(segmenter_weights(config))


def _official(name: str, option: str, what: str, tensor: str) -> Weights:
    weights = find_pth(name, option)
    if tensor not in load_pth(weights.folder, option):
        raise CheckpointError(
            f"the checkpoint is not {what} in the official layout ('{tensor}' is missing)",
            where=weights.folder,
            fix=f"correct {option}",
        )
    return weights
