"""The precision that geometry, density field, rendering and refinement run in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32, those in float64 as they are, so that a model in float64 can be differentiated exactly.

    What the 2D networks return in bfloat16 becomes float32 here; nothing after it rounds.
    """
    return values if values.dtype == torch.float64 else values.float()
