"""Grounding DINO through transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.networks import DETECTOR, FixedText
from vipocc.priors.grounded_sam.prompt import Prompt, build_prompt
from vipocc.priors.grounded_sam.tokenizer import read_tokenizer
from vipocc.priors.weights import Weights, load_model, read_config


class TransformersDino(nn.Module):
    """See `networks.DetectorNetwork`."""

    prompt: Prompt
    ids: torch.Tensor

    def __init__(self, config: SamConfig, weights: Weights) -> None:
        """Load the network, tokenise the prompt and encode it.

        Raises:
            CheckpointError: damaged or incomplete weights, or a tokenizer that does not know a phrase.
        """
        super().__init__()
        from transformers import GroundingDinoForObjectDetection

        values = read_config(weights, "grounding-dino", DETECTOR)
        self.prompt = build_prompt(config.classes, read_tokenizer(weights.folder), int(values.get("max_text_len", 256)))
        self.model = load_model(GroundingDinoForObjectDetection, weights, DETECTOR)
        self.register_buffer("ids", torch.tensor([self.prompt.input_ids]), persistent=False)
        encode_text_once(self.model.model, self.ids)
        refine_as_published(self.model)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `networks.DetectorNetwork`."""
        ids = self.ids.expand(len(pixels), -1)
        output = self.model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        # Beyond the prompt's tokens the logits are padding, minus infinity by construction.
        return output.logits[..., : ids.shape[1]], output.pred_boxes


class _Encoded(Exception):
    """Carries what the text encoder said out of the network's forward pass, of which the rest is not needed."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features


@torch.no_grad()
def encode_text_once(model: Any, ids: torch.Tensor) -> None:
    """Replace the text encoder of a `GroundingDinoModel` by what it says of the prompt `ids` [1, T], in float32.

    The network calls its encoder itself here: how it makes masks and positions for it differs between versions.
    """

    def leave(_: nn.Module, __: Any, output: Any) -> None:
        raise _Encoded(output.last_hidden_state)

    handle = model.text_backbone.register_forward_hook(leave)
    try:
        model(pixel_values=torch.zeros(1, 3, 64, 64), input_ids=ids, attention_mask=torch.ones_like(ids))
    except _Encoded as encoded:
        model.text_backbone = FixedText(encoded.features)
    else:
        raise RuntimeError("the text encoder was not called")
    finally:
        handle.remove()


def refine_as_published(model: Any) -> None:
    """Make boxes that touch the image's border move as the published code moves them.

    A box is refined layer by layer, as sigmoid(logit(box) + step), and the logit needs a bound: 1e-3 in the published
    code, with which the weights were trained, 1e-5 in transformers. A road that spans the image differs by pixels.
    Neither is a parameter, so the difference of the two logits is added to the step that the box head gives.
    """
    decoder = model.model.decoder
    known: dict[int, torch.Tensor] = {}

    def remember(index: int) -> Any:
        def hook(_: nn.Module, __: Any, arguments: dict[str, Any]) -> None:
            # [B, Q, levels, 4], times the valid part of each level: all of it, as images are not padded.
            known[index] = arguments["reference_points"][:, :, 0]

        return hook

    def correct(index: int) -> Any:
        def hook(_: nn.Module, __: Any, step: torch.Tensor) -> torch.Tensor:
            boxes = known[index]
            correction: torch.Tensor = published_logit(boxes) - torch.special.logit(boxes, eps=1e-5)
            return step + correction

        return hook

    for index, layer in enumerate(decoder.layers):
        layer.register_forward_pre_hook(remember(index), with_kwargs=True)
        decoder.bbox_embed[index].register_forward_hook(correct(index))
        if model.bbox_embed[index] is not decoder.bbox_embed[index]:
            model.bbox_embed[index].register_forward_hook(correct(index))


def published_logit(boxes: torch.Tensor, bound: float = 1e-3) -> torch.Tensor:
    """Return log(x / (1 - x)), numerator and denominator at least `bound` each."""
    logits: torch.Tensor = torch.log(boxes.clamp(bound, 1) / (1 - boxes).clamp(bound, 1))
    return logits
