"""The two ways from images to the network and back: the published one, and that of the hub's own image processor."""

from __future__ import annotations

import json
from typing import Any, Protocol

import torch

from vipocc.errors import CheckpointError, ConfigError
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.preprocessing import (
    NATIVE,
    OFFICIAL,
    Preprocessor,
    native_size,
    network_size,
    postprocess,
    preprocess_reference,
)
from vipocc.priors.weights import PROCESSOR, Weights, quiet_transformers

HUB = "hub-1: the processor that the model's folder describes, torchvision; positions as transformers has them"


class Processing(Protocol):
    """How images go in and depth comes out."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's input float32 [B, 3, h, w] for RGB images uint8 [B, H, W, 3] on the device."""
        ...

    def back(self, depth: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Return the network's depth [B, h, w] at the images' size, float32 [B, height, width]."""
        ...


def uses_processor(config: DepthConfig, weights: Weights) -> bool:
    """Return whether images go in through the model's own image processor.

    With `auto` they do where that processor sends every image in at one size: the network was trained at it. Those of
    the published models keep the aspect instead, and the published code does not use them.
    """
    if config.preprocessing != "auto":
        return config.preprocessing == "hub"
    if config.input_size == "native" or not (weights.folder / PROCESSOR).is_file():
        return False
    return _hub_values(weights).get("keep_aspect_ratio") is False


def processing_fingerprint(config: DepthConfig, weights: Weights) -> dict[str, Any]:
    """Return what of the processing decides the numbers.

    Raises:
        CheckpointError: `hub` was asked for, and the model does not come with a processor.
    """
    if uses_processor(config, weights):
        return {"preprocessing": HUB, "processor": _hub_values(weights)}
    if config.input_size == "native":
        return {"preprocessing": NATIVE}
    return {"preprocessing": OFFICIAL, "short_side": config.short_side}


def make_processing(config: DepthConfig, weights: Weights, patch: int, device: torch.device) -> Processing:
    """Return the processing that `config` names.

    Raises:
        CheckpointError: `hub` was asked for, and the model does not come with a processor.
        ConfigError: `short_side` is smaller than one patch of the network.
    """
    if uses_processor(config, weights):
        return HubProcessing(weights)
    check_short_side(config, patch)
    return PublishedProcessing(config, patch, device)


def check_short_side(config: DepthConfig, patch: int) -> None:
    """Raise `ConfigError` if the network's input would be smaller than a patch."""
    if config.short_side < patch:
        raise ConfigError(
            f"priors.depth.short_side is {config.short_side}, less than one patch of the network",
            fix="set -o priors.depth.short_side=518",
        )


class PublishedProcessing:
    """cv2's cubic resize, ImageNet normalisation; bilinear back with corners aligned."""

    def __init__(self, config: DepthConfig, patch: int, device: torch.device) -> None:
        self.config, self.patch, self.device = config, patch, device
        self._made: dict[tuple[int, int], Preprocessor] = {}

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which an image of `height` x `width` goes into the network."""
        if self.config.input_size == "native":
            return native_size(height, width, self.patch)
        return network_size(height, width, self.config.short_side, self.patch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See `Processing`."""
        image = int(images.shape[1]), int(images.shape[2])
        if self.device.type == "cpu":  # cv2 knows that its matrices are nearly empty: five times faster there
            return preprocess_reference(images.numpy(), self.size(*image))
        if image not in self._made:
            self._made[image] = Preprocessor(image, self.size(*image), self.device)
        return self._made[image](images)

    def back(self, depth: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """See `Processing`."""
        return postprocess(depth, height, width)


class HubProcessing:
    """The image processor that stands beside the weights on the hub: 192x640 goes in at 154x518."""

    def __init__(self, weights: Weights) -> None:
        from transformers import DPTImageProcessor

        _hub_values(weights)
        with quiet_transformers():
            self.processor = DPTImageProcessor.from_pretrained(weights.folder, local_files_only=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See `Processing`."""
        planes = list(images.permute(0, 3, 1, 2))
        pixels: torch.Tensor = self.processor(images=planes, return_tensors="pt", device=images.device)["pixel_values"]
        return pixels

    def back(self, depth: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """See `Processing`."""
        from transformers.modeling_outputs import DepthEstimatorOutput

        found = self.processor.post_process_depth_estimation(
            DepthEstimatorOutput(predicted_depth=depth.float()), target_sizes=[(height, width)] * len(depth)
        )
        return torch.stack([one["predicted_depth"] for one in found])


def _hub_values(weights: Weights) -> dict[str, Any]:
    path = weights.folder / PROCESSOR
    fix = "leave out --preprocessing hub, or give --model a hub id or a folder that `hf download` filled"
    if not path.is_file():
        raise CheckpointError("the model does not come with an image processor", where=weights.folder, fix=fix)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise CheckpointError("the image processor's settings cannot be read", where=path, fix=fix)
    return values
