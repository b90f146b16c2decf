"""Grounding DINO through transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.networks import DETECTOR, FixedText
from vipocc.priors.grounded_sam.phrases import phrase_blocks
from vipocc.priors.grounded_sam.prompt import Prompt, build_prompt
from vipocc.priors.grounded_sam.tokenizer import read_tokenizer
from vipocc.priors.weights import Weights, load_model, read_config


class TransformersDino(nn.Module):
    """See `networks.DetectorNetwork`."""

    prompt: Prompt
    ids: torch.Tensor
    """[1, T] tokens of the prompt."""
    sees: torch.Tensor
    """[1, T, T] which of them see each other."""
    positions: torch.Tensor
    """[1, T] where they stand in their phrases."""

    def __init__(self, config: SamConfig, weights: Weights) -> None:
        """Load the network, tokenise the prompt and encode it.

        Raises:
            CheckpointError: damaged or incomplete weights, or a tokenizer that does not know a phrase.
        """
        super().__init__()
        from transformers import GroundingDinoForObjectDetection

        values = read_config(weights, "grounding-dino", DETECTOR)
        tokenizer = read_tokenizer(weights.folder)
        self.prompt = build_prompt(config.classes, tokenizer, int(values.get("max_text_len", 256)))
        self.model = load_model(GroundingDinoForObjectDetection, weights, DETECTOR)
        ids = torch.tensor([self.prompt.input_ids])
        sees, positions = phrase_blocks(ids, tokenizer)
        # As numbers with a fraction: transformers 5.17 embeds positions in the type they come in.
        for name, tensor in (("ids", ids), ("sees", sees), ("positions", positions.float())):
            self.register_buffer(name, tensor, persistent=False)
        encode_text_once(self.model.model, ids, sees, positions)
        self.model.model.encoder.register_forward_pre_hook(self._give_phrases, with_kwargs=True)
        refine_as_published(self.model)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `networks.DetectorNetwork`."""
        ids = self.ids.expand(len(pixels), -1)
        output = self.model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        # Beyond the prompt's tokens the logits are padding, minus infinity by construction.
        return output.logits[..., : ids.shape[1]], output.pred_boxes

    def _give_phrases(self, _: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Put the phrases' blocks in the place of those that transformers made."""
        batch = len(given["text_features"])
        blocks = {
            "text_self_attention_masks": ~self.sees.expand(batch, -1, -1),
            "text_position_ids": self.positions.expand(batch, -1),
        }
        return args, {**given, **blocks}


@torch.no_grad()
def encode_text_once(model: Any, ids: torch.Tensor, sees: torch.Tensor, positions: torch.Tensor) -> None:
    """Replace the text encoder of a `GroundingDinoModel` by what it says of the prompt `ids` [1, T], in float32.

    Args:
        model: whose encoder.
        ids: the prompt's tokens.
        sees: [1, T, T] which tokens see each other.
        positions: [1, T] of the tokens.
    """
    output = model.text_backbone(
        input_ids=ids, attention_mask=sees[:, None], token_type_ids=torch.zeros_like(ids), position_ids=positions
    )
    model.text_backbone = FixedText(output.last_hidden_state)


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
