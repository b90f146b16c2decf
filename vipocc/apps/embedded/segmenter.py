"""Training of the embedded SAM: one mask for one box, the loss where the engine's masks come out."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from vipocc.apps.embedded.architectures import SEGMENTER_SIDE
from vipocc.apps.embedded.batches import Batch, normalised
from vipocc.priors.grounded_sam.preprocessing import UPSCALING, segmenter_size

_FEWEST_PIXELS = 30
_SHIFT = 0.05
_FOCUS = 2.0
_MARGIN = 0.25


def segmenter_input(image: torch.Tensor) -> torch.Tensor:
    """Return images [B, 3, H, W] in [0, 1] as SAM gets them: at the top left of a square of zeros, normalised."""
    inside = segmenter_size(image.shape[2], image.shape[3], SEGMENTER_SIDE)
    small = functional.interpolate(image, inside, mode="bilinear", align_corners=False, antialias=True)
    return functional.pad(normalised(small), (0, SEGMENTER_SIDE - inside[1], 0, SEGMENTER_SIDE - inside[0]))


def choose_things(batch: Batch, most: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return picture and number [K] of things to be segmented, at most `most` of each picture, ascending.

    Larger things are a little likelier: there are many of a few dozen pixels.
    """
    area = batch.area.cpu()
    chances = torch.where(area >= _FEWEST_PIXELS, area.clamp_min(1).float().pow(0.25), torch.zeros(()))
    noise = torch.rand(chances.shape, generator=generator).clamp_min(1e-9)
    # The largest of noise^(1/chance) are a draw without replacement by chance (Efraimidis and Spirakis).
    keys = torch.where(chances > 0, noise.log() / chances.clamp_min(1e-9), torch.full_like(noise, -torch.inf))
    best = keys.topk(min(most, keys.shape[1]), dim=1)
    owners, places = torch.nonzero(best.values > -torch.inf, as_tuple=True)
    device = batch.area.device
    return owners.to(device), best.indices[owners, places].to(device)


def shaken(boxes: torch.Tensor, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Return boxes [K, 4] with edges moved by about a twentieth of their sides: detectors are not exact either."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + _SHIFT * sides * torch.randn(boxes.shape, generator=generator).clamp(-2, 2).to(boxes.device)
    limits = torch.tensor([size[1], size[0]] * 2, device=boxes.device, dtype=boxes.dtype)
    return torch.minimum(moved.clamp_min(0), limits)


def mask_loss(logits: torch.Tensor, masks: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean focal loss and the mean dice loss of logits [K, H, W].

    Args:
        logits: of each pixel.
        masks: bool [K, H, W].
        boxes: [K, 4] around the masks, in pixels. The focal loss is a mean over the pixels in and near the box plus one
            over all others: over the picture as a whole a small thing would count for nothing.
    """
    masks = masks.float()
    chance = logits.sigmoid()
    right = chance * masks + (1 - chance) * (1 - masks)
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    focal = (1 - right) ** _FOCUS * entropy
    near = near_boxes(boxes, (logits.shape[1], logits.shape[2]))
    away = ~near
    means = [(focal * part).sum((1, 2)) / part.sum((1, 2)).clamp_min(1) for part in (near, away)]
    dice = 1 - (2 * (chance * masks).sum((1, 2)) + 1) / (chance.sum((1, 2)) + masks.sum((1, 2)) + 1)
    return (means[0] + means[1]).mean(), dice.mean()


def near_boxes(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return bool [K, H, W]: the pixels in boxes [K, 4] grown by a quarter of their sides, and 2 pixels, each way."""
    grown = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) * _MARGIN + 2
    x0, y0, x1, y1 = (boxes + grown * torch.tensor([-1, -1, 1, 1], device=boxes.device)).T[..., None]
    x, y = (torch.arange(side, device=boxes.device) + 0.5 for side in (size[1], size[0]))
    near: torch.Tensor = ((y > y0) & (y < y1))[:, :, None] & ((x > x0) & (x < x1))[:, None, :]
    return near


def to_image(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return mask logits [K, side / 4, side / 4] at the image's size [K, H, W], as the engine brings them there."""
    inside = segmenter_size(*size, SEGMENTER_SIDE)
    cut = logits[:, None, : -(-inside[0] // UPSCALING) + 1, : -(-inside[1] // UPSCALING) + 1]
    large = functional.interpolate(cut, scale_factor=UPSCALING, mode="bilinear", align_corners=False)
    return functional.interpolate(large[..., : inside[0], : inside[1]], size, mode="bilinear", align_corners=False)[
        :, 0
    ]


class SegmenterTask:
    """See `training.Task`; runs through the engine that priors run through."""

    def __init__(self, network: Any, device: str, boxes: int = 8) -> None:
        """Take SAM.

        Args:
            network: transformers' `SamModel`.
            device: where to.
            boxes: at most of each picture.
        """
        self.network, self.boxes = network.to(device), boxes

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return the loss of a batch and its parts."""
        size = (int(batch.image.shape[2]), int(batch.image.shape[3]))
        owners, numbers = choose_things(batch, self.boxes, generator)
        inside = segmenter_size(*size, SEGMENTER_SIDE)
        scale = torch.tensor([inside[1] / size[1], inside[0] / size[0]] * 2, device=batch.box.device)
        prompts = shaken(batch.box[owners, numbers], size, generator) * scale
        embeddings = self.network.vision_encoder(segmenter_input(batch.image)).last_hidden_state
        logits = to_image(self._decode(embeddings, owners, prompts), size)
        masks = batch.thing[owners] == numbers[:, None, None]
        focal, dice = mask_loss(logits, masks, batch.box[owners, numbers])
        return {"loss": 4 * focal + dice, "focal": focal, "dice": dice}

    def _decode(self, embeddings: torch.Tensor, owners: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Return mask logits [K, side / 4, side / 4]: what `TransformersSam.decode` does, with gradients."""
        prompts, dense = self.network.prompt_encoder(None, None, boxes[:, None], None)
        masks, _ = self.network.mask_decoder(
            image_embeddings=embeddings[owners],
            image_positional_embeddings=self.network.get_image_wide_positional_embeddings().expand(
                len(boxes), -1, -1, -1
            ),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits: torch.Tensor = masks[:, 0, 0]
        return logits
