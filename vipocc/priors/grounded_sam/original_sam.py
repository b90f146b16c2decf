"""SAM through segment-anything, from an official `.pth`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from vipocc.priors.grounded_sam.networks import SEGMENTER
from vipocc.priors.grounded_sam.positions import PositionTables
from vipocc.priors.grounded_sam.renaming import check_names
from vipocc.priors.grounded_sam.sam_layout import DECODER_HEADS, SamSizes, sam_sizes
from vipocc.priors.pth import load_pth
from vipocc.priors.weights import Weights


class OriginalSam(nn.Module):
    """See `networks.SegmenterNetwork`."""

    def __init__(self, weights: Weights) -> None:
        """Build the network for the sizes of the weights; raises `CheckpointError` if these are not all of a SAM's."""
        super().__init__()
        state = load_pth(weights.folder, SEGMENTER)
        sizes = sam_sizes(state)
        with torch.device("meta"):
            self.model = build_sam(sizes)
        own = set(self.model.state_dict())
        check_names(sorted(own - set(state)), sorted(set(state) - own), weights.folder)
        self.model.load_state_dict(state, assign=True)
        self.model.float().eval().requires_grad_(False)
        self.side, self.patch = sizes.side, sizes.patch
        encoder = self.model.image_encoder
        self._tables = PositionTables(encoder, [each.attn for each in encoder.blocks if each.window_size == 0])

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `networks.SegmenterNetwork`."""
        height, width = pixels.shape[2:]
        self._tables.fit(height // self.patch, width // self.patch)
        embeddings: torch.Tensor = self.model.image_encoder(pixels)
        return embeddings

    def compile_encoder(self, backend: str = "inductor") -> None:
        """See `networks.SegmenterNetwork`."""
        for block in self.model.image_encoder.blocks:
            block.compile(dynamic=False, backend=backend)

    def decode(self, embeddings: torch.Tensor, owners: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """See `networks.SegmenterNetwork`. The package's decoder takes the boxes of one image at once."""
        rows, columns = embeddings.shape[2:]
        prompts, dense = self.model.prompt_encoder(points=None, boxes=boxes, masks=None)
        positions = self.model.prompt_encoder.get_dense_pe()[..., :rows, :columns]
        parts = []
        for owner in owners.unique_consecutive():
            some = owners == owner
            masks, _ = self.model.mask_decoder(
                image_embeddings=embeddings[owner : owner + 1],
                image_pe=positions,
                sparse_prompt_embeddings=prompts[some],
                dense_prompt_embeddings=dense[some][..., :rows, :columns],
                multimask_output=False,
            )
            parts.append(masks[:, 0])
        return torch.cat(parts)


def build_sam(sizes: SamSizes) -> Any:
    """Return the package's SAM of these sizes, which for the published ones is what its registry builds.

    The registry builds three sizes only and reads files with an unrestricted unpickler, so the parts are put together
    here. The package's normalisation of pixels is left out: the input is normalised already.
    """
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer

    parts = {
        "image_encoder": ImageEncoderViT(
            img_size=sizes.side,
            patch_size=sizes.patch,
            embed_dim=sizes.embed_dim,
            depth=sizes.layers,
            num_heads=sizes.heads,
            mlp_ratio=sizes.feed_forward / sizes.embed_dim,
            out_chans=sizes.width,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=sizes.window,
            global_attn_indexes=sizes.global_layers,
        ),
        "prompt_encoder": PromptEncoder(
            embed_dim=sizes.width,
            image_embedding_size=(sizes.grid, sizes.grid),
            input_image_size=(sizes.side, sizes.side),
            mask_in_chans=sizes.mask_channels,
        ),
        "mask_decoder": MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=sizes.decoder_layers,
                embedding_dim=sizes.width,
                mlp_dim=sizes.decoder_feed_forward,
                num_heads=DECODER_HEADS,
            ),
            transformer_dim=sizes.width,
            iou_head_depth=3,
            iou_head_hidden_dim=sizes.iou_width,
        ),
    }
    model = nn.Module()
    for name, part in parts.items():
        model.add_module(name, part)
    return model
