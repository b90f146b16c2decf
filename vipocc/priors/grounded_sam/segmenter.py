"""SAM: one mask for each box, by either engine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vipocc.errors import NonFiniteError
from vipocc.priors.arithmetic import arithmetic
from vipocc.priors.batching import BatchSize
from vipocc.priors.config import SamConfig
from vipocc.priors.devices import check_compiled, check_dtype
from vipocc.priors.grounded_sam.engines import load_segmenter
from vipocc.priors.grounded_sam.networks import SegmenterNetwork
from vipocc.priors.grounded_sam.preprocessing import masks_to_image, segmenter_input, segmenter_size
from vipocc.priors.grounded_sam.records import Detections

LARGEST = {"bfloat16": 16, "float32": 4}
"""Most images that `auto` tries at once. In float32 scores over the whole image are written out, and those of eight
images (16 heads, 4096 x 4096 patches of ViT-H) are more values than torch's kernels can count."""


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
            DeviceError: bfloat16 or compiling without CUDA.
        """
        check_dtype(config.dtype, device)
        check_compiled(config.compiled, device)
        self.config, self.device = config, torch.device(device)
        self.network: SegmenterNetwork = load_segmenter(config)
        if isinstance(self.network, nn.Module):
            self.network.to(self.device)
        self.side = self.network.side
        self.batch = BatchSize(config.batch_size, self.device)
        self._compiled = False

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], detections: Sequence[Detections]) -> list[NDArray[np.bool_]]:
        """Return masks bool [K, H, W] for the boxes of each of the RGB images uint8 [B, H, W, 3].

        Images without a box are not encoded. Masks of one image may overlap.

        Raises:
            NonFiniteError: the network gave numbers that are not finite.
            DeviceError: the device ran out of memory, see `BatchSize`.
        """
        height, width = images.shape[1:3]
        masks = [np.zeros((len(found), height, width), bool) for found in detections]
        wanted = [index for index, found in enumerate(detections) if len(found)]
        if not wanted:
            return masks

        def segment(batch: Sequence[int]) -> list[NDArray[np.bool_]]:
            return self._segment(images[list(batch)], [detections[index].boxes for index in batch])

        self.batch.find(
            lambda count: segment([wanted[k % len(wanted)] for k in range(count)]), LARGEST[self.config.dtype]
        )
        if self.config.compiled and not self._compiled:
            self.network.compile_encoder()
            self._compiled = True
        parts = self.batch.split(len(wanted), lambda start, stop: segment(wanted[start:stop]))
        for index, mask in zip(wanted, chain.from_iterable(parts), strict=True):
            masks[index] = mask
        return masks

    def _segment(self, images: NDArray[np.uint8], boxes: Sequence[NDArray[np.float32]]) -> list[NDArray[np.bool_]]:
        """Return the masks of each image of one batch, each with a box at least."""
        counts = [len(some) for some in boxes]
        with arithmetic(self.device, self.config.dtype):
            embeddings = self.network.encode(self._pixels(self._filled(images)))[: len(images)]
            together = self._decode(embeddings, counts, boxes, images)
        return np.split(together, np.cumsum(counts)[:-1])

    def _filled(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a batch filled up with images of its own once the encoder is compiled, which is for one size."""
        if not self._compiled:
            return images
        return images[np.arange(max(self.batch.size, len(images))) % len(images)]

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
