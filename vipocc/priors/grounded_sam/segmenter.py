"""SAM: one mask for each box, by either engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vipocc.errors import DeviceError, NonFiniteError
from vipocc.priors.arithmetic import arithmetic
from vipocc.priors.config import SamConfig
from vipocc.priors.devices import check_dtype
from vipocc.priors.grounded_sam.engines import load_segmenter
from vipocc.priors.grounded_sam.networks import SegmenterNetwork
from vipocc.priors.grounded_sam.preprocessing import masks_to_image, segmenter_input, segmenter_size
from vipocc.priors.grounded_sam.records import Detections


class Segmenter(Protocol):
    """What cuts instances out: both engines stand behind this."""

    def __call__(self, images: NDArray[np.uint8], detections: Sequence[Detections]) -> list[NDArray[np.bool_]]:
        """Return masks bool [K, H, W] for the boxes of each of the RGB images uint8 [B, H, W, 3]."""
        ...


class Sam:
    """A loaded SAM on one device: the `Segmenter`."""

    def __init__(self, config: SamConfig, device: str = "cpu") -> None:
        """Load the model by the engine that its weights ask for.

        Raises:
            CheckpointError: no such model, or a damaged or incomplete one.
            DeviceError: bfloat16 without CUDA.
        """
        check_dtype(config.dtype, device)
        self.config, self.device = config, torch.device(device)
        self.network: SegmenterNetwork = load_segmenter(config)
        if isinstance(self.network, nn.Module):
            self.network.to(self.device)
        self.side = self.network.side

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], detections: Sequence[Detections]) -> list[NDArray[np.bool_]]:
        """Return masks bool [K, H, W] for the boxes of each of the RGB images uint8 [B, H, W, 3].

        Images without a box are not encoded. Masks of one image may overlap.

        Raises:
            NonFiniteError: the network gave numbers that are not finite.
            DeviceError: the device ran out of memory.
        """
        height, width = images.shape[1:3]
        masks = [np.zeros((len(found), height, width), bool) for found in detections]
        wanted = [index for index, found in enumerate(detections) if len(found)]
        size = self.config.batch_size
        for batch in (wanted[start : start + size] for start in range(0, len(wanted), size)):
            counts = [len(detections[index]) for index in batch]
            try:
                with arithmetic(self.device, self.config.dtype):
                    embeddings = self.network.encode(self._pixels(images[batch]))
                    together = self._decode(embeddings, counts, [detections[index].boxes for index in batch], images)
            except torch.OutOfMemoryError:
                raise DeviceError(
                    f"out of memory with {len(batch)} images of {self.side}x{self.side} at once",
                    where=self.device,
                    fix="lower --batch-size or -o priors.sam.boxes_at_once",
                ) from None
            for index, some in zip(batch, np.split(together, np.cumsum(counts)[:-1]), strict=True):
                masks[index] = some
        return masks

    def _pixels(self, images: NDArray[np.uint8]) -> torch.Tensor:
        return segmenter_input(
            images, self.side, encoding=self.config.encoding, patch=self.network.patch, device=self.device
        )

    def _decode(
        self,
        embeddings: torch.Tensor,
        counts: Sequence[int],
        boxes: Sequence[NDArray[np.float32]],
        images: NDArray[np.uint8],
    ) -> NDArray[np.bool_]:
        """Return the masks of all boxes of a batch, decoded `boxes_at_once` at a time whichever image they are of."""
        height, width = images.shape[1:3]
        # The image's sides are rounded separately on the way to SAM's square, and so are the boxes'.
        inside = segmenter_size(height, width, self.side)
        scale = np.array([inside[1] / width, inside[0] / height] * 2)
        prompts = torch.from_numpy((np.concatenate(boxes) * scale).astype(np.float32)).to(self.device)
        owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        parts = []
        at_once = self.config.boxes_at_once
        for some, whose in zip(prompts.split(at_once), owners.split(at_once), strict=True):
            logits = self.network.decode(embeddings, whose, some).float()
            if not torch.isfinite(logits).all():
                raise NonFiniteError(
                    "the segmenter gave numbers that are not finite",
                    where=self.config.segmenter,
                    fix="use --dtype float32, or check the weights",
                )
            parts.append(masks_to_image(logits, height, width, self.side).cpu())
        return torch.cat(parts).numpy()
