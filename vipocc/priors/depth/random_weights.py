"""Full-size Depth Anything V2 with random weights, to time and compare what needs no meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from vipocc.priors.depth.official import ENCODERS
from vipocc.priors.tiny import _redraw, _save, _seeded, _spread

HEADS = {"s": (64, [48, 96, 192, 384]), "b": (128, [96, 192, 384, 768]), "l": (256, [256, 512, 1024, 1024])}
"""Features and channels of the published heads, by encoder size."""


def make_random_depth(folder: Path, size: Literal["s", "b", "l"], seed: int = 0) -> Path:
    """Write a metric Depth Anything V2 of a published size into `folder`; its depth varies and means nothing.

    Layer scales are .2: trained ones are well below 1, where noise would grow from block to block.
    """
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    encoder, (features, neck) = ENCODERS["sbl".index(size)], HEADS[size]
    with _seeded(seed):
        model = DepthAnythingForDepthEstimation(
            DepthAnythingConfig(
                backbone_config=Dinov2Config(
                    hidden_size=encoder.width, num_hidden_layers=encoder.layers, num_attention_heads=encoder.heads,
                    image_size=518, patch_size=14, out_indices=[tap + 1 for tap in encoder.taps],
                    apply_layernorm=True, reshape_hidden_states=False,
                ),
                reassemble_hidden_size=encoder.width, neck_hidden_sizes=neck, fusion_hidden_size=features,
                head_hidden_size=32, depth_estimation_type="metric", max_depth=80,
            )
        )  # fmt: skip
        for name, tensor in model.named_parameters():
            if name.endswith("lambda1"):
                nn.init.constant_(tensor, 0.2)
        _redraw(model, 1.0)
        _spread(model)
    return _save(folder, model)
