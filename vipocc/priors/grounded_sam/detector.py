"""Grounding DINO through transformers: boxes and classes of the instances that one prompt names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.errors import CheckpointError, DeviceError, NonFiniteError
from vipocc.priors.config import MAX_INSTANCES, SamConfig
from vipocc.priors.devices import check_dtype
from vipocc.priors.grounded_sam.boxes import clip, from_centres, suppress
from vipocc.priors.grounded_sam.preprocessing import detector_input
from vipocc.priors.grounded_sam.prompt import Prompt, build_prompt, classify
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.weights import Weights, find_weights, load_model, read_config

OPTION = "--detector"


def detector_weights(config: SamConfig) -> tuple[Weights, dict[str, Any]]:
    """Return the detector's weights and config.json; raises `CheckpointError` for anything but a Grounding DINO."""
    weights = find_weights(config.detector, config.detector_revision, OPTION)
    return weights, read_config(weights, "grounding-dino", OPTION)


def load_tokenizer(weights: Weights) -> Any:
    """Return the tokenizer beside the weights; raises `CheckpointError` if it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(weights.folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for absent or damaged tokenizer files
        raise CheckpointError(
            f"the detector's tokenizer cannot be read ({type(error).__name__})",
            where=weights.folder,
            fix="the folder needs tokenizer.json or vocab.txt beside the weights",
        ) from None


class GroundingDino:
    """A loaded Grounding DINO with its prompt, on one device."""

    def __init__(self, config: SamConfig, device: str = "cpu") -> None:
        """Load the model and tokenise the prompt.

        Raises:
            CheckpointError: no such model, a damaged or incomplete one, or a tokenizer that does not know a phrase.
            DeviceError: bfloat16 without CUDA.
        """
        check_dtype(config.dtype, device)
        from transformers import GroundingDinoForObjectDetection

        self.config, self.device = config, torch.device(device)
        self.weights, values = detector_weights(config)
        self.prompt: Prompt = build_prompt(
            config.classes, load_tokenizer(self.weights), int(values.get("max_text_len", 256))
        )
        self.model = load_model(GroundingDinoForObjectDetection, self.weights, OPTION).to(self.device)
        self._ids = torch.tensor([self.prompt.input_ids], device=self.device)

    def __call__(self, images: NDArray[np.uint8]) -> list[Detections]:
        """Return the detections of RGB images uint8 [B, H, W, 3], boxes in their pixels."""
        height, width = images.shape[1:3]
        found = []
        for start in range(0, len(images), self.config.batch_size):
            probabilities, boxes = self.infer(images[start : start + self.config.batch_size])
            found += [
                select(p, b, self.prompt, self.config, height, width) for p, b in zip(probabilities, boxes, strict=True)
            ]
        return found

    @torch.inference_mode()
    def infer(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return token probabilities [B, Q, T] and normalised boxes [B, Q, 4] (centre, size) of one batch.

        Raises:
            NonFiniteError: the network gave numbers that are not finite.
            DeviceError: the device ran out of memory.
        """
        pixels = detector_input(images, self.config.shortest_side, self.config.longest_side).to(self.device)
        ids = self._ids.expand(len(images), -1)
        try:
            with (
                torch.backends.cudnn.flags(allow_tf32=False),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"),
            ):
                output = self.model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        except torch.OutOfMemoryError:
            raise DeviceError(
                f"out of memory with {len(images)} images of {pixels.shape[2]}x{pixels.shape[3]} at once",
                where=self.device,
                fix="lower --batch-size",
            ) from None
        # Beyond the prompt's tokens the logits are padding, minus infinity by construction.
        logits = output.logits[..., : len(self.prompt.input_ids)].float()
        boxes = output.pred_boxes.float()
        if not (torch.isfinite(logits).all() and torch.isfinite(boxes).all()):
            raise NonFiniteError(
                "the detector gave numbers that are not finite",
                where=self.weights.name,
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
    order = suppress(boxes, scores, classes, config.nms_iou)[:MAX_INSTANCES]
    return Detections(boxes[order], scores[order], classes[order].astype(np.int16))
