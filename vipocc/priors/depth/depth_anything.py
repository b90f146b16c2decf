"""Inference with Depth Anything V2 (metric): many images in, metres out, the device kept busy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vipocc.errors import NonFiniteError
from vipocc.priors.arithmetic import arithmetic
from vipocc.priors.batching import LARGEST, BatchSize
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.loading import depth_fingerprint, depth_weights, load_network
from vipocc.priors.depth.processing import make_processing
from vipocc.priors.devices import check_compiled, check_dtype

__all__ = ["DepthAnything", "depth_fingerprint"]


class DepthAnything:
    """A loaded metric Depth Anything V2 on one device."""

    def __init__(self, config: DepthConfig, device: str = "cpu") -> None:
        """Load the model.

        Raises:
            CheckpointError: see `depth_weights`; also a checkpoint with tensors missing or of other shapes.
            ConfigError: see `depth_weights`.
            DeviceError: bfloat16 or compiling without CUDA.
        """
        check_dtype(config.dtype, device)
        check_compiled(config.compiled, device)
        self.config, self.device = config, torch.device(device)
        self.weights, values = depth_weights(config)
        self.max_depth = float(values["max_depth"])
        self.patch = int(values.get("patch_size", 14))
        self.processing = make_processing(config, self.weights, self.patch, self.device)
        self.batch = BatchSize(config.batch_size, self.device)
        network = load_network(config, self.weights, values).to(self.device)
        if config.dtype == "bfloat16":
            use_bfloat16(network.backbone)
        if self.device.type == "cuda":
            network = network.to(memory_format=torch.channels_last)
        self.network = network
        self._compiled = False

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], size: tuple[int, int] | None = None) -> NDArray[np.floating[Any]]:
        """Return depth [B, H, W] in metres, 0 to `max_depth`, in the type that is stored.

        Args:
            images: RGB uint8 [B, H, W, 3].
            size: (height, width) of the result if it is not that of the images: each pixel is then looked up,
                bilinearly, where its centre lies in the images.

        Raises:
            NonFiniteError: the network gave a number that is not finite.
            DeviceError: the device ran out of memory, see `BatchSize`.
        """
        height, width = images.shape[1:3]
        size = size or (height, width)
        given = torch.from_numpy(np.ascontiguousarray(images))
        if self.device.type == "cuda":
            given = given.pin_memory().to(self.device, non_blocking=True)
        self.batch.find(lambda count: self.forward(_some(given, count)), self._largest(given))
        if self.config.compiled and not self._compiled:
            self._compile()
        # The device is given all its work before it is waited for, so that it never waits for us.
        parts = list(self.batch.split(len(given), lambda start, stop: self._depth(given[start:stop], size)))
        depth = torch.cat(parts)
        finite = torch.isfinite(depth).flatten(1).all(1).cpu()
        if not finite.all():
            bad = int((~finite).nonzero()[0])
            raise NonFiniteError(
                f"the depth network gave numbers that are not finite for image {bad} of the batch",
                where=self.weights.name,
                fix="use --dtype float32, or check the weights",
            )
        return np.asarray(depth.cpu().numpy())

    def _depth(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return depth [B, *size] in the stored type for images uint8 [B, H, W, 3], both on the device."""
        height, width = images.shape[1:3]
        depth = self.processing.back(self._predict(images), height, width)
        if size != (height, width):
            depth = nn.functional.interpolate(depth[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return depth.to(getattr(torch, self.config.stored))

    def _predict(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's depth [B, h, w]."""
        # Compiled for one size: a smaller last batch is filled up rather than compiled for.
        return self.forward(_some(images, self.batch.size) if self._compiled else images)[: len(images)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's depth [B, h, w] for images uint8 [B, H, W, 3] on the device."""
        return self.infer(self.processing.forward(images))

    def infer(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the network's depth [B, h, w] for its input float32 [B, 3, h, w] on the device.

        With bfloat16 only the encoder computes in it, which is five sixths of the work. The neck and the head, a chain
        of convolutions whose every rounding reaches depth, stay float32 and may use TF32: three bits more.
        """
        grid = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        half = self.config.dtype == "bfloat16"
        with arithmetic(self.device, self.config.dtype):
            features = self.network.backbone.forward_with_filtered_kwargs(pixels).feature_maps
        with arithmetic(self.device, "float32", tf32=half):
            levels = self.network.neck([level.float() for level in features], *grid)
            predicted: torch.Tensor = self.network.head(levels, *grid)
        return predicted

    def _largest(self, images: torch.Tensor) -> int:
        """Return the most images at once whose largest map has fewer values than torch's kernels can count."""
        if self.device.type == "cpu":
            return LARGEST
        height, width = self.processing.forward(images[:1]).shape[-2:]
        return min(LARGEST, (2**31 - 1) // (int(self.network.head.conv2.in_channels) * height * width))

    def _compile(self) -> None:
        # Part by part: the blocks are one piece of code compiled once, and transformers' wrappers stay outside.
        for part in (*self.network.backbone.encoder.layer, self.network.neck, self.network.head):
            part.compile(dynamic=False)
        self._compiled = True


def _some(images: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first `count` images, the last repeated where there are fewer."""
    missing = count - len(images)
    return torch.cat((images, images[-1:].expand(missing, -1, -1, -1))) if missing > 0 else images[:count]


def use_bfloat16(encoder: nn.Module) -> None:
    """Keep an encoder's weights of products and convolutions in bfloat16, as autocast would turn them each time.

    The rest (norms, layer scales, positions) and the sum that runs through the blocks stay float32.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(torch.bfloat16)
