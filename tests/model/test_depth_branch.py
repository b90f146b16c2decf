from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_cases import SMALL

from vipocc.errors import UsageError
from vipocc.model.config import ModelConfig
from vipocc.model.depth_branch import (
    permeable_clamp,
    predicted_depth,
    refine_depth_residual,
    refine_depth_residual_official,
    refine_inverse_depth,
)
from vipocc.model.network import ViPOcc

finite = st.floats(-1e6, 1e6, width=32)
prior_metres = st.floats(0.0625, 1000.0, width=32)


def test_refinement_adds_inverse_depths() -> None:
    prior, residual = torch.tensor([4.0, 20.0, 20.0]), torch.tensor([0.25, -0.0125, 0.05])
    expected = torch.tensor([2.0, 1 / 0.0375, 10.0])
    torch.testing.assert_close(refine_inverse_depth(prior, residual), expected, rtol=1e-5, atol=0.0)


@given(st.lists(st.tuples(prior_metres, finite, finite), min_size=1, max_size=20))
def test_refined_depth_and_gradient_are_finite_for_any_output(cases: list[tuple[float, float, float]]) -> None:
    prior, output, upstream = torch.tensor(cases).unbind(1)
    output = output.requires_grad_()
    depth = refine_inverse_depth(prior, output)
    assert torch.isfinite(depth).all()
    assert (depth >= 0.1 * (1 - 1e-6)).all()
    assert (depth <= 80.0 * (1 + 1e-6)).all()
    (gradient,) = torch.autograd.grad(depth, output, upstream)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs() <= 80.0**2 * (1 + 1e-5) * upstream.abs() + 1e-6).all()


@pytest.mark.parametrize(("residual", "wanted"), [(-3.0, 10.0), (500.0, 10.0)])
def test_a_clamped_pixel_finds_its_way_back(residual: float, wanted: float) -> None:
    output = torch.tensor([residual], requires_grad=True)
    prior = torch.tensor([20.0])
    optimiser = torch.optim.Adam([output], lr=abs(residual) / 50)
    for _ in range(400):
        loss = (1.0 / refine_inverse_depth(prior, output) - 1.0 / wanted).abs().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert 0.1 < refine_inverse_depth(prior, output).item() < 80.0


def test_permeable_clamp_lets_through_only_what_leads_inside() -> None:
    x = torch.tensor([-2.0, -2.0, 0.5, 0.5, 2.0, 2.0, 0.0, 1.0], requires_grad=True)
    upstream = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    value = permeable_clamp(x, 0.0, 1.0)
    assert value.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 0.0, 1.0]
    (gradient,) = torch.autograd.grad(value, x, upstream)
    assert gradient.tolist() == [0.0, -1.0, 1.0, -1.0, 1.0, 0.0, 1.0, -1.0]


def test_refinement_gradient_inside_the_range_in_float64() -> None:
    prior = torch.rand(5, dtype=torch.float64) * 20 + 2
    residual = (torch.rand(5, dtype=torch.float64) * 0.02).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: refine_inverse_depth(prior, r), (residual,))


def test_a_missing_prior_stays_missing_and_gives_no_gradient() -> None:
    residual = torch.zeros(2, requires_grad=True)
    depth = refine_inverse_depth(torch.tensor([float("nan"), 5.0]), residual)
    assert torch.isnan(depth[0])
    (gradient,) = torch.autograd.grad(torch.nansum(depth), residual)
    assert gradient[0] == 0.0
    assert gradient[1] == pytest.approx(-25.0)


@pytest.mark.parametrize("kind", ["paper", "official"])
def test_branch_refines_every_pixel_and_trains(kind: str) -> None:
    torch.manual_seed(0)
    branch = SMALL.depth_branch.model_copy(update={"decoder": kind, "refinement": kind})
    model = ViPOcc(SMALL.model_copy(update={"depth_branch": branch}))
    prior = torch.full((2, 1, 64, 96), 20.0)
    images = torch.rand(2, 3, 64, 96)
    first = model.refine_depth(images, prior)
    assert first.shape == prior.shape
    if kind == "paper":
        assert torch.allclose(first, prior)
    optimiser = torch.optim.Adam(model.depth_branch.parameters(), lr=1e-3)
    before = {name: tensor.detach().clone() for name, tensor in model.depth_branch.named_parameters()}
    for _ in range(3):
        loss = (model.refine_depth(images, prior) - 15.0).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < (first.detach() - 15.0).abs().mean()
    for name, tensor in model.depth_branch.named_parameters():
        assert not torch.equal(tensor, before[name]), name


def test_a_prior_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="prior must be"):
        ViPOcc(SMALL).refine_depth(torch.rand(1, 3, 64, 96), torch.ones(1, 1, 32, 48))


def with_branch(**values: str) -> ModelConfig:
    return SMALL.model_copy(update={"depth_branch": SMALL.depth_branch.model_copy(update=values)})


def test_residual_depth_adds_metres() -> None:
    prior, residual = torch.tensor([4.0, 20.0, 20.0, 79.0, 90.0]), torch.tensor([2.0, -5.0, -30.0, 9.0, -1.0])
    expected = torch.tensor([6.0, 15.0, 0.1, 80.0, 79.0])
    torch.testing.assert_close(refine_depth_residual(prior, residual), expected)


def test_released_residual_depth_only_adds() -> None:
    output = torch.tensor([-40.0, 0.0, 40.0])
    depth = refine_depth_residual_official(torch.full((3,), 20.0), output, torch.tensor(80.0), torch.tensor(0.5))
    torch.testing.assert_close(depth, torch.tensor([20.5, 60.5, 100.5]))


@given(st.lists(finite, min_size=1, max_size=20))
def test_predicted_depth_is_in_range_and_finite_for_any_output(outputs: list[float]) -> None:
    output = torch.tensor(outputs).requires_grad_()
    depth = predicted_depth(output)
    assert (depth >= 0.1 * (1 - 1e-5)).all()
    assert (depth <= 80.0 * (1 + 1e-5)).all()
    (gradient,) = torch.autograd.grad(depth.sum(), output)
    assert torch.isfinite(gradient).all()


def test_predicted_depth_is_even_in_inverse_depth() -> None:
    expected = torch.tensor([80.0, 2.0 / (10.0 + 1.0 / 80.0), 0.1])
    torch.testing.assert_close(predicted_depth(torch.tensor([-100.0, 0.0, 100.0])), expected)


@pytest.mark.parametrize("form", ["paper", "official"])
@pytest.mark.parametrize("kind", ["residual", "depth"])
def test_ablated_branches_train(kind: str, form: str) -> None:
    torch.manual_seed(0)
    model = ViPOcc(with_branch(kind=kind, decoder=form, refinement=form))
    assert model.depth_branch is not None
    images, prior = torch.rand(2, 3, 64, 96), torch.full((2, 1, 64, 96), 20.0)
    given = None if kind == "depth" else prior
    first = model.refine_depth(images, given).detach()
    if kind == "depth":
        assert torch.equal(model.refine_depth(images, prior).detach(), first), "no prior is looked at"
        assert 5.0 < float(first.median()) < 20.0, "it begins where streets are"
    elif form == "paper":
        assert torch.allclose(first, prior)
    optimiser = torch.optim.Adam(model.depth_branch.parameters(), lr=1e-3)
    before = {name: tensor.detach().clone() for name, tensor in model.depth_branch.named_parameters()}
    for _ in range(3):
        loss = (model.refine_depth(images, given) - 40.0).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < (first - 40.0).abs().mean()
    for name, tensor in model.depth_branch.named_parameters():
        assert not torch.equal(tensor, before[name]), name
    learnt = {name for name, _ in model.depth_branch.named_parameters()} & {"scale", "shift"}
    assert learnt == ({"scale", "shift"} if (kind, form) == ("residual", "official") else set())


def test_a_branch_that_refines_needs_a_prior() -> None:
    for kind in ("residual", "inverse_residual"):
        with pytest.raises(UsageError, match=f"kind {kind} needs a pseudo-depth"):
            ViPOcc(with_branch(kind=kind)).refine_depth(torch.rand(1, 3, 64, 96))


def test_without_a_branch_there_is_nothing_of_it() -> None:
    model = ViPOcc(with_branch(kind="none"))
    assert model.depth_branch is None
    assert not [name for name in model.state_dict() if name.startswith("depth_branch")]
    with pytest.raises(UsageError, match="no depth branch"):
        model.refine_depth(torch.rand(1, 3, 64, 96), torch.ones(1, 1, 64, 96))
