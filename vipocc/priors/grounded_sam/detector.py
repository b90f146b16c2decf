"""Grounding DINO: boxes and classes of the instances that one prompt names, by either engine."""

from __future__ import annotations

from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vipocc.errors import NonFiniteError
from vipocc.priors.arithmetic import arithmetic
from vipocc.priors.batching import BatchSize
from vipocc.priors.config import MAX_INSTANCES, SamConfig
from vipocc.priors.devices import check_dtype
from vipocc.priors.grounded_sam.boxes import clip, from_centres, suppress
from vipocc.priors.grounded_sam.engines import detector_sides, detector_weights, load_detector
from vipocc.priors.grounded_sam.networks import DetectorNetwork
from vipocc.priors.grounded_sam.preprocessing import detector_input
from vipocc.priors.grounded_sam.prompt import Prompt, classify
from vipocc.priors.grounded_sam.records import Detections


class Detector(Protocol):
    """What finds instances: both engines stand behind this."""

    prompt: Prompt

    def infer(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return token probabilities [B, Q, T] and normalised boxes [B, Q, 4] of RGB images uint8 [B, H, W, 3]."""
        ...

    def __call__(self, images: NDArray[np.uint8]) -> list[Detections]:
        """Return the detections of RGB images uint8 [B, H, W, 3], boxes in their pixels."""
        ...


class GroundingDino:
    """A loaded Grounding DINO with its prompt, on one device: the `Detector`."""

    def __init__(self, config: SamConfig, device: str = "cpu") -> None:
        """Load the model by the engine that its weights ask for, and encode the prompt.

        Raises:
            CheckpointError: no such model, a damaged or incomplete one, or a tokenizer that does not know a phrase.
            DeviceError: bfloat16 without CUDA.
        """
        check_dtype(config.dtype, device)
        self.config, self.device = config, torch.device(device)
        self.network: DetectorNetwork = load_detector(config)
        if isinstance(self.network, nn.Module):
            self.network.to(self.device)
        self.prompt: Prompt = self.network.prompt
        self.sides = detector_sides(config, detector_weights(config))
        self.batch = BatchSize(config.batch_size, self.device)

    def __call__(self, images: NDArray[np.uint8]) -> list[Detections]:
        """Return the detections of RGB images uint8 [B, H, W, 3], boxes in their pixels.

        Raises:
            NonFiniteError: the network gave numbers that are not finite.
            DeviceError: the device ran out of memory, see `BatchSize`.
        """
        if not len(images):
            return []
        self.batch.find(lambda count: self.infer(images[np.arange(count) % len(images)]))
        parts = self.batch.split(len(images), lambda start, stop: self.detect(images[start:stop]))
        return list(chain.from_iterable(parts))

    def detect(self, images: NDArray[np.uint8]) -> list[Detections]:
        """Return the same for one batch as it is; memory that runs out is torch's own error."""
        height, width = images.shape[1:3]
        answers = zip(*self.infer(images), strict=True)
        return [select(p, b, self.prompt, self.config, height, width) for p, b in answers]

    @torch.inference_mode()
    def infer(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return token probabilities [B, Q, T] and normalised boxes [B, Q, 4] (centre, size) of one batch.

        Raises:
            NonFiniteError: the network gave numbers that are not finite.
        """
        pixels = detector_input(images, *self.sides, self.device)
        with arithmetic(self.device, self.config.dtype):
            logits, boxes = self.network(pixels)
        logits, boxes = logits.float(), boxes.float()
        if not (torch.isfinite(logits).all() and torch.isfinite(boxes).all()):
            raise NonFiniteError(
                "the detector gave numbers that are not finite",
                where=self.config.detector,
                fix="use --dtype float32, or check the weights",
            )
        return logits.sigmoid().cpu().numpy(), boxes.cpu().numpy()


def select(
    probabilities: NDArray[np.float32],
    centres: NDArray[np.float32],
    prompt: Prompt,
    config: SamConfig,
    height: int,
    width: int,
) -> Detections:
    """Return the detections among the Q boxes of one image, best first, at most 254.

    Args:
        probabilities: [Q, T] of the prompt's tokens.
        centres: [Q, 4] normalised centre and size.
        prompt: whose tokens.
        config: thresholds and overlap.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    scores, classes = classify(probabilities, prompt, config.text_threshold)
    boxes = clip(from_centres(centres, height, width), height, width)
    # A box that lies outside the image, or has no width, has nothing to segment.
    keep = (scores > config.box_threshold) & (classes >= 0) & ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    boxes, scores, classes = boxes[keep], scores[keep], classes[keep]
    order = suppress(boxes, scores, classes, config.nms_iou, MAX_INSTANCES)
    return Detections(boxes[order], scores[order], classes[order].astype(np.int16))
