"""Full-size Grounding DINO and SAM with random weights, to time and compare what needs no meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vipocc.priors.tiny import _save, _seeded, make_tiny_grounding_dino


def make_random_detector(folder: Path, seed: int = 0, device: str = "cpu") -> Path:
    """Write a Grounding DINO of the published size (Swin-T, BERT-base, 900 queries) and a tokenizer into `folder`.

    The tokenizer is the tiny model's: it knows the words of the default prompt alone.
    """
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    make_tiny_grounding_dino(folder, width=256)
    swin = SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, image_size=224,
        out_indices=[2, 3, 4],
    )  # fmt: skip
    with _seeded(seed):
        with torch.device(device):
            model: Any = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin))
        _redraw(model)
        # Logits are products of these with words: they spread like those of a trained model, over some units.
        for norm in (model.model.enc_output_norm, model.model.decoder.layer_norm):
            nn.init.constant_(norm.weight, 0.2)
    return _save(folder, model.cpu())


def make_random_segmenter(folder: Path, seed: int = 0, device: str = "cpu") -> Path:
    """Write a SAM of the published size ViT-H into `folder`."""
    from transformers import SamConfig, SamModel

    vit = {
        "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120,
        "global_attn_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    with _seeded(seed):
        with torch.device(device):
            model = SamModel(SamConfig(vision_config=vit))
        _redraw(model)
    return _save(folder, model.cpu())


def _redraw(model: nn.Module) -> None:
    """Draw matrices wider than a fresh network has them: there signals fade, and the answer is little but rounding."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            fan_in = len(layer.weight) if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=0.7 / fan_in**0.5)
