"""SAM through transformers."""

from __future__ import annotations

import torch
from torch import nn

from vipocc.priors.grounded_sam.attention import use_fused_attention
from vipocc.priors.grounded_sam.networks import SEGMENTER
from vipocc.priors.grounded_sam.positions import PositionTables
from vipocc.priors.weights import Weights, load_model


class TransformersSam(nn.Module):
    """See `networks.SegmenterNetwork`."""

    def __init__(self, weights: Weights) -> None:
        """Load the network; raises `CheckpointError` for damaged or incomplete weights."""
        super().__init__()
        from transformers import SamModel

        self.model = load_model(SamModel, weights, SEGMENTER)
        vision = self.model.config.vision_config
        self.side, self.patch = int(vision.image_size), int(vision.patch_size)
        encoder = self.model.vision_encoder
        use_fused_attention(each.attn for each in encoder.layers)
        self._tables = PositionTables(encoder, [each.attn for each in encoder.layers if each.window_size == 0])

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `networks.SegmenterNetwork`."""
        height, width = pixels.shape[2:]
        self._tables.fit(height // self.patch, width // self.patch)
        self.model.vision_encoder.patch_embed.image_size = (height, width)
        embeddings: torch.Tensor = self.model.vision_encoder(pixels).last_hidden_state
        return embeddings

    def compile_encoder(self, backend: str = "inductor") -> None:
        """See `networks.SegmenterNetwork`. Layer by layer: all of a kind are one piece of code."""
        for layer in self.model.vision_encoder.layers:
            layer.compile(dynamic=False, backend=backend)

    def decode(self, embeddings: torch.Tensor, owners: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """See `networks.SegmenterNetwork`. Each box is an image of its own to the decoder: no box waits for another."""
        rows, columns = embeddings.shape[2:]
        prompts, dense = self.model.prompt_encoder(None, None, boxes[:, None], None)
        positions = self.model.get_image_wide_positional_embeddings()[..., :rows, :columns]
        masks, _ = self.model.mask_decoder(
            image_embeddings=embeddings[owners],
            image_positional_embeddings=positions.expand(len(boxes), -1, -1, -1),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense[..., :rows, :columns],
            multimask_output=False,
        )
        logits: torch.Tensor = masks[:, 0, 0]
        return logits
