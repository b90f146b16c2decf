"""The three networks: transformers' own classes at a size that two CPU cores run in about a tenth of a second.

Freshly built ones start badly where the published ones start from trained backbones: convolutions of the depth head
and of the mask decoder are so small that nothing passes through them, and the detector's products of queries and
words are sure of themselves before they know anything. Those parts are drawn again here.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch import nn

from vipocc.priors.embedded import EmbeddedModel

DEPTH_SIZE = (196, 644)
"""Height and width of the depth network's input."""
DETECTOR_SIZE = (192, 640)
"""Shortest and longest side of the detector's input."""
SEGMENTER_SIDE = 512
"""Longest side of SAM's square input."""
MAX_DEPTH = 80
"""Metres that the depth network reaches; the sky is there."""

_FIRST_DEPTH = 15.0
_FIRST_CHANCE = 0.02


def build(name: EmbeddedModel, seed: int) -> Any:
    """Return a fresh network in training mode, drawn from `seed`."""
    makers: dict[EmbeddedModel, Callable[[], Any]] = {
        "depth": depth_network,
        "detector": detector_network,
        "segmenter": segmenter_network,
    }
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        return makers[name]().train()
    finally:
        torch.random.set_rng_state(before)


def depth_network() -> Any:
    """Return a metric Depth Anything V2: DINOv2 of 6 blocks, patch 14, and the DPT neck and head."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=128, num_hidden_layers=6, num_attention_heads=4, mlp_ratio=3, image_size=322, patch_size=14,
        out_indices=[2, 3, 5, 6], apply_layernorm=True, reshape_hidden_states=False, layerscale_value=1.0,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=128, neck_hidden_sizes=[24, 48, 64, 96],
        fusion_hidden_size=40, head_hidden_size=16, depth_estimation_type="metric", max_depth=MAX_DEPTH,
    )  # fmt: skip
    network = DepthAnythingForDepthEstimation(config)
    _redraw(network.neck, 1.4)
    _redraw(network.head, 1.4)
    _start_near(network, _FIRST_DEPTH)
    return network


def detector_network() -> Any:
    """Return a Grounding DINO: Swin of 4 stages, BERT of 2 layers, 2 layers of encoder and 3 of decoder."""
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    from vipocc.apps.embedded.vocabulary import SIZE

    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=24, depths=[2, 2, 4, 2], num_heads=[1, 2, 4, 8], window_size=8, image_size=192, mlp_ratio=2,
            out_indices=[2, 3, 4], drop_path_rate=0.0,
        ),
        text_config=BertConfig(
            vocab_size=SIZE, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192,
            max_position_embeddings=256, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        ),
        d_model=96, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=192, decoder_ffn_dim=192,
        encoder_attention_heads=6, decoder_attention_heads=6, num_queries=100, disable_custom_kernels=True,
        dropout=0.0, fusion_droppath=0.0,
    )  # fmt: skip
    network = GroundingDinoForObjectDetection(config)
    _start_unsure(network.model, config.d_model)
    return network


def segmenter_network() -> Any:
    """Return a SAM: ViT of 6 blocks at 512 pixels, patch 16, two of them global, and its two-way mask decoder."""
    from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

    width, channels = 128, 96
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=width, output_channels=channels, num_hidden_layers=6, num_attention_heads=4,
            image_size=SEGMENTER_SIDE, patch_size=16, window_size=8, global_attn_indexes=[2, 5],
            num_pos_feats=channels // 2, mlp_dim=3 * width, initializer_range=0.02,
        ).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=channels, image_size=SEGMENTER_SIDE, patch_size=16, mask_input_channels=4
        ).to_dict(),
        # Eight heads, three layers in the heads and this epsilon: what the original package has built in.
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=channels, mlp_dim=3 * channels, num_hidden_layers=2, num_attention_heads=8,
            iou_head_hidden_dim=64, layer_norm_eps=1e-5,
        ).to_dict(),
    )  # fmt: skip
    network = SamModel(config)
    # transformers draws these waves half as many times as there are channels too fast: places next to each other, and
    # so the corners of boxes, would have nothing in common. The original draws them with a spread of 1 and keeps them.
    places = network.shared_image_embedding.positional_embedding
    assert places is network.prompt_encoder.shared_embedding.positional_embedding
    nn.init.normal_(places)
    places.requires_grad_(False)
    _redraw(network.vision_encoder.neck, 1.0)
    # Zeros at first: the padding below an image would be zeros through all blocks, and every norm's slope a thousand.
    nn.init.normal_(network.vision_encoder.pos_embed, std=0.02)
    for part in (network.mask_decoder.upscale_conv1, network.mask_decoder.upscale_conv2):
        _redraw(part, 1.4)
    _redraw(network.mask_decoder.output_hypernetworks_mlps, 1.2)
    return network


def _redraw(module: nn.Module, gain: float) -> None:
    """Draw the matrices of `module` with variance gain^2 / fan-in, so that signals keep their size through it."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight = layer.weight.data
            fan_in = weight[0].numel() if not isinstance(layer, nn.ConvTranspose2d) else weight.shape[0]
            nn.init.normal_(weight, std=gain / fan_in**0.5)


@torch.no_grad()
def _start_near(network: Any, depth: float) -> None:
    """Rescale the last layer so that the first depths are spread a little around `depth` metres."""
    seen: list[torch.Tensor] = []
    last = network.head.conv3
    hook = last.register_forward_hook(lambda _, __, logits: seen.append(logits))
    network.eval()(pixel_values=torch.randn(1, 3, 56, 112))
    hook.remove()
    scale = 0.3 / float(seen[0].std())
    last.weight.mul_(scale)
    last.bias.fill_(log(depth / (MAX_DEPTH - depth)) - float(seen[0].mean() - last.bias.mean()) * scale)


@torch.no_grad()
def _start_unsure(model: Any, width: int) -> None:
    """Make every first logit small around that of a chance of 2 %.

    Logits are products of a query and a word, without an offset of their own; both come out of layer norms, so these
    start with a small scale and with opposite constant parts whose product is the wanted logit.
    """
    wanted = log(_FIRST_CHANCE / (1 - _FIRST_CHANCE))
    words = model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    words.bias.fill_((4.0 / width) ** 0.5)
    for queries in (model.decoder.layer_norm, model.enc_output_norm):
        queries.weight.fill_(0.15)
        queries.bias.fill_(wanted / 4.0 * (4.0 / width) ** 0.5)
    words.weight.fill_(0.6)
