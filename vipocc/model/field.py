"""The density field: what stands at a 3D point, read from one image's features (published_system 3.3).

A density head (`vipocc.model.heads`) turns points seen by the key camera into densities. BTS's, here, is the simplest:
the bilinearly sampled features and a positional code of the point go through one hidden layer. Sampling is linear, so
the feature part of that layer is applied to the feature map once, before it is sampled, instead of to every point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vipocc.geometry.projection import outside, project
from vipocc.model.config import FieldConfig, ModelConfig
from vipocc.model.fused.density import Code, fused_density
from vipocc.model.heads.interface import DensityHead, HeadInputs
from vipocc.model.precision import at_least_float32

if TYPE_CHECKING:
    from vipocc.model.renderer import Rays

MIN_DEPTH = 1e-3


def depth_code(z: Tensor, near: float = 3.0, far: float = 80.0) -> Tensor:
    """Depth in metres as a number linear in inverse depth: 1 at `near`, -1 at `far`, not clamped (golden G7)."""
    inverse = 1.0 / z.clamp_min(MIN_DEPTH)
    return (inverse - 1.0 / far) / (1.0 / near - 1.0 / far) * 2.0 - 1.0


def positional_encoding(x: Tensor, frequencies: int = 6, base: float = 1.5) -> Tensor:
    """[..., D] -> [..., D (1 + 2 frequencies)]: x, then sin(f x) and cos(f x) for f = base, 2 base, 4 base, … (G2)."""
    octaves = base * 2.0 ** torch.arange(frequencies, device=x.device, dtype=x.dtype)
    # The cosine is the sine a quarter turn on, in one fused product and sum as the released code has it: outside the
    # image angles grow until float32 rounds that turn, and what it rounds to is what released weights were trained on.
    quarter = torch.arange(2, device=x.device, dtype=x.dtype) * (math.pi / 2.0)
    waves = torch.sin(torch.addcmul(quarter[:, None], x[..., None, None, :], octaves[:, None, None]))
    return torch.cat([x, waves.flatten(-3)], dim=-1)


def sample_features(features: Tensor, xy: Tensor) -> Tensor:
    """Bilinear lookup at NDC with border padding: features [B, C, H, W], xy [B, N, 2] -> [B, N, C].

    On the CPU this is a weighted sum of four rows of C contiguous numbers, several times as fast as grid_sample,
    which goes through memory channel by channel.
    """
    if features.device.type != "cpu":
        return sample_features_reference(features, xy)
    batch, channels, height, width = features.shape
    x = (((xy[..., 0] + 1.0) * width - 1.0) / 2.0).clamp(0, width - 1)
    y = (((xy[..., 1] + 1.0) * height - 1.0) / 2.0).clamp(0, height - 1)
    # A place that is not a number gets features that are none, as in the twin, and no index from nowhere.
    left, top = x.detach().floor().nan_to_num(0.0), y.detach().floor().nan_to_num(0.0)
    right_share, bottom_share = x - left, y - top
    first = torch.arange(batch, device=features.device)[:, None] * (height * width)
    column, upper = left.long(), top.long() * width + first
    next_column = (column + 1).clamp(max=width - 1)
    lower = (top.long() + 1).clamp(max=height - 1) * width + first
    corners = torch.stack([upper + column, upper + next_column, lower + column, lower + next_column], dim=-1)
    left_share, top_share = 1.0 - right_share, 1.0 - bottom_share
    shares = [left_share * top_share, right_share * top_share, left_share * bottom_share, right_share * bottom_share]
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
    sampled = functional.embedding_bag(
        corners.reshape(-1, 4), rows, per_sample_weights=torch.stack(shares, dim=-1).reshape(-1, 4), mode="sum"
    )
    return sampled.reshape(batch, -1, channels)


def sample_features_reference(features: Tensor, xy: Tensor) -> Tensor:
    """Plain twin of `sample_features`: grid_sample with align_corners=False."""
    sampled = functional.grid_sample(features, xy[:, :, None], padding_mode="border", align_corners=False)
    return sampled[..., 0].transpose(1, 2)


@dataclass(frozen=True)
class PointQuery:
    """Points of one call to a density head: P pixels of the key camera with S points on the ray of each.

    Points that share no pixel have S = 1. Samples of rays through the key camera's centre share theirs, and so their
    features and most of their code.
    """

    points: Tensor
    """[B, P, S, 3] in the key camera's frame, metres."""
    xy: Tensor
    """[B, P, 2] normalised image coordinates, unbounded outside the image."""
    z: Tensor
    """[B, P, S] depth in metres, at least 1e-3."""
    directions: Tensor | None = None
    """[B, R, 3] unit vectors of the P / per_ray rays, or None for points that lie on none."""
    per_ray: int = 1
    """How many consecutive pixels hold the samples of one ray: more than 1 where each has a pixel of its own."""

    @classmethod
    def of_points(cls, points: Tensor, intrinsics_ndc: Tensor) -> PointQuery:
        """Query points [B, N, 3] anywhere; intrinsics [B, 3, 3] of the key camera."""
        xy, z = project(points, intrinsics_ndc)
        return cls(points[:, :, None], xy, z[..., None])

    @classmethod
    def of_rays(cls, origins: Tensor, directions: Tensor, distances: Tensor, intrinsics_ndc: Tensor) -> PointQuery:
        """Query points at distances [B, R, S] along rays from origins [B, R, 3] in directions [B, R, 3]."""
        along = origins[:, :, None] + directions[:, :, None] * distances[..., None]
        query = cls.of_points(along.flatten(1, 2), intrinsics_ndc)
        return replace(query, directions=directions, per_ray=distances.shape[-1])

    @classmethod
    def of_central_rays(cls, directions: Tensor, distances: Tensor, intrinsics_ndc: Tensor) -> PointQuery:
        """Query points at distances [B, R, S] along directions [B, R, 3] from the key camera's centre."""
        xy, _ = project(directions, intrinsics_ndc)
        points = directions[:, :, None] * distances[..., None]
        return cls(points, xy, points[..., 2].clamp_min(MIN_DEPTH), directions)

    @property
    def unseen(self) -> Tensor:
        """bool [B, P, S]: behind the key camera or outside its image."""
        return outside(self.xy[:, :, None].expand(*self.z.shape, 2), self.z)

    @property
    def viewing(self) -> Tensor:
        """[B, P, S, 3] unit vectors along which the points are looked at: their rays', else from the key camera."""
        if self.directions is None:
            return functional.normalize(self.points, dim=-1)
        return _repeated(self.directions, self.per_ray)[:, :, None].expand_as(self.points)

    def along_rays(self, values: Tensor) -> Tensor:
        """Values [B, P, S, ...] of the points as [B, R, N, ...], N samples of one ray together and in order.

        Points that lie on no ray are rays of one sample.
        """
        rays = values.shape[1] // self.per_ray
        return values.reshape(values.shape[0], rays, -1, *values.shape[3:])

    def flat(self) -> PointQuery:
        """The same points with S = 1."""
        samples = self.z.shape[-1]
        return PointQuery(
            self.points.flatten(1, 2)[:, :, None],
            _repeated(self.xy, samples),
            self.z.flatten(1)[..., None],
            self.directions,
            self.per_ray * samples,
        )

    def split(self, pixels: int) -> Iterator[PointQuery]:
        """Parts of at most so many pixels, but never less than a whole ray."""
        step = max(self.per_ray, pixels - pixels % self.per_ray)
        for first in range(0, self.z.shape[1], step):
            part, rays = slice(first, first + step), slice(first // self.per_ray, (first + step) // self.per_ray)
            yield replace(
                self,
                points=self.points[:, part],
                xy=self.xy[:, part],
                z=self.z[:, part],
                directions=None if self.directions is None else self.directions[:, rays],
            )


def _repeated(values: Tensor, times: int) -> Tensor:
    return values.repeat_interleave(times, dim=1) if times > 1 else values


class MLPHead(DensityHead):
    """BTS's head: features and code through one hidden layer, softplus."""

    def __init__(self, config: FieldConfig, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.near, self.far = config.near, config.far
        self.frequencies, self.base = config.frequencies, config.base_frequency
        self.hidden = nn.Linear(channels + 3 * (1 + 2 * config.frequencies), config.hidden)
        """Reads the features, then the code in the order of `positional_encoding`."""
        self.output = nn.Linear(config.hidden, 1)
        for layer in (self.hidden, self.output):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.fuses = config.hidden >= 16 and config.hidden & (config.hidden - 1) == 0

    @classmethod
    def from_config(cls, config: ModelConfig, channels: int) -> MLPHead:
        """Build the head of `model.field`."""
        return cls(config.field, channels)

    def prepare(self, features: Tensor, inputs: HeadInputs | None = None) -> Tensor:
        """Apply the feature part of the hidden layer to the map: [B, C, H, W] -> [B, hidden, H, W], channels last."""
        weight = self.hidden.weight[:, : self.channels]
        return functional.linear(features.permute(0, 2, 3, 1), weight.to(features.dtype)).permute(0, 3, 1, 2)

    def forward(self, prepared: Tensor, query: PointQuery) -> Tensor:
        """Densities [B, P, S] from the prepared map."""
        zc = depth_code(query.z, self.near, self.far)[..., None]
        code = self.hidden.weight[:, self.channels :]
        if zc.shape[2] == 1:
            encoded = positional_encoding(torch.cat([query.xy[:, :, None], zc], dim=-1), self.frequencies, self.base)
            hidden = functional.linear(encoded, code, self.hidden.bias)
        else:
            # The code's columns come in triples (x, y, z), one triple for each of its waves.
            triples = code.unflatten(1, (-1, 3))
            of_pixel = positional_encoding(query.xy, self.frequencies, self.base)
            of_depth = positional_encoding(zc, self.frequencies, self.base)
            shared = functional.linear(of_pixel, triples[..., :2].flatten(1), self.hidden.bias)
            hidden = functional.linear(of_depth, triples[..., 2]) + shared[:, :, None]
        sampled = sample_features(at_least_float32(prepared), query.xy)
        hidden = functional.relu(hidden + sampled[:, :, None], inplace=True)
        return functional.softplus(self.output(hidden)[..., 0])

    def fused_density(self, prepared: Tensor, rays: Rays, distances: Tensor, intrinsics_ndc: Tensor) -> Tensor:
        """Densities [B, R, S] along rays, by Triton's kernels."""
        return fused_density(
            prepared,
            self.hidden.weight[:, self.channels :],
            self.hidden.bias,
            self.output.weight,
            self.output.bias,
            rays.origins,
            rays.directions,
            distances,
            intrinsics_ndc,
            Code(self.near, self.far, self.frequencies, self.base),
        )

    def reference(self, features: Tensor, query: PointQuery) -> Tensor:
        """Plain twin of `prepare` and `forward`: sample the features, append the code, two layers."""
        flat = query.flat()
        position = torch.cat([flat.xy, depth_code(flat.z, self.near, self.far)], dim=-1)
        code = positional_encoding(position, self.frequencies, self.base)
        inputs = torch.cat([sample_features_reference(at_least_float32(features), flat.xy), code], dim=-1)
        sigma = functional.softplus(self.output(functional.relu(self.hidden(inputs)))[..., 0])
        return sigma.reshape(query.z.shape)


def parts(query: PointQuery, chunk: int | None) -> Iterable[PointQuery]:
    """Return a query in parts of at most `chunk` points over the batch, rays whole; None leaves it in one."""
    batch, pixels, samples = query.z.shape
    step = pixels if chunk is None else max(1, chunk // (batch * samples))
    return (query,) if step >= pixels else query.split(step)


def density_at(
    head: DensityHead, prepared: Any, query: PointQuery, chunk: int | None = None, *, gathered: bool = False
) -> Tensor:
    """Densities [B, P, S] in 1/m at the points of a query.

    `prepared` is what `head.prepare` made of the features, and with `gathered` what `head.gather` made of that. At most
    `chunk` points, over the batch, are evaluated at once; the result is the same.
    """
    if not gathered:
        prepared = head.gather(prepared, parts(query, chunk))
    found: list[Tensor] = [head(prepared, part) for part in parts(query, chunk)]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def radiance_at(
    head: DensityHead, prepared: Any, query: PointQuery, chunk: int | None = None, *, gathered: bool = False
) -> tuple[Tensor, Tensor]:
    """Densities [B, P, S] and colours [B, P, S, 3] of a head that predicts colours; arguments as `density_at`."""
    if not gathered:
        prepared = head.gather(prepared, parts(query, chunk))
    found = [head.radiance(prepared, part) for part in parts(query, chunk)]
    if len(found) == 1:
        return found[0]
    return torch.cat([sigma for sigma, _ in found], dim=1), torch.cat([colours for _, colours in found], dim=1)


def colours_at(
    images: Tensor, points: Tensor, intrinsics_ndc: Tensor, view_from_points: Tensor
) -> tuple[Tensor, Tensor]:
    """Colours that several views show where points project (published_system 3.4).

    Args:
        images: [B, V, 3, H, W].
        points: [B, N, 3] metres.
        intrinsics_ndc: [B, V, 3, 3].
        view_from_points: [B, V, 4, 4].

    Returns:
        colours [B, N, V, 3], bilinear with border padding, and bool [B, N, V], true behind a camera or outside it.
    """
    batch, views = images.shape[:2]
    xy, z = project(points[:, None], intrinsics_ndc, view_from_points)
    flat = at_least_float32(images).flatten(0, 1)
    sampled = functional.grid_sample(
        flat, xy.reshape(batch * views, -1, 1, 2), padding_mode="border", align_corners=False
    )
    colours = sampled.reshape(batch, views, images.shape[2], -1).permute(0, 3, 1, 2)
    return colours, outside(xy, z).transpose(1, 2)
