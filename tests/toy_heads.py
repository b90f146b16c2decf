"""Small density heads of other shapes than BTS's, registered as another package's would be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vipocc.geometry.projection import outside, project
from vipocc.model.config import ModelConfig
from vipocc.model.field import PointQuery, depth_code, sample_features
from vipocc.model.heads import registry
from vipocc.model.heads.interface import DensityHead, HeadInputs, HeadNeeds

LABELS = 4


def code_of(query: PointQuery) -> Tensor:
    """[B, P, S, 3]: place in the image and depth."""
    samples = query.z.shape[-1]
    xy = query.xy[:, :, None].expand(-1, -1, samples, -1)
    return torch.cat([xy.clamp(-2, 2), depth_code(query.z)[..., None]], dim=-1)


class ToyHead(DensityHead):
    """What the toys share: features and code of a point."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @classmethod
    def from_config(cls, config: ModelConfig, channels: int) -> ToyHead:
        assert config.head.options.get("unknown") is None, "options are the head's to check"
        return cls(channels)

    def prepare(self, features: Tensor, inputs: HeadInputs | None = None) -> Any:
        assert inputs is not None
        assert torch.equal(inputs.features[:, 0], features)
        return inputs

    def known(self, inputs: HeadInputs, query: PointQuery) -> Tensor:
        """[B, P, S, C + 3]"""
        features = sample_features(inputs.features[:, 0], query.xy)[:, :, None]
        return torch.cat([features.expand(-1, -1, query.z.shape[-1], -1), code_of(query)], dim=-1)


class TwoViews(ToyHead):
    """MVBTS's shape: per view a confidence and features, averaged over the views that show the point."""

    needs = HeadNeeds(views=2, fewest_views=2)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.each, self.last = nn.Linear(channels + 3, 1 + 8), nn.Linear(8, 1)

    def forward(self, prepared: HeadInputs, query: PointQuery) -> Tensor:
        xy, z = project(query.points.flatten(1, 2)[:, None], prepared.intrinsics_ndc, prepared.view_from_key)
        views, count = prepared.features.shape[1], xy.shape[2]
        features = sample_features(prepared.features.flatten(0, 1), xy.flatten(0, 1)).unflatten(0, (-1, views))
        code = torch.cat([xy.clamp(-2, 2), depth_code(z)[..., None]], dim=-1)
        each = self.each(torch.cat([features, code], dim=-1))  # [B, V, N, 9]
        score = each[..., 0].masked_fill(outside(xy, z), -1e9)
        mixed = (score.softmax(dim=1)[..., None] * each[..., 1:]).sum(dim=1)
        assert mixed.shape[1] == count
        return functional.softplus(self.last(torch.relu(mixed))[..., 0]).reshape(query.z.shape)

    def unseen(self, prepared: HeadInputs, query: PointQuery) -> Tensor:
        xy, z = project(query.points.flatten(1, 2)[:, None], prepared.intrinsics_ndc, prepared.view_from_key)
        return outside(xy, z).all(dim=1).reshape(query.z.shape)


class Labels(ToyHead):
    """A head that reads a label where the point projects, from another store."""

    needs = HeadNeeds(maps=("label",))

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gate, self.last = nn.Embedding(LABELS, channels + 3), nn.Linear(channels + 3, 1)

    def labels(self, inputs: HeadInputs, query: PointQuery) -> Tensor:
        """[B, P, 1] int64, nearest, border."""
        found = functional.grid_sample(
            inputs.maps["label"].float(), query.xy[:, :, None], mode="nearest", padding_mode="border",
            align_corners=False,
        )  # fmt: skip
        return found[:, 0].long()

    def forward(self, prepared: HeadInputs, query: PointQuery) -> Tensor:
        hidden = self.gate(self.labels(prepared, query)) * self.known(prepared, query)
        return functional.softplus(self.last(hidden)[..., 0])


class OverRay(ToyHead):
    """A head whose samples attend to the other samples of their ray."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.key, self.value = nn.Linear(channels + 3, 8), nn.Linear(channels + 3, 8)
        self.last = nn.Linear(8, 1)

    def forward(self, prepared: HeadInputs, query: PointQuery) -> Tensor:
        known = query.along_rays(self.known(prepared, query))  # [B, R, N, C + 3]
        mixed = functional.scaled_dot_product_attention(self.key(known), self.key(known), self.value(known))
        return functional.softplus(self.last(mixed)[..., 0]).reshape(query.z.shape)


@dataclass(frozen=True)
class Pooled:
    """Source views, and a sum over all points of the call for each label."""

    inputs: HeadInputs
    sums: Tensor
    """[B, LABELS, 8]"""
    counts: Tensor
    """[B, LABELS]"""


class OverCall(Labels):
    """KYN's shape: what is known of each label from all points of the call, then every point looks it up."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.gate
        self.value, self.last = nn.Linear(channels + 3, 8), nn.Linear(8, 1)

    def prepare(self, features: Tensor, inputs: HeadInputs | None = None) -> Any:
        assert inputs is not None
        batch = len(features)
        return Pooled(inputs, features.new_zeros(batch, LABELS, 8), features.new_zeros(batch, LABELS))

    def gather(self, prepared: Pooled, queries: Iterable[PointQuery]) -> Pooled:
        sums, counts = prepared.sums, prepared.counts
        for query in queries:
            values, label = self._values(prepared, query)
            seen = (~query.unseen).flatten(1).to(values.dtype)
            sums = sums.scatter_add(1, label[..., None].expand_as(values), values * seen[..., None])
            counts = counts.scatter_add(1, label, seen)
        return replace(prepared, sums=sums, counts=counts)

    def forward(self, prepared: Pooled, query: PointQuery) -> Tensor:
        values, label = self._values(prepared, query)
        pooled = prepared.sums / prepared.counts.clamp_min(1.0)[..., None]
        mixed = values + torch.gather(pooled, 1, label[..., None].expand_as(values))
        return functional.softplus(self.last(mixed)[..., 0]).reshape(query.z.shape)

    def _values(self, prepared: Pooled, query: PointQuery) -> tuple[Tensor, Tensor]:
        label = self.labels(prepared.inputs, query).expand(-1, -1, query.z.shape[-1]).flatten(1)
        return torch.tanh(self.value(self.known(prepared.inputs, query))).flatten(1, 2), label


TOYS: dict[str, type[ToyHead]] = {"two-views": TwoViews, "labels": Labels, "over-ray": OverRay, "over-call": OverCall}


@dataclass(frozen=True)
class _Point:
    name: str

    def load(self) -> type[ToyHead]:
        return TOYS[self.name]


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the toys known as if a package had declared them in the entry-point group."""

    def entry_points(*, group: str, name: str | None = None) -> list[_Point]:
        assert group == "vipocc.heads"
        return [_Point(toy) for toy in TOYS if name in (None, toy)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
