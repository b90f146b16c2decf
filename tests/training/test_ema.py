from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from test_samples import open_samples
from test_trainer import equal_weights, losses_of, stop_at
from tiny_world import TinyWorld
from torch import nn

from vipocc.model.checkpoint import read_weights
from vipocc.training.ema import WeightAverage
from vipocc.training.session import start_training
from vipocc.training.state import read_state
from vipocc.training.trainer import Trainer

PARTS = ("training.batch_size=4", "training.accumulate=2", "training.ema=0.9", "training.validation_frames=0")


def test_it_is_the_running_average() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().clone()
    for step in range(1, 8):
        with torch.no_grad():
            model.weight.add_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    live = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
        assert not torch.equal(model.weight, live)
    assert torch.equal(model.weight, live), "put back bit for bit"


def test_frozen_parameters_are_left_alone() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert list(WeightAverage(model, 0.5).live()) == ["weight"]


def test_the_average_is_what_is_saved_and_resuming_is_exact(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bitwise, with the average, accumulation and saving in the background."""
    config = world.configured(*PARTS)
    assert config.training.save_in_background
    start_training(world.workspace, config, name="whole", say=lambda text: None)
    with monkeypatch.context() as patched:
        stop_at(4, patched)
        with pytest.raises(KeyboardInterrupt):
            start_training(world.workspace, config, name="again", say=lambda text: None)
    start_training(world.workspace, None, resume="again", say=lambda text: None)
    whole, again = (world.workspace.runs / name for name in ("whole", "again"))
    assert losses_of(whole) == losses_of(again)
    last = [run / "checkpoints" / "step_6" for run in (whole, again)]
    assert equal_weights(*last)
    states = [read_state(path) for path in last]
    live = states[0].weights
    assert live is not None
    assert states[1].weights is not None
    assert all(torch.equal(value, states[1].weights[name]) for name, value in live.items())
    assert states[0].accumulate == 2
    saved = read_weights(last[0])
    assert any(not torch.equal(saved[name], value) for name, value in live.items())
    plain = world.configured(*PARTS, "training.ema=null")
    start_training(world.workspace, plain, name="plain", say=lambda text: None)
    trained = read_weights(world.workspace.runs / "plain" / "checkpoints" / "step_6")
    assert all(torch.equal(value, trained[name]) for name, value in live.items()), "averaging disturbs no training"


def test_the_average_is_what_is_validated(world: TinyWorld, tmp_path: Path) -> None:
    met: list[dict[str, torch.Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        met.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return {}

    config = world.configured("training.ema=0.9", "training.max_steps=2")
    run = Trainer(config, open_samples(world), tmp_path, device=torch.device("cpu"), validate=validate).train()
    saved = read_weights(run.checkpoint)
    assert all(torch.equal(value, saved[name]) for name, value in met[-1].items())


def test_turning_it_on_or_off_is_said(world: TinyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    start_training(world.workspace, world.configured("training.ema=0.9"), name="run", say=lambda text: None)
    over = ("training.max_steps=7", "training.ema=null")
    summary = start_training(world.workspace, None, resume="run", overrides=over, say=lambda text: None)
    assert "training.ema was on and is now off" in capsys.readouterr().err
    assert math.isfinite(summary.figures["loss"])
    over = ("training.max_steps=8", "training.ema=0.9")
    start_training(world.workspace, None, resume="run", overrides=over, say=lambda text: None)
    assert "training.ema was off and is now 0.9: the average of the weights starts here" in capsys.readouterr().err
