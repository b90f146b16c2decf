"""Training of the embedded Grounding DINO, with the engine's own text and refinement of boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vipocc.apps.embedded.batches import Batch, normalised
from vipocc.apps.embedded.matching import Things, costs, match_often, match_once, set_losses
from vipocc.apps.embedded.prompts import TokenisedPrompt, draw_phrases, tokenise
from vipocc.apps.embedded.vocabulary import tokenizer
from vipocc.priors.grounded_sam.transformers_dino import refine_as_published

_FEWEST_PIXELS = 20
_MOST = 48
"""Most things of one picture that are to be found, the largest."""


class PromptedText(nn.Module):
    """The text encoder with its phrases as blocks, whatever transformers makes of the prompt."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.prompt: TokenisedPrompt | None = None

    def forward(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Return the output of the encoder for B times the prompt."""
        assert self.prompt is not None
        prompt, count = self.prompt, len(input_ids)
        output = self.encoder(
            input_ids=prompt.ids,
            attention_mask=prompt.sees[:, None],
            token_type_ids=torch.zeros_like(prompt.ids),
            position_ids=prompt.positions,
        )
        output.last_hidden_state = output.last_hidden_state.expand(count, -1, -1)
        return output


def wanted_things(batch: Batch, prompt: TokenisedPrompt) -> Things:
    """Return what a detector is to find in a batch: the things that the prompt asks for and that can be seen."""
    size = batch.image.shape[-2:]
    asked = prompt.answers.sum(1)[batch.kind.clamp_min(0)] > 0
    seen = (batch.kind >= 0) & (batch.area >= _FEWEST_PIXELS) & asked
    order = torch.where(seen, batch.area, torch.full_like(batch.area, -1)).argsort(1, descending=True)[:, :_MOST]
    kind, box, there = (column.gather(1, order) for column in (batch.kind, batch.area, seen))
    box = batch.box.gather(1, order[..., None].expand(-1, -1, 4))
    scale = torch.tensor([size[1], size[0]], device=box.device)
    boxes = torch.cat([(box[..., :2] + box[..., 2:]) / 2 / scale, (box[..., 2:] - box[..., :2]) / scale], -1)
    tokens = prompt.answers[kind.clamp_min(0)] * there[..., None]
    return Things(boxes, tokens, there)


class DetectorTask:
    """See `training.Task`."""

    def __init__(self, network: Any, device: str) -> None:
        self.network = network.to(device)
        self.words = tokenizer()
        self.text = PromptedText(network.model.text_backbone)
        network.model.text_backbone = self.text
        network.model.encoder.register_forward_pre_hook(self._give_phrases, with_kwargs=True)
        refine_as_published(network)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return the loss of a batch and parts of it."""
        prompt = tokenise(draw_phrases(generator), self.words).to(batch.image.device)
        return self.loss_for(batch, prompt)

    def loss_for(self, batch: Batch, prompt: TokenisedPrompt) -> dict[str, torch.Tensor]:
        """Return the same for one prompt."""
        self.text.prompt = prompt
        output = self._run(batch, prompt)
        things = wanted_things(batch, prompt)
        length = prompt.ids.shape[1]
        logits, boxes = self._layers(output, length)
        total = torch.zeros((), device=logits.device)
        price = costs(logits, boxes, things)
        for layer in range(len(logits)):
            part = set_losses(logits[layer], boxes[layer], things, match_once(price[layer], things.there))
            total = total + part.total
        last = part
        proposed, placed = output.enc_outputs_class[..., :length], output.enc_outputs_coord_logits
        # Proposals at the border are none, and transformers says so by infinity.
        real = torch.isfinite(placed[0]).all(-1)
        proposed, given = proposed[:, real], placed[:, real].sigmoid()
        matched = match_often(costs(proposed, given, things), things, self._places(batch, real))
        dense = set_losses(proposed, given, things, matched)
        total = total + dense.total
        return {"loss": total, "classes": last.classes, "boxes": last.corners, "overlap": last.overlap,
                "proposals": dense.total}  # fmt: skip

    def _run(self, batch: Batch, prompt: TokenisedPrompt) -> Any:
        ids = prompt.ids.expand(len(batch.image), -1)
        return self.network(pixel_values=normalised(batch.image), input_ids=ids, attention_mask=torch.ones_like(ids))

    def _layers(self, output: Any, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [L, B, Q, T] and boxes [L, B, Q, 4] of every layer of the decoder."""
        hidden, words = output.intermediate_hidden_states, output.encoder_last_hidden_state_text
        logits = (hidden @ words.mT[:, None]).transpose(0, 1)[..., :length]
        return logits, self._boxes(output)

    def _boxes(self, output: Any) -> torch.Tensor:
        """Return boxes [L, B, Q, 4]: each layer's step from its own start, as the network's `forward` adds it.

        Each box head's hook corrects its step for the start that its decoder layer saw last, which is this one.
        """
        boxes = []
        for layer in range(output.intermediate_hidden_states.shape[1]):
            start = output.init_reference_points if layer == 0 else output.intermediate_reference_points[:, layer - 1]
            step = self.network.bbox_embed[layer](output.intermediate_hidden_states[:, layer])
            boxes.append((step + torch.special.logit(start, eps=1e-5)).sigmoid())
        return torch.stack(boxes)

    def _places(self, batch: Batch, real: torch.Tensor) -> torch.Tensor:
        """Return x, y [N, 2] of the proposals that are real, as parts of the picture."""
        rows, columns = batch.image.shape[-2] / 8, batch.image.shape[-1] / 8
        parts = []
        for _ in range(self.network.config.num_feature_levels):
            height, width = int(-(-rows // 1)), int(-(-columns // 1))
            y, x = torch.meshgrid(
                (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
            )
            parts.append(torch.stack([x, y], -1).reshape(-1, 2))
            rows, columns = height / 2, width / 2
        return torch.cat(parts).to(real.device)[real]

    def _give_phrases(self, _: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Put the phrases' blocks in the place of those that transformers made."""
        prompt = self.text.prompt
        assert prompt is not None
        batch = len(given["text_features"])
        blocks = {
            "text_self_attention_masks": ~prompt.sees.expand(batch, -1, -1),
            "text_position_ids": prompt.positions.float().expand(batch, -1),
        }
        return args, {**given, **blocks}

    def plain(self) -> Any:
        """Return the network with its own text encoder back in place, to be saved."""
        self.network.model.text_backbone = self.text.encoder
        return self.network
