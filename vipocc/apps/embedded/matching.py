"""Losses of a detector whose answers are a set: which answer stands for which thing, and how wrong it is.

Each layer of the decoder answers once for each thing (Hungarian matching, DETR); the encoder's proposals, from which
the decoder starts, may answer several times, the best of those whose place lies in the thing (as dense detectors do).
That is what makes a few thousand steps enough.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch.nn import functional

_BALANCE, _FOCUS = 0.4, 2.0
"""Weight of what is there against what is not, and the exponent, of the focal loss."""
_CLASS, _CORNERS, _OVERLAP = 2.0, 5.0, 2.0
"""Weights of class, box distance and generalised overlap, in costs as in losses (DETR's)."""
_COPIES = 6
"""Proposals of the encoder that stand for one thing."""


class Things(NamedTuple):
    """What is to be found in B pictures, at most K in each."""

    boxes: torch.Tensor
    """float32 [B, K, 4], centre x, centre y, width, height as parts of the picture."""
    tokens: torch.Tensor
    """float32 [B, K, T], 1 at the tokens that name the thing."""
    there: torch.Tensor
    """bool [B, K]."""


class Losses(NamedTuple):
    """Parts of a loss, each for one thing on average."""

    classes: torch.Tensor
    corners: torch.Tensor
    overlap: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """The weighted sum."""
        return _CLASS * self.classes + _CORNERS * self.corners + _OVERLAP * self.overlap


def corners_of(boxes: torch.Tensor) -> torch.Tensor:
    """Return x0, y0, x1, y1 of boxes [..., 4] given by centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def generalised_overlap(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the generalised intersection over union, -1 to 1, of boxes (centre, size) [..., 4] that broadcast."""
    a, b = corners_of(first), corners_of(second)
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    union = (first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - common).clamp_min(1e-9)
    return common / union - (hull - union) / hull.clamp_min(1e-9)


@torch.no_grad()
def costs(logits: torch.Tensor, boxes: torch.Tensor, things: Things) -> torch.Tensor:
    """Return the cost [..., B, N, K] of answers with logits [..., B, N, T] and boxes [..., B, N, 4] for each thing."""
    chance = logits.sigmoid()
    there = _BALANCE * (1 - chance) ** _FOCUS * -functional.logsigmoid(logits)
    absent = (1 - _BALANCE) * chance**_FOCUS * -functional.logsigmoid(-logits)
    words = things.tokens / things.tokens.sum(-1, keepdim=True).clamp_min(1)
    named = (there - absent) @ words.mT
    distance = (boxes[..., :, None, :] - things.boxes[:, None]).abs().sum(-1)
    overlap = generalised_overlap(boxes[..., :, None, :], things.boxes[:, None])
    return _CLASS * named + _CORNERS * distance - _OVERLAP * overlap


def match_once(cost: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return picture, answer and thing [M] of the cheapest one-to-one matching of costs [B, N, K]."""
    table, counts = cost.float().cpu().numpy(), there.sum(-1).cpu().tolist()
    parts = []
    for picture, count in enumerate(counts):  # things stand in front, what is not there behind
        answers, found = linear_sum_assignment(table[picture, :, :count])
        parts.append((torch.full((len(answers),), picture), torch.from_numpy(answers), torch.from_numpy(found)))
    columns = zip(*parts, strict=True)
    first, second, third = (torch.cat(column).to(cost.device) for column in columns)
    return first, second, third


def match_often(
    cost: torch.Tensor, things: Things, places: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return picture, proposal and thing [M]: for each thing the cheapest proposals whose place lies in it.

    Args:
        cost: [B, N, K].
        things: of the pictures.
        places: [N, 2] x, y of each proposal as parts of the picture, not finite for those that are none.
    """
    box = corners_of(things.boxes)[:, None]
    inside = ((places[:, None] > box[..., :2]) & (places[:, None] < box[..., 2:])).all(-1) & things.there[:, None]
    price = torch.where(inside, cost, torch.full_like(cost, torch.inf))
    cheap, best = price.topk(min(_COPIES, price.shape[1]), dim=1, largest=False)
    chosen = torch.zeros_like(inside).scatter(1, best, torch.isfinite(cheap))
    # A proposal that several things want stands for the one that it costs least.
    owner = torch.where(chosen, price, torch.full_like(price, torch.inf)).argmin(-1)
    pictures, proposals = torch.nonzero(chosen.any(-1), as_tuple=True)
    return pictures, proposals, owner[pictures, proposals]


def set_losses(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    things: Things,
    matched: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> Losses:
    """Return the losses of answers with logits [B, N, T] and boxes [B, N, 4], given which stand for what."""
    pictures, answers, found = matched
    wanted = torch.zeros_like(logits)
    wanted[pictures, answers] = things.tokens[pictures, found]
    chance = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    right = chance * wanted + (1 - chance) * (1 - wanted)
    weight = _BALANCE * wanted + (1 - _BALANCE) * (1 - wanted)
    count = max(len(pictures), 1)
    classes = (weight * (1 - right) ** _FOCUS * entropy).sum() / count
    given, true = boxes[pictures, answers], things.boxes[pictures, found]
    corners = (given - true).abs().sum() / count
    overlap = (1 - generalised_overlap(given, true)).sum() / count
    return Losses(classes, corners, overlap)
