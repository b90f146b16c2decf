"""SAM's two checkpoint layouts: the names of their tensors, and the network's sizes read off its shapes.

Official: `sam_vit_b_01ec64.pth`, `sam_vit_l_0b3195.pth`, `sam_vit_h_4b8939.pth`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vipocc.priors.grounded_sam import renaming
from vipocc.priors.grounded_sam.renaming import count, shape

DECODER_HEADS = 8
"""Attention heads of the mask decoder in every published checkpoint."""

_BLOCK = ("image_encoder.blocks.*", "vision_encoder.layers.*")
_TWO_WAY = ("mask_decoder.transformer.layers.*", "mask_decoder.transformer.layers.*")

TEMPLATES: renaming.Templates = (
    ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
    ("image_encoder.patch_embed.proj", "vision_encoder.patch_embed.projection"),
    *(
        (f"{_BLOCK[0]}.{official}", f"{_BLOCK[1]}.{ours}")
        for official, ours in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("attn", "attn"), ("mlp", "mlp"))
    ),
    *(
        (f"image_encoder.neck.{index}", f"vision_encoder.neck.{name}")
        for index, name in enumerate(("conv1", "layer_norm1", "conv2", "layer_norm2"))
    ),
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    ("prompt_encoder.point_embeddings", "prompt_encoder.point_embed"),
    ("prompt_encoder.not_a_point_embed", "prompt_encoder.not_a_point_embed"),
    ("prompt_encoder.no_mask_embed", "prompt_encoder.no_mask_embed"),
    *(
        (f"prompt_encoder.mask_downscaling.{index}", f"prompt_encoder.mask_embed.{name}")
        for index, name in ((0, "conv1"), (1, "layer_norm1"), (3, "conv2"), (4, "layer_norm2"), (6, "conv3"))
    ),
    *((f"{_TWO_WAY[0]}.norm{n}", f"{_TWO_WAY[1]}.layer_norm{n}") for n in range(1, 5)),
    *((f"{_TWO_WAY[0]}.{n}", f"{_TWO_WAY[1]}.{n}") for n in ("self_attn", "mlp")),
    *((f"{_TWO_WAY[0]}.{n}", f"{_TWO_WAY[1]}.{n}") for n in ("cross_attn_token_to_image", "cross_attn_image_to_token")),
    (
        "mask_decoder.transformer.final_attn_token_to_image",
        "mask_decoder.transformer.final_attn_token_to_image",
    ),
    ("mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layer_norm_final_attn"),
    ("mask_decoder.iou_token", "mask_decoder.iou_token"),
    ("mask_decoder.mask_tokens", "mask_decoder.mask_tokens"),
    *(
        (f"mask_decoder.output_upscaling.{index}", f"mask_decoder.{name}")
        for index, name in ((0, "upscale_conv1"), (1, "upscale_layer_norm"), (3, "upscale_conv2"))
    ),
    *(
        (f"{module}.layers.{index}", f"{module}.{name}")
        for module in ("mask_decoder.output_hypernetworks_mlps.*", "mask_decoder.iou_prediction_head")
        for index, name in ((0, "proj_in"), (1, "layers.0"), (2, "proj_out"))
    ),
)
"""Both multi-layer perceptrons have three layers in every published checkpoint."""

_OURS_SHARED = r"prompt_encoder\.shared_embedding\.positional_embedding"


@dataclass(frozen=True)
class SamSizes:
    """What of a SAM's configuration its tensors' shapes tell."""

    embed_dim: int
    layers: int
    heads: int
    feed_forward: int
    patch: int
    grid: int
    """Patches along a side of the square input."""
    window: int
    global_layers: tuple[int, ...]
    """Encoder layers that attend over the whole image; the others over windows."""
    width: int
    """Channels of the embeddings, the prompts and the mask decoder."""
    mask_channels: int
    decoder_layers: int
    decoder_feed_forward: int
    iou_width: int

    @property
    def side(self) -> int:
        """Pixels along a side of the square input."""
        return self.grid * self.patch


def sam_sizes(state: Mapping[str, torch.Tensor]) -> SamSizes:
    """Return the sizes of a network from its tensors in the official layout; raises `CheckpointError` if some miss."""
    _, grid, _, embed_dim = shape(state, "image_encoder.pos_embed")
    layers = count(state, "image_encoder.blocks")
    spans = [shape(state, f"image_encoder.blocks.{k}.attn.rel_pos_h") for k in range(max(layers, 1))]
    whole = tuple(k for k, span in enumerate(spans) if span[0] == 2 * grid - 1)
    window = next(((span[0] + 1) // 2 for k, span in enumerate(spans) if k not in whole), 0)
    two_way = "mask_decoder.transformer.layers"
    return SamSizes(
        embed_dim=embed_dim,
        layers=layers,
        heads=embed_dim // spans[0][1],
        feed_forward=shape(state, "image_encoder.blocks.0.mlp.lin1.weight")[0],
        patch=shape(state, "image_encoder.patch_embed.proj.weight")[-1],
        grid=grid,
        window=window,
        global_layers=whole,
        width=shape(state, "prompt_encoder.no_mask_embed.weight")[1],
        mask_channels=shape(state, "prompt_encoder.mask_downscaling.3.weight")[0],
        decoder_layers=count(state, two_way),
        decoder_feed_forward=shape(state, f"{two_way}.0.mlp.lin1.weight")[0],
        iou_width=shape(state, "mask_decoder.iou_prediction_head.layers.0.weight")[0],
    )


def sam_config(sizes: SamSizes) -> Any:
    """Return transformers' configuration of the network.

    The decoder's normalisations get the published epsilon, 1e-5; the hub's own folders state 1e-6.
    """
    from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=sizes.embed_dim,
            output_channels=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            image_size=sizes.side,
            patch_size=sizes.patch,
            window_size=sizes.window,
            global_attn_indexes=list(sizes.global_layers),
            num_pos_feats=sizes.width // 2,
            mlp_dim=sizes.feed_forward,
        ).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=sizes.width,
            image_size=sizes.side,
            patch_size=sizes.patch,
            mask_input_channels=sizes.mask_channels,
        ).to_dict(),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=sizes.width,
            mlp_dim=sizes.decoder_feed_forward,
            num_hidden_layers=sizes.decoder_layers,
            num_attention_heads=DECODER_HEADS,
            iou_head_hidden_dim=sizes.iou_width,
            layer_norm_eps=1e-5,
        ).to_dict(),
    )


def sam_to_transformers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an official SAM's tensors under the names transformers writes; raises `CheckpointError` for others."""
    return renaming.to_transformers(state, TEMPLATES, (), "")


def sam_to_official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return transformers' SAM tensors under the official names; raises `CheckpointError` for others."""
    once = {name: tensor for name, tensor in state.items() if not re.fullmatch(_OURS_SHARED, name)}
    return renaming.to_official(once, TEMPLATES, ())
