"""What an engine brings: two networks behind one interface.

Everything around the networks (preprocessing, choice of boxes, masks in the image) is one code for all engines, which
`engines` lists.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from vipocc.priors.grounded_sam.prompt import Prompt

DETECTOR, SEGMENTER = "--detector", "--segmenter"
"""The options that name the weights, for messages."""


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

    def compile_encoder(self, backend: str = "inductor") -> None:
        """Have the encoder's layers compiled when they are called next, for the size of batch they are called with."""
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
