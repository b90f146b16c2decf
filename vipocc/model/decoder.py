"""From encoder levels to one feature map: Monodepth2's decoder, which both branches use, and PixelNeRF's pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBlock(nn.Module):
    """3x3 convolution over a reflected border, then ELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        return functional.elu(self.conv(x), inplace=True)


class Decoder(nn.Module):
    """Five stages of convolution, doubling, skip connection and convolution, then one linear convolution.

    Only the finest output is made; the released code also computes three coarser ones and drops them.
    """

    def __init__(
        self, encoder_channels: Sequence[int], widths: Sequence[int], outputs: int, *, output_kernel: int = 3
    ) -> None:
        """Build a decoder.

        Args:
            encoder_channels: channels of the encoder's levels, finest first.
            widths: channels of the five stages, finest first.
            outputs: channels of the result.
            output_kernel: side of the last convolution, 3 (reflected border) or 1.
        """
        super().__init__()
        before: list[nn.Module] = []
        after: list[nn.Module] = []
        inputs = encoder_channels[-1]
        for stage in range(4, -1, -1):
            skip = encoder_channels[stage - 1] if stage > 0 else 0
            before.append(ConvBlock(inputs, widths[stage]))
            after.append(ConvBlock(widths[stage] + skip, widths[stage]))
            inputs = widths[stage]
        self.channels = outputs
        self.before = nn.ModuleList(before)
        """First convolution of each stage, coarsest stage first."""
        self.after = nn.ModuleList(after)
        """Second one, behind the doubling and the skip connection."""
        if output_kernel == 3:
            self.output = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
        else:
            self.output = nn.Conv2d(inputs, outputs, output_kernel)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Encoder levels, finest first, -> [B, outputs, H, W] at twice the size of the finest."""
        x = levels[-1]
        for stage, (before, after) in enumerate(zip(self.before, self.after, strict=True)):
            x = functional.interpolate(before(x), scale_factor=2, mode="nearest")
            if stage < 4:
                skip = levels[3 - stage]
                # An image side that is not a multiple of 32 leaves a level one smaller than the doubled map.
                x = torch.cat([x[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1)
            x = after(x)
        result: Tensor = self.output(x)
        return result


class Pyramid(nn.Module):
    """PixelNeRF's features: encoder levels enlarged to the finest one's size and stacked; it has no weights."""

    def __init__(self, encoder_channels: Sequence[int]) -> None:
        """Take the channels of the levels that are stacked, finest first."""
        super().__init__()
        self.channels = sum(encoder_channels)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Encoder levels, finest first, -> [B, channels, H/2, W/2]: the size of the finest, half the image's."""
        size = levels[0].shape[-2:]
        enlarged = [
            functional.interpolate(level, size=size, mode="bilinear", align_corners=True) for level in levels[1:]
        ]
        return torch.cat([levels[0], *enlarged], dim=1)
