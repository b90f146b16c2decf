from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import directions, intrinsics

from vipocc.model.config import FieldConfig
from vipocc.model.field import (
    MLPHead,
    PointQuery,
    colours_at,
    density_at,
    sample_features,
    sample_features_reference,
)


def head(hidden: int = 24, channels: int = 10) -> MLPHead:
    torch.manual_seed(1)
    made = MLPHead(FieldConfig(hidden=hidden), channels)
    torch.nn.init.normal_(made.hidden.bias)
    return made


def scattered(batch: int, count: int, seed: int = 0) -> torch.Tensor:
    """Points in front of, beside and behind the camera."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, 3, generator=generator) * 6.0 + torch.tensor([0.0, 0.0, 8.0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 9), st.floats(0.2, 3.0))
def test_feature_lookup_equals_grid_sample(seed: int, height: int, width: int, reach: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64).requires_grad_()
    xy = ((torch.rand(2, 20, 2, generator=generator, dtype=torch.float64) * 2 - 1) * reach).requires_grad_()
    seen = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    fast = sample_features(features, xy)
    slow = sample_features_reference(features, xy)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad((fast * seen).sum(), (features, xy)),
        torch.autograd.grad((slow * seen).sum(), (features, xy)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_pixel_finds_its_own_feature() -> None:
    features = torch.arange(12.0).reshape(1, 1, 3, 4)
    xy = torch.tensor([[[(2 * 2 + 1) / 4 - 1, (2 * 1 + 1) / 3 - 1]]])
    assert sample_features(features, xy).item() == pytest.approx(6.0)


def test_a_place_that_is_no_number_has_no_features() -> None:
    xy = torch.tensor([[[torch.nan, 0.0], [0.0, 0.0]]])
    found = sample_features(torch.ones(1, 2, 4, 4), xy)
    assert torch.isnan(found[0, 0]).all()
    assert torch.equal(found[0, 1], torch.ones(2))


@pytest.mark.parametrize("central", [False, True])
def test_fast_density_equals_reference(central: bool) -> None:
    made = head()
    features = torch.randn(2, 10, 12, 20, generator=torch.Generator().manual_seed(2)).requires_grad_()
    if central:
        unit = directions(2, 40, torch.Generator().manual_seed(3))
        query = PointQuery.of_central_rays(unit, torch.linspace(3, 80, 7).expand(2, 40, 7), intrinsics())
    else:
        query = PointQuery.of_points(scattered(2, 280), intrinsics())
    inputs = [features, *made.parameters()]
    seen = torch.randn(query.z.shape, generator=torch.Generator().manual_seed(4))
    fast, slow = made(made.prepare(features), query), made.reference(features, query)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5 * float(slow.detach().abs().max()))
    for mine, theirs in zip(
        torch.autograd.grad((fast * seen).sum(), inputs), torch.autograd.grad((slow * seen).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_central_rays_ask_for_the_same_points() -> None:
    unit = directions(2, 40, torch.Generator().manual_seed(3))
    distances = torch.linspace(3, 80, 7).expand(2, 40, 7)
    shared = PointQuery.of_central_rays(unit, distances, intrinsics())
    single = PointQuery.of_points((unit[:, :, None] * distances[..., None]).flatten(1, 2), intrinsics())
    torch.testing.assert_close(shared.flat().xy, single.xy)
    torch.testing.assert_close(shared.flat().z, single.z)
    assert torch.equal(shared.unseen.flatten(1), single.unseen[..., 0])
    assert shared.unseen.any()
    assert not shared.unseen.all()


def test_density_gradients_in_float64() -> None:
    made = head(5, 2).double()
    features = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    query = PointQuery.of_points(scattered(1, 6).double(), intrinsics(1).double())

    def sigma(weight: torch.Tensor, bias: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        # prepare() rounds to float32 by design; here the rest of the path is checked in float64.
        rows = torch.nn.functional.linear(fields.permute(0, 2, 3, 1), weight[:, :2]).permute(0, 3, 1, 2)
        parameters = {"hidden.weight": weight, "hidden.bias": bias}
        result: torch.Tensor = torch.func.functional_call(made, parameters, (rows, query))
        return result

    weight, bias = made.hidden.weight.detach().requires_grad_(), made.hidden.bias.detach().requires_grad_()
    assert torch.autograd.gradcheck(sigma, (weight, bias, features), nondet_tol=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 100, 10_000])
def test_chunks_change_no_value(chunk: int) -> None:
    made = head()
    prepared = made.prepare(torch.randn(2, 10, 12, 20))
    query = PointQuery.of_points(scattered(2, 33), intrinsics())
    whole, parts = density_at(made, prepared, query), density_at(made, prepared, query, chunk)
    assert parts.shape == (2, 33, 1)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


def test_points_behind_the_camera_are_unseen_and_finite() -> None:
    made = head()
    points = torch.tensor([[[0.0, 0.0, -5.0], [0.0, 0.0, 5.0], [50.0, 0.0, 5.0], [0.0, 0.0, 0.0]]])
    query = PointQuery.of_points(points, intrinsics(1))
    assert query.unseen[0, :, 0].tolist() == [True, False, True, True]
    assert torch.isfinite(made(made.prepare(torch.randn(1, 10, 12, 20)), query)).all()


def test_colours_are_the_image_where_the_point_projects() -> None:
    images = torch.rand(1, 2, 3, 8, 10)
    poses = torch.eye(4).repeat(1, 2, 1, 1)
    poses[0, 1, 0, 3] = 1000.0
    x, y = (2 * 3 + 1) / 10 - 1, (2 * 5 + 1) / 8 - 1
    matrix = torch.eye(3).repeat(1, 2, 1, 1)
    colours, invalid = colours_at(images, torch.tensor([[[x * 4, y * 4, 4.0]]]), matrix, poses)
    assert colours.shape == (1, 1, 2, 3)
    torch.testing.assert_close(colours[0, 0, 0], images[0, 0, :, 5, 3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(colours[0, 0, 1], images[0, 1, :, 5, 9], rtol=1e-5, atol=1e-5)
    assert invalid[0, 0].tolist() == [False, True]
