from __future__ import annotations

import pytest
import torch
from model_cases import SMALL, intrinsics, rays, views

from vipocc.geometry.ndc import depth_factor, ndc_grid, ray_directions
from vipocc.model.field import PointQuery, colours_at
from vipocc.model.network import ViPOcc
from vipocc.model.renderer import Rays, composite, composite_reference, sample_distances


@pytest.mark.parametrize("hard_cap", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4, 1e9])
def test_composite_equals_reference(scale: float, hard_cap: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    sigma = (torch.rand(50, 64, generator=generator, dtype=torch.float64) * scale).requires_grad_()
    distances = sample_distances(3.0, 80.0, 64, (50,), jitter=generator).double()
    seen = torch.rand(50, 64, generator=generator, dtype=torch.float64)
    fast, slow = (function(sigma, distances, hard_cap=hard_cap) for function in (composite, composite_reference))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-7)
    (mine,), (theirs,) = (torch.autograd.grad((weights * seen).sum(), sigma) for weights in (fast, slow))
    assert torch.isfinite(mine).all()
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()) + 1e-8)


def test_composite_gradient_in_float64() -> None:
    distances = sample_distances(3.0, 80.0, 8, (3,)).double()
    sigma = (torch.rand(3, 8, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: composite(s, distances), (sigma,))


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e6])
def test_weights_sum_to_one_under_the_cap(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    sigma = torch.rand(200, 64, generator=generator) * scale
    weights = composite(sigma, sample_distances(3.0, 80.0, 64, (200,), jitter=generator))
    torch.testing.assert_close(weights.sum(-1), torch.ones(200), rtol=0.0, atol=2e-6)
    assert (weights >= 0).all()


def test_opaque_samples_hide_what_is_behind() -> None:
    # One sample of enormous density: a running sum must not lose what came before it.
    sigma = torch.full((64,), 0.05)
    sigma[20] = 1e9
    weights = composite(sigma, sample_distances(3.0, 80.0, 64, ()))
    torch.testing.assert_close(weights, composite_reference(sigma, sample_distances(3.0, 80.0, 64, ())))
    assert float(weights[21:].sum()) == 0.0


def test_samples_stay_in_their_bins_and_follow_the_generator() -> None:
    def draw(seed: int) -> torch.Tensor:
        return sample_distances(3.0, 80.0, 64, (5, 7), jitter=torch.Generator().manual_seed(seed))

    first = draw(0)
    assert torch.equal(first, draw(0))
    assert not torch.equal(first, draw(1))
    share = (1 / 3 - 1 / first.double()) / (1 / 3 - 1 / 80) * 64 - torch.arange(64)
    assert share.min() > -1e-3
    assert share.max() < 1 + 1e-3
    assert share.std() > 0.2
    assert (first.diff(dim=-1) >= 0).all()
    assert first.min() >= 3.0
    assert first.max() <= 80.0


@pytest.fixture(scope="module")
def model() -> ViPOcc:
    torch.manual_seed(0)
    return ViPOcc(SMALL).eval()


@pytest.fixture(scope="module")
def features(model: ViPOcc) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(torch.rand(2, 3, 64, 96))


def test_render_shapes_and_the_density_only_path(model: ViPOcc, features: torch.Tensor) -> None:
    full = model.render(features, intrinsics(), rays(), views())
    assert full.distance.shape == (2, 30)
    assert full.weights.shape == (2, 30, 16)
    assert full.colours is not None
    assert full.colours.shape == (2, 30, 3, 3)
    assert full.invalid is not None
    assert full.invalid.shape == (2, 30, 16, 3)
    alone = model.render(features, intrinsics(), rays())
    assert alone.colours is None
    assert alone.invalid is None
    torch.testing.assert_close(alone.distance, full.distance)


def test_rendered_colours_are_weighted_lookups(model: ViPOcc, features: torch.Tensor) -> None:
    some, seen = rays(), views()
    out = model.render(features, intrinsics(), some, seen)
    distances = sample_distances(3.0, 80.0, 16, (2, 30))
    points = (some.directions[:, :, None] * distances[..., None]).flatten(1, 2)
    colours, invalid = colours_at(seen.images, points, seen.intrinsics_ndc, seen.view_from_key)
    expected = (out.weights[..., None, None] * colours.reshape(2, 30, 16, 3, 3)).sum(2)
    torch.testing.assert_close(out.colours, expected)
    unseen = PointQuery.of_points(points, intrinsics()).unseen
    assert torch.equal(out.invalid, (invalid | unseen).reshape(2, 30, 16, 3))  # type: ignore[arg-type]


def test_central_rays_render_the_same(model: ViPOcc, features: torch.Tensor) -> None:
    general = model.render(features, intrinsics(), rays(), views())
    shared = model.render(features, intrinsics(), rays(central=True), views())
    torch.testing.assert_close(shared.distance, general.distance, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shared.colours, general.colours, rtol=1e-4, atol=1e-5)
    assert torch.equal(shared.invalid, general.invalid)  # type: ignore[arg-type]


def test_render_depth_is_distance_along_the_pixels_rays(model: ViPOcc, features: torch.Tensor) -> None:
    size = (6, 10)
    depth = model.render_depth(features, intrinsics(), size)
    xy = ndc_grid(size, "centre").reshape(-1, 2)
    unit = ray_directions(intrinsics(), xy)
    out = model.render(features, intrinsics(), Rays(torch.zeros_like(unit), unit))
    expected = (out.distance * depth_factor(intrinsics(), xy)).reshape(2, 1, *size)
    torch.testing.assert_close(depth, expected.detach(), rtol=1e-4, atol=1e-4)
    assert not depth.requires_grad


def test_geometry_ignores_autocast(model: ViPOcc, features: torch.Tensor) -> None:
    plain = model.render(features, intrinsics(), rays(), views())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.render(features, intrinsics(), rays(), views())
        sigma = model.density(features, rays().directions * 10, intrinsics())
    assert torch.equal(plain.distance, mixed.distance)
    assert torch.equal(plain.colours, mixed.colours)  # type: ignore[arg-type]
    assert torch.equal(sigma, model.density(features, rays().directions * 10, intrinsics()))
