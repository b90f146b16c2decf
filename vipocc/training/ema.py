"""A running average of the weights (exponential moving average), kept beside those that are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model's trainable parameters over its steps; buffers are the model's own.

    Until the run is as long as the average looks back, it is the mean of fewer steps, so that the first weights do not
    linger: after step n the decay is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._average = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Return a context in which the model's parameters are the average; after it they are the live ones again."""
        live: list[Tensor] = [value.data for value in self._live.values()]
        average = list(self._average.values())
        with torch.no_grad():
            kept = [value.clone() for value in live]
            torch._foreach_copy_(live, average)
            try:
                yield
            finally:
                torch._foreach_copy_(live, kept)

    def live(self) -> dict[str, Tensor]:
        """Return the trained weights by name; they are the model's own tensors."""
        return {name: value.detach() for name, value in self._live.items()}

    @torch.no_grad()
    def go_on(self, live: Mapping[str, Tensor]) -> None:
        """Take what the model holds now as the average, and give it `live` as its trained weights."""
        for name, value in self._live.items():
            self._average[name].copy_(value)
            value.copy_(live[name])
