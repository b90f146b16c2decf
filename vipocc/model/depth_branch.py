"""Inverse depth alignment: a network that predicts by how much a pseudo-depth is off (paper, section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vipocc.model.config import DepthBranchConfig
from vipocc.model.decoder import Decoder
from vipocc.model.encoder import ResNetEncoder, pretrained_encoder
from vipocc.model.precision import at_least_float32


class _PermeableClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        gradient = gradients[0]
        # Descent subtracts the gradient, so a negative one raises x: it leads back inside from below, a positive one
        # from above. Everything else would push further out. NaN compares false everywhere and gets no gradient.
        passes = ((x >= low) | (gradient < 0)) & ((x <= high) | (gradient > 0))
        return torch.where(passes, gradient, torch.zeros_like(gradient)), None, None


def permeable_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp whose gradient still leads back: outside the bounds, descent steps towards them pass, others are zero.

    A plain clamp has no gradient outside, so a pixel that once left the range would be lost for good.
    """
    result: Tensor = _PermeableClamp.apply(x, low, high)
    return result


def refine_inverse_depth(prior: Tensor, residual: Tensor, min_depth: float = 0.1, max_depth: float = 80.0) -> Tensor:
    """Refined depth of the `paper` profile: 1/D = clamp(1/D_p + r, 1/max_depth, 1/min_depth).

    prior D_p in metres (clamped to the same range first) and residual r in 1/m, of one shape, float32 -> D in metres,
    always in [min_depth, max_depth] and NaN only where the prior is. The epsilon of Eq. 3 is what the lower bound of
    1/D does better: |dD/dr| = D^2 <= max_depth^2 for any r, and `permeable_clamp` keeps the gradient alive outside.
    """
    inverse = 1.0 / prior.clamp(min_depth, max_depth)
    return 1.0 / permeable_clamp(inverse + residual, 1.0 / max_depth, 1.0 / min_depth)


def refine_inverse_depth_official(
    prior: Tensor, residual: Tensor, min_depth: float = 0.1, max_depth: float = 80.0
) -> Tensor:
    """Refined depth of the released code: 1/D = 1/D_p + r/10 + 1e-8 (published_system 3.6).

    Unbounded: a residual below -10/D_p gives a negative depth.
    """
    return 1.0 / (1.0 / prior.clamp(min_depth, max_depth) + residual / 10.0 + 1e-8)


class DepthBranch(nn.Module):
    """Image -> residual of inverse depth; its own encoder and decoder."""

    def __init__(self, config: DepthBranchConfig, *, initialise: bool = True) -> None:
        """Build the branch; `initialise=False` skips pretrained weights, for a checkpoint that brings all."""
        super().__init__()
        encoder = config.encoder
        self.encoder = (
            pretrained_encoder(encoder, "model.depth_branch.encoder") if initialise else ResNetEncoder(encoder)
        )
        self.residual: nn.Module
        if config.decoder == "paper":
            self.decoder = Decoder(self.encoder.channels, config.widths, config.channels, output_kernel=1)
            residual = nn.Conv2d(config.channels, 1, 1)
            # The refined depth begins as the prior: 1/D of a street is 0.01 to 0.3, so a random residual of the usual
            # size would start every pixel at one of the two bounds.
            nn.init.zeros_(residual.weight)
            nn.init.zeros_(residual.bias)  # type: ignore[arg-type]
            self.residual = residual
        else:
            self.decoder = Decoder(self.encoder.channels, config.widths, 1, output_kernel=3)
            self.residual = nn.Identity()
        self._official = config.refinement == "official"
        self._range = (config.min_depth, config.max_depth)

    def forward(self, images: Tensor) -> Tensor:
        """Residual r [B, 1, H, W] of images [B, 3, H, W] in [0, 1]."""
        residual: Tensor = self.residual(self.decoder(self.encoder(images)))
        return residual

    def refine(self, prior: Tensor, residual: Tensor) -> Tensor:
        """Apply a residual to a prior by the configured formula, [B, 1, H, W] each, float32."""
        formula = refine_inverse_depth_official if self._official else refine_inverse_depth
        return formula(at_least_float32(prior), at_least_float32(residual), *self._range)
