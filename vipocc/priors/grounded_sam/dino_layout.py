"""Grounding DINO's two checkpoint layouts: the names of their tensors, and the network's sizes read off its shapes.

Official: `groundingdino_swint_ogc.pth`, `groundingdino_swinb_cogcoor.pth`. The file states no configuration; all that
shapes do not tell is the same in both published ones (the package's two configuration files).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch

from vipocc.errors import CheckpointError
from vipocc.priors.grounded_sam import renaming
from vipocc.priors.grounded_sam.renaming import check_names, count, shape

POINTS = 4
"""Sampled points per head and level in every published checkpoint."""
TEXT_HEAD = 64
"""Channels of one head of BERT, of any size."""

_SWIN = "model.backbone.conv_encoder.model"
_BLOCK = ("backbone.0.layers.*.blocks.*", f"{_SWIN}.encoder.layers.*.blocks.*")
_ENCODER = "model.encoder.layers.*"
_DECODER = ("transformer.decoder.layers.*", "model.decoder.layers.*")


def _under(modules: tuple[str, str], *pairs: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{modules[0]}.{official}", f"{modules[1]}.{ours}") for official, ours in pairs)


TEMPLATES: renaming.Templates = (
    ("backbone.0.patch_embed.proj", f"{_SWIN}.embeddings.patch_embeddings.projection"),
    ("backbone.0.patch_embed.norm", f"{_SWIN}.embeddings.norm"),
    *((f"backbone.0.norm{stage}", f"{_SWIN}.hidden_states_norms.stage{stage + 1}") for stage in range(4)),
    *_under(
        _BLOCK,
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.relative_position_bias_table", "attention.self.relative_position_bias_table"),
        ("attn.proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ),
    ("backbone.0.layers.*.downsample", f"{_SWIN}.encoder.layers.*.downsample"),
    ("input_proj", "model.input_proj_vision"),
    ("bert.embeddings.word_embeddings", "model.text_backbone.embeddings.word_embeddings"),
    ("bert.embeddings.position_embeddings", "model.text_backbone.embeddings.position_embeddings"),
    ("bert.embeddings.token_type_embeddings", "model.text_backbone.embeddings.token_type_embeddings"),
    ("bert.embeddings.LayerNorm", "model.text_backbone.embeddings.LayerNorm"),
    ("bert.encoder", "model.text_backbone.encoder"),
    ("feat_map", "model.text_projection"),
    ("bbox_embed", "bbox_embed"),
    ("transformer.level_embed", "model.level_embed"),
    ("transformer.tgt_embed", "model.query_position_embeddings"),
    ("transformer.enc_output", "model.enc_output"),
    ("transformer.enc_output_norm", "model.enc_output_norm"),
    ("transformer.enc_out_bbox_embed", "model.encoder_output_bbox_embed"),
    *_under(
        ("transformer.encoder.layers.*", f"{_ENCODER}.deformable_layer"),
        ("self_attn", "self_attn"),
        ("norm1", "self_attn_layer_norm"),
        ("linear1", "fc1"),
        ("linear2", "fc2"),
        ("norm2", "final_layer_norm"),
    ),
    *_under(
        ("transformer.encoder.text_layers.*", f"{_ENCODER}.text_enhancer_layer"),
        ("self_attn.out_proj", "self_attn.out_proj"),
        ("linear1", "fc1"),
        ("linear2", "fc2"),
        ("norm1", "layer_norm_before"),
        ("norm2", "layer_norm_after"),
    ),
    *_under(
        ("transformer.encoder.fusion_layers.*", f"{_ENCODER}.fusion_layer"),
        ("gamma_v", "vision_param"),
        ("gamma_l", "text_param"),
        ("layer_norm_v", "layer_norm_vision"),
        ("layer_norm_l", "layer_norm_text"),
        ("attn.v_proj", "attn.vision_proj"),
        ("attn.l_proj", "attn.text_proj"),
        ("attn.values_v_proj", "attn.values_vision_proj"),
        ("attn.values_l_proj", "attn.values_text_proj"),
        ("attn.out_v_proj", "attn.out_vision_proj"),
        ("attn.out_l_proj", "attn.out_text_proj"),
    ),
    *_under(
        _DECODER,
        ("cross_attn", "encoder_attn"),
        ("norm1", "encoder_attn_layer_norm"),
        ("ca_text.out_proj", "encoder_attn_text.out_proj"),
        ("catext_norm", "encoder_attn_text_layer_norm"),
        ("self_attn.out_proj", "self_attn.out_proj"),
        ("norm2", "self_attn_layer_norm"),
        ("linear1", "fc1"),
        ("linear2", "fc2"),
        ("norm3", "final_layer_norm"),
    ),
    ("transformer.decoder.norm", "model.decoder.layer_norm"),
    ("transformer.decoder.ref_point_head", "model.decoder.reference_points_head"),
)

_QKV = ("query", "key", "value")
_ATTENTIONS = (
    ("transformer.encoder.text_layers.*.self_attn", f"{_ENCODER}.text_enhancer_layer.self_attn"),
    ("transformer.decoder.layers.*.self_attn", "model.decoder.layers.*.self_attn"),
    ("transformer.decoder.layers.*.ca_text", "model.decoder.layers.*.encoder_attn_text"),
)
FUSED: renaming.Fused = tuple(
    (f"{_BLOCK[0]}.attn.qkv.{kind}", tuple(f"{_BLOCK[1]}.attention.self.{name}.{kind}" for name in _QKV))
    for kind in ("weight", "bias")
) + tuple(
    (f"{official}.in_proj_{kind}", tuple(f"{ours}.{name}.{kind}" for name in _QKV))
    for official, ours in _ATTENTIONS
    for kind in ("weight", "bias")
)

UNUSED = r"label_enc\.weight|bert\.embeddings\.position_ids|bert\.pooler\..*|.*\.relative_position_index"
"""Of an official file: a table that only training reads, BERT's pooler, and tables of indices that code makes."""
SHARED = r"bbox_embed\.[1-9]\d*\..*|transformer\.decoder\.bbox_embed\..*"
"""One head stands in an official file once for each decoder layer, and again under the decoder."""
_OURS_UNUSED = re.escape(f"{_SWIN}.swin.layernorm.") + r".*|model\.text_backbone\.pooler\..*"
_OURS_SHARED = r"bbox_embed\.[1-9]\d*\..*|model\.decoder\.bbox_embed\..*"


@dataclass(frozen=True)
class DinoSizes:
    """What of a Grounding DINO's configuration its tensors' shapes tell."""

    embed_dim: int
    depths: tuple[int, ...]
    swin_heads: tuple[int, ...]
    window: int
    width: int
    """Channels of the transformer (`hidden_dim`, `d_model`)."""
    encoder_layers: int
    decoder_layers: int
    heads: int
    feed_forward: int
    levels: int
    queries: int
    vocabulary: int
    text_width: int
    text_layers: int
    text_feed_forward: int
    text_positions: int

    @property
    def trained_at(self) -> int:
        """Pixels of the square that the backbone was trained at: 384 with windows of 12, 224 with windows of 7."""
        return self.window * 32


def dino_sizes(state: Mapping[str, torch.Tensor]) -> DinoSizes:
    """Return the sizes of a network from its tensors in the official layout; raises `CheckpointError` if some miss."""
    stages = count(state, "backbone.0.layers")
    tables = [
        shape(state, f"backbone.0.layers.{stage}.blocks.0.attn.relative_position_bias_table")
        for stage in range(max(stages, 1))
    ]
    levels = shape(state, "transformer.level_embed")[0]
    queries, width = shape(state, "transformer.tgt_embed.weight")
    sampled = shape(state, "transformer.encoder.layers.0.self_attn.attention_weights.weight")[0]
    vocabulary, text_width = shape(state, "bert.embeddings.word_embeddings.weight")
    return DinoSizes(
        embed_dim=shape(state, "backbone.0.patch_embed.proj.weight")[0],
        depths=tuple(count(state, f"backbone.0.layers.{stage}.blocks") for stage in range(stages)),
        swin_heads=tuple(table[1] for table in tables),
        window=(isqrt(tables[0][0]) + 1) // 2,
        width=width,
        encoder_layers=count(state, "transformer.encoder.layers"),
        decoder_layers=count(state, "transformer.decoder.layers"),
        heads=sampled // (levels * POINTS),
        feed_forward=shape(state, "transformer.encoder.layers.0.linear1.weight")[0],
        levels=levels,
        queries=queries,
        vocabulary=vocabulary,
        text_width=text_width,
        text_layers=count(state, "bert.encoder.layer"),
        text_feed_forward=shape(state, "bert.encoder.layer.0.intermediate.dense.weight")[0],
        text_positions=shape(state, "bert.embeddings.position_embeddings.weight")[0],
    )


def bert_config(sizes: DinoSizes) -> Any:
    """Return transformers' configuration of the text encoder."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=max(sizes.text_width // TEXT_HEAD, 1),
        intermediate_size=sizes.text_feed_forward,
        max_position_embeddings=sizes.text_positions,
    )


def dino_config(sizes: DinoSizes) -> Any:
    """Return transformers' configuration of the whole network."""
    from transformers import GroundingDinoConfig, SwinConfig

    return GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=sizes.embed_dim,
            depths=list(sizes.depths),
            num_heads=list(sizes.swin_heads),
            window_size=sizes.window,
            image_size=sizes.trained_at,
            out_indices=[2, 3, 4],
        ),
        text_config=bert_config(sizes),
        d_model=sizes.width,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=sizes.feed_forward,
        decoder_ffn_dim=sizes.feed_forward,
        num_feature_levels=sizes.levels,
        num_queries=sizes.queries,
        dropout=0.0,
    )


def dino_to_transformers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an official Grounding DINO's tensors under the names transformers writes.

    Raises:
        CheckpointError: unknown tensors, or box heads of the layers that differ (transformers shares one).
    """
    for name, tensor in state.items():
        first = re.sub(r"^(transformer\.decoder\.)?bbox_embed\.\d+\.", "bbox_embed.0.", name)
        if first != name:
            check_names([first] if first not in state else [], [], "")
            if not torch.equal(tensor, state[first]):
                raise CheckpointError(f"the box heads differ ({name}), which no published checkpoint has")
    once = {name: tensor for name, tensor in state.items() if not re.fullmatch(SHARED, name)}
    return renaming.to_transformers(once, TEMPLATES, FUSED, UNUSED)


def dino_to_official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return transformers' Grounding DINO tensors under the official names, the shared box head repeated.

    Raises:
        CheckpointError: unknown tensors.
    """
    once = {name: tensor for name, tensor in state.items() if not re.fullmatch(_OURS_SHARED, name)}
    result = renaming.to_official(once, TEMPLATES, FUSED, _OURS_UNUSED)
    head = {name.removeprefix("bbox_embed.0."): t for name, t in result.items() if name.startswith("bbox_embed.0.")}
    for layer in range(count(result, "transformer.decoder.layers")):
        for name, tensor in head.items():
            result[f"bbox_embed.{layer}.{name}"] = tensor
            result[f"transformer.decoder.bbox_embed.{layer}.{name}"] = tensor
    return result
