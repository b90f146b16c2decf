"""What an engine brings: two networks behind one interface, and the choice between engines.

Everything around the networks (preprocessing, choice of boxes, masks in the image) is one code for both engines.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import nn

from vipocc.errors import CheckpointError
from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.prompt import Prompt
from vipocc.priors.pth import find_pth, is_pth
from vipocc.priors.weights import Weights, find_weights, read_config

Engine = Literal["transformers", "original"]

DETECTOR, SEGMENTER = "--detector", "--segmenter"


class DetectorNetwork(Protocol):
    """Grounding DINO with one prompt, on one device."""

    prompt: Prompt

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [B, Q, T] of the prompt's T tokens and boxes [B, Q, 4] for images [B, 3, h, w].

        Boxes are normalised centre x, centre y, width, height.
        """
        ...


class SegmenterNetwork(Protocol):
    """SAM on one device."""

    side: int
    """Pixels along a side of the square input."""
    patch: int
    """Pixels along a side of a patch."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings [B, C, h / patch, w / patch] of images [B, 3, h, w], h and w at most `side`."""
        ...

    def decode(self, embeddings: torch.Tensor, owners: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Return mask logits [K, 4 h / patch, 4 w / patch], one for each box.

        Args:
            embeddings: [B, C, h / patch, w / patch].
            owners: [K] which of the B images a box belongs to, ascending.
            boxes: [K, 4] x0, y0, x1, y1 in pixels of the network's input.
        """
        ...


class FixedText(nn.Module):
    """The features of the one prompt of a run, in place of the text encoder that made them.

    They depend on the prompt alone, so the encoder runs once and leaves the device.
    """

    features: torch.Tensor

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features, persistent=False)

    def forward(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Return the features [B, T, C] for B times the prompt."""
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=self.features.expand(len(input_ids), -1, -1))


def choose_engine(config: SamConfig, name: str, option: str) -> Engine:
    """Return the engine that runs the weights `name`.

    Raises:
        CheckpointError: the engine asked for cannot read weights of this layout.
    """
    official = is_pth(name)
    if config.engine == "auto":
        return "original" if official else "transformers"
    if config.engine == "transformers" and official:
        raise CheckpointError(
            "the engine 'transformers' does not read original checkpoints",
            where=name,
            fix=f"use --engine auto, or run `vipocc priors convert {name} FOLDER` and give {option} FOLDER",
        )
    if config.engine == "original" and not official:
        raise CheckpointError(
            "the engine 'original' reads original checkpoints (*.pth) only",
            where=name,
            fix=f"give {option} a .pth file, or use --engine auto",
        )
    return config.engine


def detector_weights(config: SamConfig) -> Weights:
    """Return the detector's weights; raises `CheckpointError` for anything but a Grounding DINO."""
    if choose_engine(config, config.detector, DETECTOR) == "original":
        return _official(config.detector, DETECTOR, "a Grounding DINO", "transformer.tgt_embed.weight")
    weights = find_weights(config.detector, config.detector_revision, DETECTOR)
    read_config(weights, "grounding-dino", DETECTOR)
    return weights


def segmenter_weights(config: SamConfig) -> Weights:
    """Return SAM's weights; raises `CheckpointError` for anything but a SAM."""
    if choose_engine(config, config.segmenter, SEGMENTER) == "original":
        return _official(config.segmenter, SEGMENTER, "a SAM", "image_encoder.pos_embed")
    weights = find_weights(config.segmenter, config.segmenter_revision, SEGMENTER)
    read_config(weights, "sam", SEGMENTER)
    return weights


def load_detector(config: SamConfig) -> DetectorNetwork:
    """Return the detector on the CPU, by the engine that its weights ask for."""
    weights = detector_weights(config)
    if choose_engine(config, config.detector, DETECTOR) == "original":
        from vipocc.priors.grounded_sam.original_dino import OriginalDino

        return OriginalDino(config, weights)
    from vipocc.priors.grounded_sam.transformers_dino import TransformersDino

    return TransformersDino(config, weights)


def load_segmenter(config: SamConfig) -> SegmenterNetwork:
    """Return SAM on the CPU, by the engine that its weights ask for."""
    weights = segmenter_weights(config)
    if choose_engine(config, config.segmenter, SEGMENTER) == "original":
        from vipocc.priors.grounded_sam.original_sam import OriginalSam

        return OriginalSam(weights)
    from vipocc.priors.grounded_sam.transformers_sam import TransformersSam

    return TransformersSam(weights)


def _official(name: str, option: str, what: str, tensor: str) -> Weights:
    from vipocc.priors.pth import load_pth

    weights = find_pth(name, option)
    if tensor not in load_pth(weights.folder, option):
        raise CheckpointError(
            f"the checkpoint is not {what} in the official layout ('{tensor}' is missing)",
            where=weights.folder,
            fix=f"correct {option}",
        )
    return weights
