"""Original Depth Anything V2 checkpoints (`.pth`): names of their tensors, encoder sizes, what they leave unsaid.

The original files hold a DINOv2 under `pretrained.` and a DPT head under `depth_head.`, queries, keys and values in one
matrix. Here they get the names that the hub's files have, so that both come in by the same loading code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vipocc.errors import CheckpointError, ConfigError

MAX_DEPTHS = {"vkitti": 80.0, "hypersim": 20.0}
"""Metres that the official metric models reach, by the data they were trained on, which their file names state."""

_OFFICIAL = re.compile(r"depth_anything_v2_(?:metric_(?P<data>vkitti|hypersim)_)?vit[sblg]")


@dataclass(frozen=True)
class Encoder:
    """One size of the published encoder and the layers whose output the head takes."""

    width: int
    layers: int
    heads: int
    taps: tuple[int, ...]
    """Layers whose output is taken, counted from 0."""


ENCODERS = (
    Encoder(384, 12, 6, (2, 5, 8, 11)),
    Encoder(768, 12, 12, (2, 5, 8, 11)),
    Encoder(1024, 24, 16, (4, 11, 17, 23)),
)
"""ViT-S, ViT-B and ViT-L; only width and number of layers can be read off a file."""


def encoder_of(state: Mapping[str, torch.Tensor], where: Path) -> Encoder:
    """Return the encoder of an original state dict, told from its shapes.

    Raises:
        CheckpointError: it is no Depth Anything V2, or of a size that was not published with metric depth.
    """
    width = state["pretrained.pos_embed"].shape[-1] if "pretrained.pos_embed" in state else None
    layers = _layers(state)
    for encoder in ENCODERS:
        if (encoder.width, encoder.layers) == (width, layers):
            return encoder
    what = "not an original Depth Anything V2 (it has no tensor pretrained.pos_embed)"
    if width is not None:
        what = f"an encoder of width {width} and {layers} layers, where ViT-S, ViT-B or ViT-L is expected"
    raise CheckpointError(what, where=where, fix="give --model an original Depth Anything V2, or a hub id or folder")


def max_depth_of(name: str, given: float | None) -> float:
    """Return the metres that the network's output of 1 means; an original checkpoint itself does not say.

    Args:
        name: the file's name, which tells it of official files.
        given: what the user says (`--max-depth`).

    Raises:
        CheckpointError: the official name says that the model gives relative depth.
        ConfigError: neither tells, or they contradict each other.
    """
    official = _OFFICIAL.fullmatch(Path(name).stem.lower())
    if official is None:
        if given is None:
            raise ConfigError(
                "an original checkpoint does not hold its largest depth, and this name does not tell it",
                where=name,
                fix="say it by --max-depth (80 for outdoor models, 20 for indoor ones)",
            )
        return given
    if official["data"] is None:
        raise CheckpointError(
            "this Depth Anything gives relative depth, metres are needed",
            where=name,
            fix="give --model a metric one, such as depth_anything_v2_metric_vkitti_vits.pth",
        )
    known = MAX_DEPTHS[official["data"]]
    if given is not None and given != known:
        raise ConfigError(f"--max-depth {given:g} contradicts the model, whose largest depth is {known:g}", where=name)
    return known


def hub_config(state: Mapping[str, torch.Tensor], where: Path) -> dict[str, Any]:
    """Return what config.json of the same model on the hub says, read off the shapes of an original state dict.

    All but `max_depth`, which no shape tells: it stands there as 1.

    Raises:
        CheckpointError: see `encoder_of`; also tensors that are missing or that no part of the network takes.
    """
    encoder = encoder_of(state, where)
    _check_names(state.keys(), encoder.layers, where)
    positions, patch = state["pretrained.pos_embed"].shape[1] - 1, state["pretrained.patch_embed.proj.weight"].shape[-1]
    return {
        "model_type": "depth_anything",
        "depth_estimation_type": "metric",
        "max_depth": 1,
        "patch_size": patch,
        "reassemble_hidden_size": encoder.width,
        "neck_hidden_sizes": [state[f"depth_head.projects.{k}.weight"].shape[0] for k in range(4)],
        "fusion_hidden_size": state["depth_head.scratch.layer1_rn.weight"].shape[0],
        "head_hidden_size": state["depth_head.scratch.output_conv2.0.weight"].shape[0],
        "backbone_config": {
            "model_type": "dinov2",
            "hidden_size": encoder.width,
            "num_hidden_layers": encoder.layers,
            "num_attention_heads": encoder.heads,
            "mlp_ratio": state["pretrained.blocks.0.mlp.fc1.weight"].shape[0] // encoder.width,
            "image_size": round(positions**0.5) * patch,
            "patch_size": patch,
            "out_indices": [tap + 1 for tap in encoder.taps],
            "apply_layernorm": True,
            "reshape_hidden_states": False,
        },
    }


def from_official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an original state dict under the names of the hub's files; tensors are views, not copies."""
    renamed: dict[str, torch.Tensor] = {}
    for original, ours in _names(_layers(state)).items():
        parts = state[original].chunk(len(ours)) if len(ours) > 1 else (state[original],)
        renamed |= dict(zip(ours, parts, strict=True))
    return renamed


def to_official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a hub's file under their original names: the inverse of `from_official`."""
    layers = len({name.split(".")[3] for name in state if name.startswith("backbone.encoder.layer.")})
    return {
        original: torch.cat([state[name] for name in ours]) if len(ours) > 1 else state[ours[0]]
        for original, ours in _names(layers).items()
    }


def _check_names(held: Collection[str], layers: int, where: Path) -> None:
    wanted = _names(layers)
    missing = [name for name in wanted if name not in held]
    unknown = sorted(name for name in held if name not in wanted)
    for names, what in ((missing, "misses"), (unknown, "has, beyond Depth Anything V2,")):
        if names:
            shown = ", ".join(names[:3])
            raise CheckpointError(
                f"the checkpoint {what} {len(names)} tensors ({shown}{', …' if len(names) > 3 else ''})",
                where=where,
                fix="download it again or correct --model",
            )


def _layers(state: Mapping[str, torch.Tensor]) -> int:
    return len({name.split(".")[2] for name in state if name.startswith("pretrained.blocks.")})


def _names(layers: int) -> dict[str, tuple[str, ...]]:
    """Return the hub's name of every original tensor; three for the fused queries, keys and values, in that order."""
    found: dict[str, tuple[str, ...]] = {
        "pretrained.cls_token": ("backbone.embeddings.cls_token",),
        "pretrained.mask_token": ("backbone.embeddings.mask_token",),
        "pretrained.pos_embed": ("backbone.embeddings.position_embeddings",),
    }

    def both(original: str, *ours: str) -> None:
        for kind in ("weight", "bias"):
            found[f"{original}.{kind}"] = tuple(f"{name}.{kind}" for name in ours)

    both("pretrained.patch_embed.proj", "backbone.embeddings.patch_embeddings.projection")
    both("pretrained.norm", "backbone.layernorm")
    for k in range(layers):
        block, layer = f"pretrained.blocks.{k}", f"backbone.encoder.layer.{k}"
        both(f"{block}.attn.qkv", *(f"{layer}.attention.attention.{part}" for part in ("query", "key", "value")))
        both(f"{block}.attn.proj", f"{layer}.attention.output.dense")
        for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            both(f"{block}.{part}", f"{layer}.{part}")
        for number in (1, 2):
            found[f"{block}.ls{number}.gamma"] = (f"{layer}.layer_scale{number}.lambda1",)
    scratch, fusion = "depth_head.scratch", "neck.fusion_stage.layers"
    for k in range(4):
        both(f"depth_head.projects.{k}", f"neck.reassemble_stage.layers.{k}.projection")
        if k != 2:  # the third level keeps its size
            both(f"depth_head.resize_layers.{k}", f"neck.reassemble_stage.layers.{k}.resize")
        found[f"{scratch}.layer{k + 1}_rn.weight"] = (f"neck.convs.{k}.weight",)
        # The original counts refinements from the finest level, the hub from the coarsest, which comes first.
        refine, layer = f"{scratch}.refinenet{4 - k}", f"{fusion}.{k}"
        both(f"{refine}.out_conv", f"{layer}.projection")
        for unit in (1, 2):
            for conv in (1, 2):
                both(f"{refine}.resConfUnit{unit}.conv{conv}", f"{layer}.residual_layer{unit}.convolution{conv}")
    both(f"{scratch}.output_conv1", "head.conv1")
    both(f"{scratch}.output_conv2.0", "head.conv2")
    both(f"{scratch}.output_conv2.2", "head.conv3")
    return found
