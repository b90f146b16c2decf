"""The network of Depth Anything V2 from a hub id, a folder or an original checkpoint, all through transformers."""

from __future__ import annotations

from typing import Any

import torch

from vipocc.errors import CheckpointError, ConfigError
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.official import from_official, hub_config, max_depth_of
from vipocc.priors.depth.positions import use_published_positions
from vipocc.priors.depth.processing import check_short_side, processing_fingerprint, uses_processor
from vipocc.priors.pth import find_pth, is_pth, load_pth
from vipocc.priors.weights import Weights, find_weights, load_model, read_config


def depth_weights(config: DepthConfig) -> tuple[Weights, dict[str, Any]]:
    """Return the weights that `config` names and their config.json, checked to be a metric Depth Anything.

    Raises:
        CheckpointError: no such model, a damaged one, another architecture, or one that gives relative depth.
        ConfigError: `short_side` is smaller than one patch; `max_depth` is needed and not given, or contradicts.
    """
    if is_pth(config.model):
        weights = find_pth(config.model, "--model")
        values = hub_config(load_pth(weights.folder, "--model"), weights.folder)
        values["max_depth"] = max_depth_of(config.model, config.max_depth)
    else:
        weights = find_weights(config.model, config.revision, "--model")
        values = read_config(weights, "depth_anything", "--model")
        if values.get("depth_estimation_type") != "metric" or not values.get("max_depth"):
            raise CheckpointError(
                "this Depth Anything gives relative depth, metres are needed",
                where=weights.folder,
                fix="give --model a metric one, such as depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
            )
        if config.max_depth not in (None, float(values["max_depth"])):
            raise ConfigError(
                f"--max-depth {config.max_depth:g} contradicts the model, "
                f"whose largest depth is {float(values['max_depth']):g}",
                where=weights.folder,
                fix="leave out --max-depth",
            )
    check_short_side(config, int(values.get("patch_size", 14)))
    return weights, values


def depth_fingerprint(config: DepthConfig) -> dict[str, Any]:
    """Return everything that decides a depth map but its image: model, revision, digest, licence and parameters."""
    weights, values = depth_weights(config)
    return {
        **weights.provenance(),
        "max_depth": float(values["max_depth"]),
        "images": config.images,
        **processing_fingerprint(config, weights),
        "dtype": config.dtype,
        "stored": config.stored,
    }


def load_network(config: DepthConfig, weights: Weights, values: dict[str, Any]) -> Any:
    """Return the network in evaluation mode, float32, on the CPU; its positions stretched as its preprocessing wants.

    Raises:
        CheckpointError: tensors are missing, of other shapes, or cannot be read.
    """
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    state: dict[str, torch.Tensor] | None = None
    settings = None
    if is_pth(config.model):
        state = from_official(load_pth(weights.folder, "--model"))
        settings = DepthAnythingConfig.from_dict({**values, "max_depth": 1})  # which has to be whole there
    network = load_model(DepthAnythingForDepthEstimation, weights, "--model", settings, state)
    network.head.max_depth = float(values["max_depth"])
    if not uses_processor(config, weights):
        use_published_positions(network)
    return network
