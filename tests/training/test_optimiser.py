import copy
import math

import pytest
import torch
from torch import nn

from vipocc.training.optimiser import GuardedAdam


def quadratic() -> tuple[nn.Linear, GuardedAdam]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, GuardedAdam(model, torch.device("cpu"))


def test_it_is_adam_as_published() -> None:
    model, guarded = quadratic()
    twin = nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    plain = torch.optim.Adam(twin.parameters(), lr=0.01, betas=(0.9, 0.999), eps=1e-8)
    x = torch.randn(5, 3)
    for step in range(5):
        guarded.update(step, model(x).square().mean(), 0.01)
        plain.zero_grad()
        twin(x).square().mean().backward()
        plain.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_updates_stop_at_the_first_value_that_is_not_finite(bad: float) -> None:
    model, guarded = quadratic()
    x = torch.ones(1, 3)
    guarded.update(1, model(x).sum(), 0.01)
    before = [value.detach().clone() for value in model.parameters()]
    guarded.update(2, model(x).sum() * bad, 0.01)
    assert guarded.first_bad_step() is None, "not known before the next step, unless waited for"
    guarded.update(3, model(x).sum(), 0.01)
    assert guarded.first_bad_step() == 2
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is() -> None:
    model, guarded = quadratic()
    loss = torch.sqrt(model(torch.zeros(1, 3)).square().sum() * 0.0)
    assert math.isfinite(float(loss.detach()))
    guarded.update(7, loss, 0.01)
    assert guarded.first_bad_step(wait=True) == 7


def test_the_norm_is_reported_before_clipping_and_clipped_after() -> None:
    model, _ = quadratic()
    guarded = GuardedAdam(model, torch.device("cpu"), gradient_clip=0.1)
    norm = guarded.update(1, 100 * model(torch.ones(1, 3)).sum(), 0.01)
    assert float(norm) > 100
    clipped = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert clipped == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("saved, here", [(torch.channels_last, torch.contiguous_format), (None, torch.channels_last)])
def test_moments_take_the_memory_order_of_the_parameters(
    saved: torch.memory_format | None, here: torch.memory_format
) -> None:
    """A run may go on where convolutions lie otherwise in memory; the fused kernels ask for one order."""

    def conv(order: torch.memory_format) -> tuple[nn.Conv2d, GuardedAdam]:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3).to(memory_format=order)
        return model, GuardedAdam(model, torch.device("cpu"))

    x = torch.ones(1, 3, 5, 5)
    old, first = conv(saved or torch.contiguous_format)
    first.update(1, old(x).square().sum(), 0.01)
    new, second = conv(here)
    new.load_state_dict(old.state_dict())
    second.load(copy.deepcopy(first.adam.state_dict()))
    for model, guarded in ((old, first), (new, second)):
        guarded.update(2, model(x).square().sum(), 0.01)
        moments = guarded.adam.state[model.weight]
        assert moments["exp_avg"].stride() == model.weight.stride()
    torch.testing.assert_close(new.weight, old.weight, rtol=1e-5, atol=1e-6)
