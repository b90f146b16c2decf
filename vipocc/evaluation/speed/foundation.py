"""The foundation model that the depth branch needs at every image, where its weights are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vipocc.errors import DeviceError
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.depth_anything import DepthAnything


def is_here(config: DepthConfig) -> bool:
    """Tell whether the weights that `config` names are on this machine; asks no network."""
    if Path(config.model).expanduser().exists():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(config.model, "config.json", revision=config.revision), str)
    except HFValidationError:
        return False


class Foundation:
    """Depth Anything V2 on the device, as `vipocc priors depth` runs it on prepared images."""

    def __init__(self, config: DepthConfig, device: torch.device) -> None:
        """Load it; errors as `DepthAnything`."""
        self.network = DepthAnything(config.model_copy(update={"images": "prepared", "compiled": False}), str(device))
        self.name = Path(config.model).name
        self.precision = config.dtype
        self.parameters = sum(one.numel() for one in self.network.network.parameters())

    @torch.inference_mode()
    def depth(self, images: Tensor) -> Tensor:
        """Return metres float32 [B, 1, H, W] of images uint8 [B, H, W, 3] on the device.

        Raises:
            DeviceError: the batch does not fit into the device's memory.
        """
        height, width = images.shape[1:3]
        try:
            found: Tensor = self.network.processing.back(self.network.forward(images), height, width)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{len(images)} images at once do not fit into the device's memory with {self.name}",
                fix="use a smaller --batch-size",
            ) from error
        return found[:, None].float()

    def call(self, images: Tensor) -> Callable[[], Any]:
        """Return it as a call on images uint8 [B, H, W, 3]."""
        return lambda: self.depth(images)
