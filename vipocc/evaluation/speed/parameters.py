"""How many weights a model holds, trains and really uses.

Counted by what reaches a prediction, not by what lies in the file: the published 58.76 millions hold 11.7 that no
gradient ever reaches (a second decoder and two classifiers, published_system.md 3.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vipocc.evaluation.speed.uses import example, uses_of
from vipocc.model.network import SMALLEST_SIDE, ViPOcc


@dataclass(frozen=True)
class Parameters:
    """Numbers of weights."""

    total: int
    trained: int
    """That a prediction depends on and training may change."""
    used: int
    """That any prediction depends on."""
    by_use: Mapping[str, int]
    """That each use depends on."""


def count_parameters(model: ViPOcc, maps: Mapping[str, Tensor] | None = None) -> Parameters:
    """Count the weights of a model by differentiating its predictions on a small image of noise.

    maps: see `uses_of`, of one image.
    """
    every = list(model.parameters())
    frozen = [one for one in every if not one.requires_grad]
    given = example(1, (SMALLEST_SIDE, SMALLEST_SIDE), model.device)
    reached: dict[str, set[int]] = {}
    try:
        for one in frozen:
            one.requires_grad_(True)
        for name, use in uses_of(model, given, maps).items():
            if name != "rendered_depth":  # of the same weights as the density, and without a gradient
                with torch.enable_grad():
                    gradients = torch.autograd.grad(use.function(use.given).sum(), every, allow_unused=True)
                reached[name] = {at for at, gradient in enumerate(gradients) if gradient is not None}
    finally:
        for one in frozen:
            one.requires_grad_(False)
    if "occupancy" in reached:
        reached["rendered_depth"] = reached["occupancy"]
    used = set[int]().union(*reached.values())
    held = {id(one) for one in frozen}
    return Parameters(
        total=count(every),
        trained=count(every[at] for at in used if id(every[at]) not in held),
        used=count(every[at] for at in used),
        by_use={name: count(every[at] for at in some) for name, some in reached.items()},
    )


def count(parameters: Iterable[nn.Parameter]) -> int:
    """Return the number of weights."""
    return sum(one.numel() for one in parameters)
