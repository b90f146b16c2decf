"""Depth Anything V2 (metric) through transformers: loading, inference, provenance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.errors import CheckpointError, ConfigError, DeviceError, NonFiniteError
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.preprocessing import PREPROCESSING, postprocess, preprocess
from vipocc.priors.devices import check_dtype
from vipocc.priors.weights import Weights, find_weights, load_model, read_config


def depth_weights(config: DepthConfig) -> tuple[Weights, dict[str, Any]]:
    """Return the weights that `config` names and their config.json, checked to be a metric Depth Anything.

    Raises:
        CheckpointError: no such model, a damaged one, another architecture, or one that gives relative depth.
        ConfigError: `short_side` is smaller than one patch of the network.
    """
    weights = find_weights(config.model, config.revision, "--model")
    values = read_config(weights, "depth_anything", "--model")
    if values.get("depth_estimation_type") != "metric" or not values.get("max_depth"):
        raise CheckpointError(
            "this Depth Anything gives relative depth, metres are needed",
            where=weights.folder,
            fix="give --model a metric one, such as depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
        )
    if config.short_side < int(values.get("patch_size", 14)):
        raise ConfigError(
            f"priors.depth.short_side is {config.short_side}, less than one patch of the network",
            fix="set -o priors.depth.short_side=518",
        )
    return weights, values


def depth_fingerprint(config: DepthConfig) -> dict[str, Any]:
    """Return everything that decides a depth map but its image: model, revision, digest, licence and parameters."""
    weights, values = depth_weights(config)
    return {
        "source": "transformers",
        **weights.provenance(),
        "max_depth": float(values["max_depth"]),
        "preprocessing": PREPROCESSING,
        "short_side": config.short_side,
        "dtype": config.dtype,
        "stored": config.stored,
    }


class DepthAnything:
    """A loaded metric Depth Anything V2 on one device."""

    def __init__(self, config: DepthConfig, device: str = "cpu") -> None:
        """Load the model.

        Raises:
            CheckpointError: see `depth_weights`; also a checkpoint with tensors missing or of other shapes.
            DeviceError: bfloat16 without CUDA.
        """
        check_dtype(config.dtype, device)
        from transformers import DepthAnythingForDepthEstimation

        self.config, self.device = config, torch.device(device)
        self.weights, values = depth_weights(config)
        self.max_depth = float(values["max_depth"])
        self.patch = int(values.get("patch_size", 14))
        self.model = load_model(DepthAnythingForDepthEstimation, self.weights, "--model").to(self.device)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return depth float32 [B, H, W] in metres, 0 to `max_depth`, for RGB images uint8 [B, H, W, 3].

        Raises:
            NonFiniteError: the network gave a number that is not finite.
            DeviceError: the device ran out of memory.
        """
        height, width = images.shape[1:3]
        result = np.empty(images.shape[:3], np.float32)
        for start in range(0, len(images), self.config.batch_size):
            batch = preprocess(images[start : start + self.config.batch_size], self.config.short_side, self.patch)
            try:
                # TF32 would make "float32" on CUDA mean 10 bits of mantissa in the convolutions.
                with (
                    torch.backends.cudnn.flags(allow_tf32=False),
                    torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"),
                ):
                    predicted = self.model(pixel_values=batch.to(self.device)).predicted_depth
            except torch.OutOfMemoryError:
                raise DeviceError(
                    f"out of memory with {len(batch)} images of {batch.shape[2]}x{batch.shape[3]} at once",
                    where=self.device,
                    fix="lower --batch-size",
                ) from None
            depth = postprocess(predicted, height, width)
            if not torch.isfinite(depth).all():
                bad = start + int((~torch.isfinite(depth)).flatten(1).any(1).nonzero()[0])
                raise NonFiniteError(
                    f"the depth network gave numbers that are not finite for image {bad} of the batch",
                    where=self.weights.name,
                    fix="use --dtype float32, or check the weights",
                )
            result[start : start + len(batch)] = depth.cpu().numpy()
        return result
