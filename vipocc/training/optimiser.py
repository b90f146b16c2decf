"""Adam whose updates stop, on the device, at the first loss or gradient that is not a finite number.

Whether a step was finite is known on the device at once and is read by the host one step later, so that no step waits
for the device; until then the weights stay those that met the offending batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class _Reading:
    """A flag on its way to the host."""

    step: int
    flag: Tensor
    event: torch.cuda.Event | None

    def value(self) -> bool:
        if self.event is not None:
            self.event.synchronize()
        return bool(self.flag)


class GuardedAdam:
    """Adam (betas .9/.999, no weight decay, as published) over all trainable parameters of a model."""

    def __init__(self, model: nn.Module, device: torch.device, gradient_clip: float | None = None) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.adam = torch.optim.Adam(self.parameters, fused=True)
        self.gradient_clip = gradient_clip
        self._bad = torch.zeros((), device=device)
        self._reading: _Reading | None = None

    def update(self, step: int, loss: Tensor, learning_rate: float) -> Tensor:
        """Back-propagate `loss`, update the weights unless something is not finite, and return the gradient's norm."""
        self.clear()
        loss.backward()
        return self.apply(step, loss.detach(), learning_rate)

    def clear(self) -> None:
        """Forget the gradients of the last step."""
        self.adam.zero_grad(set_to_none=True)

    def apply(self, step: int, loss: Tensor, learning_rate: float) -> Tensor:
        """Update the weights with their gradients unless these or `loss` are not finite; return the gradient's norm."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        # Sticky: once set, later updates are refused as well, until the host has read the flag and stops.
        self._bad = torch.maximum(self._bad, (~finite).float())
        if self.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.gradient_clip, norm)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        # The fused kernels skip the update where `found_inf` is set; gradient scalers use the same attribute.
        self.adam.found_inf = self._bad  # type: ignore[attr-defined]
        self.adam.step()
        self._read_later(step)
        return norm

    def load(self, state: dict[str, Any]) -> None:
        """Take over the moments of a saved `adam.state_dict()`, in the memory order that the parameters have here."""
        self.adam.load_state_dict(state)
        for parameter, moments in self.adam.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    moments[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)

    def first_bad_step(self, *, wait: bool = False) -> int | None:
        """Return the first step that was not finite, if it is known by now.

        The last step's flag is known only after the next `update`, or with `wait`, which waits for the device.
        """
        if self._known is not None:
            return self._known
        if wait and self._reading is not None and self._reading.value():
            self._known = self._reading.step
        return self._known

    _known: int | None = None

    def _read_later(self, step: int) -> None:
        previous = self._reading
        if self._bad.is_cuda:
            flag = torch.empty((), pin_memory=True)
            flag.copy_(self._bad, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._reading = _Reading(step, flag, event)
        else:
            self._reading = _Reading(step, self._bad, None)
        if previous is not None and self._known is None and previous.value():
            self._known = previous.step
