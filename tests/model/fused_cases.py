"""Compares the fused kernels with their plain twins; a program of its own, so that Triton's interpreter can be chosen.

Prints one JSON object of relative differences. Run by test_fused.py with TRITON_INTERPRET=1 on the CPU, and imported by
its GPU tests.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vipocc.model.config import FieldConfig
from vipocc.model.field import MLPHead
from vipocc.model.fused.rendering import render_rays_fused
from vipocc.model.renderer import ColourViews, Rays, Rendered, render_rays, sample_distances


@dataclass(frozen=True)
class Case:
    """A scene whose rays begin at the key camera, beside it, and look forwards, sideways and back."""

    head: MLPHead
    features: Tensor
    intrinsics: Tensor
    rays: Rays
    distances: Tensor
    images: Tensor
    chosen: Tensor
    view_from_key: Tensor
    hard_cap: bool

    @property
    def sample(self) -> Tensor:
        return torch.arange(len(self.images), device=self.images.device)[:, None]

    def views(self) -> ColourViews:
        k = self.intrinsics[:, None].expand(-1, self.images.shape[1], 3, 3)
        at = (self.sample, self.chosen)
        return ColourViews(self.images[at], k[at], self.view_from_key[at])


def case(
    *,
    batch: int = 2,
    rays: int = 6,
    samples: int = 16,
    hidden: int = 16,
    size: tuple[int, int] = (12, 20),
    hard_cap: bool = True,
    device: str = "cpu",
    seed: int = 0,
) -> Case:
    """Return a random case."""
    g = torch.Generator().manual_seed(seed)
    head = MLPHead(FieldConfig(hidden=hidden), hidden)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.2)
    height, width = size
    origins = torch.randn(batch, rays, 3, generator=g) * 0.5
    origins[:, : rays // 3] = 0.0
    directions = torch.randn(batch, rays, 3, generator=g) * torch.tensor([0.5, 0.3, 0.3]) + torch.tensor(
        [0.0, 0.0, 1.0]
    )
    directions[:, -2:] *= -1.0
    directions = nn.functional.normalize(directions, dim=-1)
    intrinsics = torch.tensor([[0.8, 0.01, 0.02], [0.0, 2.0, 0.2], [0.0, 0.0, 1.0]]).expand(batch, 3, 3)
    view_from_key = torch.eye(4).repeat(batch, 3, 1, 1)
    view_from_key[:, :, :3, 3] = torch.randn(batch, 3, 3, generator=g) * 0.6
    features = torch.randn(batch, hidden, height, width, generator=g)
    return Case(
        head=head.to(device),
        features=features.to(device).requires_grad_(),
        intrinsics=intrinsics.to(device),
        rays=Rays(origins.to(device), directions.to(device)),
        distances=sample_distances(3.0, 80.0, samples, (batch, rays), jitter=g).to(device),
        images=torch.rand(batch, 3, 3, height, width, generator=g).to(device),
        chosen=torch.stack([torch.randperm(3, generator=g)[:2] for _ in range(batch)]).to(device),
        view_from_key=view_from_key.to(device),
        hard_cap=hard_cap,
    )


def plain(made: Case) -> tuple[Rendered, Tensor]:
    """Render by the plain twin; also the share of each ray's weight that is not seen."""
    prepared = made.head.prepare(made.features)
    rendered = render_rays(
        made.head, prepared, made.intrinsics, made.rays, made.distances, made.views(), hard_cap=made.hard_cap
    )
    assert rendered.invalid is not None
    return rendered, (rendered.weights[..., None] * rendered.invalid).sum(-2).detach()


def fused(made: Case) -> Rendered:
    """Render by the kernels."""
    prepared = made.head.prepare(made.features)
    return render_rays_fused(
        made.head, prepared, made.intrinsics, made.rays, made.distances, made.views(), hard_cap=made.hard_cap
    )


def differences(made: Case) -> dict[str, float]:
    """Return relative differences of values and of every gradient."""
    names = ["features", *(name for name, _ in made.head.named_parameters())]
    leaves = [made.features, *made.head.parameters()]
    g = torch.Generator().manual_seed(7)
    rendered, unseen = plain(made)
    assert rendered.colours is not None
    by_distance = torch.randn(rendered.distance.shape, generator=g).to(made.images.device)
    by_colour = 10.0 * torch.randn(rendered.colours.shape, generator=g).to(made.images.device)

    def gradients(distance: Tensor, colours: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((distance * by_distance).sum() + (colours * by_colour).sum(), leaves)

    wanted = gradients(rendered.distance, rendered.colours)
    result = fused(made)
    assert result.colours is not None
    assert result.unseen is not None
    got = gradients(result.distance, result.colours)
    pairs = {
        "distance": (result.distance, rendered.distance),
        "colours": (result.colours, rendered.colours),
        "unseen": (result.unseen, unseen),
    }
    pairs |= {f"gradient of {name}": pair for name, *pair in zip(names, got, wanted, strict=True)}  # type: ignore[misc]
    return {name: float(((a - b).norm() / b.norm()).detach()) for name, (a, b) in pairs.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = [differences(case()), differences(case(hard_cap=False, samples=32, rays=4, seed=3))]
    sys.stdout.write(json.dumps(results))
