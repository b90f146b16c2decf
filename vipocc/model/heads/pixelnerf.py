"""PixelNeRF's head: density and colour of a point from one network (comparison_methods 4.1).

Two forms of one network of residual blocks. As adapted to KITTI-360 (the defaults) it reads features beside the point's
code and no ray direction. As published it reads code and direction, and features are added before each of the first
blocks. Several source views are read in their own frames and averaged behind those blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vipocc.geometry.projection import outside, project, transform
from vipocc.model.config import FieldConfig, ModelConfig, PixelNeRFConfig
from vipocc.model.field import PointQuery, depth_code, positional_encoding, sample_features
from vipocc.model.heads.interface import DensityHead, HeadInputs, HeadNeeds
from vipocc.model.precision import at_least_float32


class ResidualBlock(nn.Module):
    """x + W2 ReLU(W1 ReLU(x)); the second layer begins at zero, so the block begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        result: Tensor = x + self.second(functional.relu(self.first(functional.relu(x))))
        return result


@dataclass(frozen=True)
class Prepared:
    """What the head keeps of V source views."""

    features: Tensor
    """[B V, C, H, W] float32, samples before views."""
    intrinsics_ndc: Tensor
    """[B V, 3, 3]"""
    view_from_key: Tensor
    """[B V, 4, 4]"""
    views: int


class PixelNeRFHead(DensityHead):
    """Density and colour from the network."""

    predicts_colour = True

    def __init__(self, config: PixelNeRFConfig, field: FieldConfig, channels: int) -> None:
        super().__init__()
        self.needs = HeadNeeds(views=config.views)
        self.config, self.near, self.far = config, field.near, field.far
        self.frequencies, self.base = field.frequencies, field.base_frequency
        code = 3 * (1 + 2 * field.frequencies) + (3 if config.view_directions else 0)
        beside = config.conditioning == "concat"
        self.input = nn.Linear(code + (channels if beside else 0), config.width)
        self.features = nn.ModuleList(
            [] if beside else [nn.Linear(channels, config.width) for _ in range(config.conditioned_blocks)]
        )
        self.blocks = nn.ModuleList([ResidualBlock(config.width) for _ in range(config.blocks)])
        self.output = nn.Linear(config.width, 4)
        """Density first, then red, green and blue."""
        for layer in (self.input, *cast("list[nn.Linear]", list(self.features)), self.output):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    @classmethod
    def from_config(cls, config: ModelConfig, channels: int) -> PixelNeRFHead:
        """Build the head of `model.head.pixelnerf`."""
        return cls(config.head.pixelnerf, config.field, channels)

    def prepare(self, features: Tensor, inputs: HeadInputs | None = None) -> Prepared:
        """Keep features and calibration of all source views; `inputs` is required, as points are seen from each."""
        if inputs is None:
            raise ValueError("PixelNeRF's head needs the calibration of its source views")
        kept = at_least_float32(inputs.features).flatten(0, 1)
        # Lookups read all channels of a few places.
        kept = kept.contiguous(memory_format=torch.channels_last)
        return Prepared(
            kept, inputs.intrinsics_ndc.flatten(0, 1), inputs.view_from_key.flatten(0, 1), inputs.features.shape[1]
        )

    def forward(self, prepared: Prepared, query: PointQuery) -> Tensor:
        """Densities [B, P, S]; points that lie on no ray are looked at from the key camera."""
        return self._density(self._network(prepared, query)[..., 0])

    def radiance(self, prepared: Prepared, query: PointQuery) -> tuple[Tensor, Tensor]:
        """Densities [B, P, S] and colours [B, P, S, 3]."""
        raw = self._network(prepared, query)
        return self._density(raw[..., 0]), torch.sigmoid(raw[..., 1:])

    def unseen(self, prepared: Prepared, query: PointQuery) -> Tensor:
        """Points that no source view shows."""
        if prepared.views == 1:
            return query.unseen
        xy, z = self._projected(prepared, query)
        none: Tensor = outside(xy, z).unflatten(0, (-1, prepared.views)).all(dim=1)
        return none.reshape(query.z.shape)

    def _density(self, raw: Tensor) -> Tensor:
        return functional.relu(raw) if self.config.density == "relu" else functional.softplus(raw)

    def _projected(self, prepared: Prepared, query: PointQuery) -> tuple[Tensor, Tensor]:
        """Where all N points lie in each view: xy [B V, N, 2] and z [B V, N]."""
        points = query.points.flatten(1, 2).repeat_interleave(prepared.views, dim=0)
        return project(points, prepared.intrinsics_ndc, prepared.view_from_key)

    def _network(self, prepared: Prepared, query: PointQuery) -> Tensor:
        """Raw output [B, P, S, 4]."""
        samples = query.z.shape[-1]
        if prepared.views == 1:
            # Samples of central rays share their pixel, and so one lookup.
            xy, z = query.flat().xy, query.z.flatten(1)
            found = sample_features(prepared.features, query.xy)
            found = found.repeat_interleave(samples, dim=1) if samples > 1 else found
        else:
            xy, z = self._projected(prepared, query)
            found = sample_features(prepared.features, xy)
        position = torch.cat([xy, depth_code(z, self.near, self.far)[..., None]], dim=-1)
        code = positional_encoding(position, self.frequencies, self.base)
        if self.config.view_directions:
            code = torch.cat([code, self._directions(prepared, query)], dim=-1)
        beside = self.config.conditioning == "concat"
        x = self.input(torch.cat([found, code], dim=-1) if beside else code)
        for number, block in enumerate(self.blocks):
            if number < len(self.features):
                x = x + self.features[number](found)
            x = block(x)
            if number + 1 == self.config.conditioned_blocks and prepared.views > 1:
                x = x.unflatten(0, (-1, prepared.views)).mean(dim=1)
        raw: Tensor = self.output(functional.relu(x))
        return raw.reshape(*query.z.shape, 4)

    def _directions(self, prepared: Prepared, query: PointQuery) -> Tensor:
        """Ray directions of all N points in the frame of each view, [B V, N, 3]."""
        along = query.viewing.flatten(1, 2).repeat_interleave(prepared.views, dim=0)
        return transform(along, prepared.view_from_key[:, :3, :3]) if prepared.views > 1 else along
