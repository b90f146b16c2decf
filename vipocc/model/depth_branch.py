"""The depth branch: by how much a pseudo-depth is off in inverse depth (paper, section 3.3), and its ablations.

Three kinds (Table 5): a residual of inverse depth, a residual of depth, and depth itself without a prior (Monodepth2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vipocc.errors import UsageError
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

    Unbounded: a residual below -10/D_p gives a negative depth. NaN where the prior is; the residual gets no gradient
    there.
    """
    known = torch.isnan(prior).logical_not()
    inverse = 1.0 / torch.where(known, prior, torch.ones_like(prior)).clamp(min_depth, max_depth)
    return torch.where(known, 1.0 / (inverse + residual / 10.0 + 1e-8), prior)


def refine_depth_residual(prior: Tensor, residual: Tensor, min_depth: float = 0.1, max_depth: float = 80.0) -> Tensor:
    """Refined depth of the kind `residual`: D = clamp(D_p + r, min_depth, max_depth).

    prior D_p (clamped to the same range first) and residual r in metres, of one shape, float32.
    """
    return permeable_clamp(prior.clamp(min_depth, max_depth) + residual, min_depth, max_depth)


def refine_depth_residual_official(
    prior: Tensor, output: Tensor, scale: Tensor, shift: Tensor, min_depth: float = 0.1, max_depth: float = 80.0
) -> Tensor:
    """Refined depth of the released ablation: D = D_p + scale sigmoid(x) + shift (published_system 3.6).

    scale and shift are learnt; as long as both are positive, so is what is added, and a prior that is too far cannot be
    mended.
    """
    return prior.clamp(min_depth, max_depth) + scale * torch.sigmoid(output) + shift


def predicted_depth(output: Tensor, min_depth: float = 0.1, max_depth: float = 80.0) -> Tensor:
    """Depth of the kind `depth`: 1/D = 1/max_depth + (1/min_depth - 1/max_depth) sigmoid(x), as Monodepth2's."""
    nearest, farthest = 1.0 / min_depth, 1.0 / max_depth
    return 1.0 / (farthest + (nearest - farthest) * torch.sigmoid(output))


FIRST_DEPTH = 10.0
"""Depth in metres at which the kind `depth` begins; the middle of its sigmoid would be 0.2 m."""
_SCALE, _SHIFT = 80.0, 0.5


class DepthBranch(nn.Module):
    """Image -> what the configured kind of branch adds to a prior or makes depth of; its own encoder and decoder."""

    def __init__(self, config: DepthBranchConfig, *, initialise: bool = True) -> None:
        """Build the branch; `initialise=False` skips pretrained weights, for a checkpoint that brings all."""
        super().__init__()
        self.config = config
        encoder = config.encoder
        self.encoder = (
            pretrained_encoder(encoder, "model.depth_branch.encoder") if initialise else ResNetEncoder(encoder)
        )
        self.residual: nn.Module
        last: nn.Conv2d
        if config.decoder == "paper":
            self.decoder = Decoder(self.encoder.channels, config.widths, config.channels, output_kernel=1)
            self.residual = last = nn.Conv2d(config.channels, 1, 1)
            # The refined depth begins as the prior: 1/D of a street is 0.01 to 0.3, so a random residual of the usual
            # size would start every pixel at one of the two bounds.
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        else:
            self.decoder = Decoder(self.encoder.channels, config.widths, 1, output_kernel=3)
            self.residual = nn.Identity()
            last = self.decoder.output
        if config.kind == "depth":
            span = 1.0 / config.min_depth - 1.0 / config.max_depth
            first = min(max(FIRST_DEPTH, 2.0 * config.min_depth), config.max_depth / 2.0)
            share = (1.0 / first - 1.0 / config.max_depth) / span
            nn.init.constant_(last.bias, math.log(share / (1.0 - share)))  # type: ignore[arg-type]
        if config.kind == "residual" and config.refinement == "official":
            self.scale, self.shift = (nn.Parameter(torch.tensor(value)) for value in (_SCALE, _SHIFT))

    @property
    def needs_prior(self) -> bool:
        """Whether it refines a pseudo-depth, and does not predict depth from the image alone."""
        return self.config.needs_prior

    def forward(self, images: Tensor) -> Tensor:
        """Output of the network [B, 1, H, W] (residual r in 1/m, by default) of images [B, 3, H, W] in [0, 1]."""
        residual: Tensor = self.residual(self.decoder(self.encoder(images)))
        return residual

    def refine(self, prior: Tensor | None, residual: Tensor) -> Tensor:
        """Depth [B, 1, H, W] in metres from a prior and the network's output, by the configured formula, float32.

        The kind `depth` looks at no prior.
        """
        config, output = self.config, at_least_float32(residual)
        bounds = config.min_depth, config.max_depth
        if config.kind == "depth":
            return predicted_depth(output, *bounds)
        if prior is None:
            raise UsageError(f"a depth branch of kind {config.kind} needs a pseudo-depth", fix="pass it as the prior")
        metres = at_least_float32(prior)
        if config.kind == "residual":
            if config.refinement == "official":
                return refine_depth_residual_official(metres, output, self.scale, self.shift, *bounds)
            return refine_depth_residual(metres, output, *bounds)
        formula = refine_inverse_depth_official if config.refinement == "official" else refine_inverse_depth
        return formula(metres, output, *bounds)
