"""SAM through transformers: one mask for each box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.errors import DeviceError, NonFiniteError
from vipocc.priors.config import SamConfig
from vipocc.priors.devices import check_dtype
from vipocc.priors.grounded_sam.preprocessing import masks_to_image, segmenter_input, segmenter_size
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.weights import Weights, find_weights, load_model, read_config

OPTION = "--segmenter"


def segmenter_weights(config: SamConfig) -> tuple[Weights, dict[str, Any]]:
    """Return SAM's weights and config.json; raises `CheckpointError` for anything but a SAM."""
    weights = find_weights(config.segmenter, config.segmenter_revision, OPTION)
    return weights, read_config(weights, "sam", OPTION)


class Sam:
    """A loaded SAM on one device."""

    def __init__(self, config: SamConfig, device: str = "cpu") -> None:
        """Load the model.

        Raises:
            CheckpointError: no such model, or a damaged or incomplete one.
            DeviceError: bfloat16 without CUDA.
        """
        check_dtype(config.dtype, device)
        from transformers import SamModel

        self.config, self.device = config, torch.device(device)
        self.weights, _ = segmenter_weights(config)
        self.model = load_model(SamModel, self.weights, OPTION).to(self.device)
        self.side = int(self.model.config.vision_config.image_size)

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
            try:
                with (
                    torch.backends.cudnn.flags(allow_tf32=False),
                    torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"),
                ):
                    pixels = segmenter_input(images[batch], self.side).to(self.device)
                    embeddings = self.model.get_image_embeddings(pixels)
                    for position, index in enumerate(batch):
                        masks[index] = self._decode(
                            embeddings[position : position + 1], detections[index].boxes, height, width
                        )
            except torch.OutOfMemoryError:
                raise DeviceError(
                    f"out of memory with {len(batch)} images of {self.side}x{self.side} at once",
                    where=self.device,
                    fix="lower --batch-size or -o priors.sam.boxes_at_once",
                ) from None
        return masks

    def _decode(
        self, embedding: torch.Tensor, boxes: NDArray[np.float32], height: int, width: int
    ) -> NDArray[np.bool_]:
        # The image's sides are rounded separately on the way to SAM's square, and so are the boxes'.
        inside = segmenter_size(height, width, self.side)
        scale = np.array([inside[1] / width, inside[0] / height] * 2)
        prompts = torch.from_numpy((boxes * scale).astype(np.float32)).to(self.device)
        parts = []
        for some in prompts.split(self.config.boxes_at_once):
            output = self.model(image_embeddings=embedding, input_boxes=some[None], multimask_output=False)
            logits = output.pred_masks[0, :, 0].float()
            if not torch.isfinite(logits).all():
                raise NonFiniteError(
                    "the segmenter gave numbers that are not finite",
                    where=self.weights.name,
                    fix="use --dtype float32, or check the weights",
                )
            parts.append(masks_to_image(logits, height, width, self.side).cpu())
        return torch.cat(parts).numpy()
