"""Small foundation models of the real architectures with random weights, for tests, the demo and trial runs.

They hold a few hundred kilobytes, load through the code that a user's weights take, and answer with something that
varies from image to image and from pixel to pixel. They know nothing: their depth and boxes mean nothing.

Freshly built models would not do. A metric Depth Anything starts with a head so small that every pixel is half of
`max_depth`; Grounding DINO starts with box heads of zeros and sampling offsets that no query changes. So the heads
are drawn again here, wider, from a generator of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vipocc.priors.config import CLASSES
from vipocc.priors.weights import quiet_transformers

_SPECIAL_TOKENS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
"""BERT's own numbers: Grounding DINO finds the ends of phrases by 101, 102, 1012 and 1029, whatever the vocabulary."""


def make_tiny_depth(folder: Path, seed: int = 0, *, max_depth: int = 80) -> Path:
    """Write a metric Depth Anything V2 of about 0.1 M parameters (Dinov2 of 4 blocks, patch 14) into `folder`.

    Its depth spreads over the middle of 0 to `max_depth` metres and follows the image.
    """
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    with _seeded(seed):
        backbone = Dinov2Config(
            hidden_size=24, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=70, patch_size=14,
            out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
        )  # fmt: skip
        config = DepthAnythingConfig(
            backbone_config=backbone, reassemble_hidden_size=24, neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=16, head_hidden_size=8, depth_estimation_type="metric", max_depth=max_depth,
        )  # fmt: skip
        model = DepthAnythingForDepthEstimation(config)
        _redraw(model, 1.0)
        _spread(model)
    return _save(folder, model)


def make_tiny_grounding_dino(
    folder: Path, seed: int = 0, *, words: Sequence[str] | None = None, queries: int = 24, width: int = 32
) -> Path:
    """Write a Grounding DINO of about 0.3 M parameters (Swin of 4 stages, BERT of 1 layer) and a tokenizer.

    With a `width` of 256 (about 5 M parameters) the original package can build it too.

    Args:
        folder: where to.
        seed: of the weights.
        words: what the tokenizer knows; by default the words of the default prompt.
        queries: boxes it proposes per image.
        width: channels of the transformer; the original package's query embedding knows 256 alone.
    """
    from transformers import BertConfig, BertTokenizer, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    if words is None:
        words = [word for entry in CLASSES for phrase in entry.phrases for word in phrase.split()]
    vocabulary = dict(_SPECIAL_TOKENS)
    # The gaps must be filled: ids index the embedding, and a tokenizer with holes is refused by some readers.
    free = (number for number in range(1, 1030) if number not in _SPECIAL_TOKENS.values())
    vocabulary |= {word: next(free) for word in dict.fromkeys(words)}
    vocabulary |= {f"[unused{number}]": number for number in free}
    with _seeded(seed):
        config = GroundingDinoConfig(
            backbone_config=SwinConfig(
                embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
                out_indices=[2, 3, 4],
            ),
            text_config=BertConfig(
                vocab_size=1030, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32,
                max_position_embeddings=256,
            ),
            d_model=width, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
            encoder_attention_heads=2, decoder_attention_heads=2, num_queries=queries, disable_custom_kernels=True,
            dropout=0.0, fusion_droppath=0.0,
        )  # fmt: skip
        model = GroundingDinoForObjectDetection(config)
        _redraw(model.model.text_backbone, 0.5)
        _redraw(model.model.text_projection, 1.0)
        _redraw(model.model.enc_output, 1.0)
        # Logits are products of queries and words: without this every box would be certain of its class.
        model.model.decoder.layer_norm.weight.data.mul_(0.3 * (32 / width) ** 0.5)
        for head in (*model.bbox_embed, model.model.encoder_output_bbox_embed):
            _redraw(head, 1.0)
            # Proposals are a twentieth of the image; real objects are larger.
            head.layers[-1].bias.data = torch.tensor([0.0, 0.0, 1.2, 1.2])
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True)
    _save(folder, model)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_sam(folder: Path, seed: int = 0, *, image_size: int = 128) -> Path:
    """Write a SAM of about 0.1 M parameters (ViT of 2 blocks, patch 16, `image_size` pixels square) into `folder`.

    SAM proper works at 1024 pixels; a mask comes at a quarter of `image_size`.
    """
    from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

    with _seeded(seed):
        config = SamConfig(
            vision_config=SamVisionConfig(
                hidden_size=24, output_channels=32, num_hidden_layers=2, num_attention_heads=2, image_size=image_size,
                patch_size=16, window_size=4, global_attn_indexes=[1], num_pos_feats=16, mlp_dim=32,
                initializer_range=0.02,
            ).to_dict(),
            prompt_encoder_config=SamPromptEncoderConfig(
                hidden_size=32, image_size=image_size, patch_size=16, mask_input_channels=4
            ).to_dict(),
            # Eight heads, three layers in the heads and this epsilon: what the original package has built in.
            mask_decoder_config=SamMaskDecoderConfig(
                hidden_size=32, mlp_dim=32, num_hidden_layers=2, num_attention_heads=8, iou_head_hidden_dim=16,
                layer_norm_eps=1e-5,
            ).to_dict(),
        )  # fmt: skip
        model = SamModel(config)
        _redraw(model, 0.7)
    return _save(folder, model)


class _seeded:
    """Draw from a generator of its own, leaving torch's global one as it was."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.before = torch.random.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.random.set_rng_state(self.before)


def _redraw(module: nn.Module, gain: float) -> None:
    """Draw the matrices of `module` with variance gain^2 / fan-in, so that signals keep their size through it."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight = layer.weight.data
            fan_in = weight[0].numel() if not isinstance(layer, nn.ConvTranspose2d) else weight.shape[0]
            nn.init.normal_(weight, std=gain / fan_in**0.5)


@torch.no_grad()
def _spread(model: Any) -> None:
    """Rescale the last layer of a depth model so that the logits of a picture of blobs have mean -0.8 and spread 0.8.

    A sigmoid then gives depths from about 8 to 55 of 80 metres.
    """
    picture = torch.nn.functional.interpolate(torch.randn(1, 3, 8, 24), (112, 336), mode="bicubic")
    last = model.head.conv3
    depth = model.eval()(pixel_values=picture).predicted_depth.double() / model.head.max_depth
    logits = torch.special.logit(depth, eps=1e-9)
    scale = float(0.8 / logits.std())
    last.weight.mul_(scale)
    last.bias.copy_((last.bias - float(logits.mean())) * scale - 0.8)


def _save(folder: Path, model: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.eval().save_pretrained(folder)
    return folder
