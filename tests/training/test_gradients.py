"""Gradients of a shared step equal those of the batch at once (float64, batch normalisation in evaluation mode)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_samples import open_samples
from tiny_world import TinyWorld
from torch import Tensor
from whole_step import CASES, CPU, SHARED, a_model, configured, cut, gradients, in_float64, opened, uneven

from vipocc.training.gradients import _statistics_kept, add_gradients
from vipocc.training.step import prepare, training_losses
from vipocc.training.stream import RunBatches, load_batches

Raw = dict[str, Tensor]


@pytest.fixture(scope="module")
def raw(shared_world: TinyWorld) -> Raw:
    """Four samples as they are read."""
    samples = open_samples(shared_world)
    found = next(iter(load_batches(samples, RunBatches(0, 4, 4), workers=0, prefetch=1)))
    return {name: values.clone() for name, values in found.items()}


def at_once(case: str, raw: Raw) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The plain twin: the losses of the whole batch and their gradient."""
    config = configured(case)
    model = a_model(config)
    terms = training_losses(model, in_float64(prepare(uneven(raw, case), config.training, CPU)), config.training)
    terms["total"].backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return terms, found


def expect_equal(first: tuple[dict[str, Tensor], dict[str, Tensor]], second: tuple[dict[str, Tensor], ...]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            scale = max(1.0, float(one[name].detach().abs().max()))
            assert float((one[name].detach() - other[name]).abs().max()) <= 1e-9 * scale, name


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_parts_add_up_to_the_batch(raw: Raw, case: str, parts: int) -> None:
    losses, found = gradients(configured(case), cut(uneven(raw, case), parts))
    assert all(value.dtype == torch.float64 for value in found.values())
    expect_equal(at_once(case, raw), (losses, found))


def test_averaging_the_parts_would_be_another_gradient(raw: Raw) -> None:
    config = configured("paper")
    model = a_model(config)
    for part in cut(uneven(raw, "paper"), 2):
        batch = in_float64(prepare(part, config.training, CPU))
        (training_losses(model, batch, config.training)["total"] / 2).backward()
    _, right = at_once("paper", raw)
    worst = max(float((p.grad - right[n]).abs().max()) for n, p in model.named_parameters() if p.grad is not None)
    assert worst > 1e-6


def test_two_processes_have_the_gradient_of_one(raw: Raw, tmp_path: Path) -> None:
    torch.save(raw, tmp_path / "raw.pt")
    script = Path(__file__).with_name("whole_step.py")
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), "cpu"],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in running:
        told = process.communicate(timeout=300)[1]
        assert process.returncode == 0, told
    for case, parts in SHARED:
        expected = at_once(case, raw)
        found = [torch.load(tmp_path / f"{case}-{parts}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for losses, values in found:
            expect_equal(expected, (losses, values))
        assert all(torch.equal(found[0][1][name], value) for name, value in found[1][1].items()), "the same bits"


def test_counting_moves_no_running_statistics(raw: Raw) -> None:
    config = configured("paper")
    model = a_model(config).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    with torch.no_grad(), _statistics_kept(model):
        training_losses(model, in_float64(prepare(raw, config.training, CPU)), config.training)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    add_gradients(model, [opened(part, config) for part in cut(raw, 2)], config.training)
    counted = [int(v) for n, v in model.named_buffers() if n.startswith("encoder.") and n.endswith("batches_tracked")]
    assert counted
    assert set(counted) == {2}, "each part counts once"
