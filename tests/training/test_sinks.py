from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import TinyWorld

from vipocc.errors import ConfigError
from vipocc.training import metrics
from vipocc.training.session import start_training
from vipocc.training.window import Window, shown


class FakeRun:
    def __init__(self, **given: Any) -> None:
        self.given = given
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """A stand-in for the package, and the runs that were begun with it."""
    runs: list[FakeRun] = []

    def init(**given: Any) -> FakeRun:
        runs.append(FakeRun(**given))
        return runs[-1]

    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_it_goes_to_weights_and_biases_if_asked(world: TinyWorld, wandb: list[FakeRun]) -> None:
    config = world.configured("training.wandb=streets", "training.max_steps=3")
    start_training(world.workspace, config, name="mine", say=lambda text: None)
    (run,) = wandb
    assert run.given["project"] == "streets"
    assert run.given["name"] == run.given["id"] == "mine"
    assert run.given["config"]["training"]["max_steps"] == 3
    assert [step for step, figures in run.logged if "loss" in figures] == [1, 2, 3]
    assert any("rendered_depth/abs_rel" in figures for _, figures in run.logged)
    assert run.finished


def test_it_is_never_imported_unasked(world: TinyWorld, wandb: list[FakeRun]) -> None:
    start_training(world.workspace, world.configured("training.max_steps=1"), say=lambda text: None)
    assert not wandb


def test_it_must_be_installed_before_anything_is_done(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Weights & Biases is not installed: training\.wandb=streets; .*pip install"):
        start_training(world.workspace, world.configured("training.wandb=streets"), say=lambda text: None)
    assert not world.workspace.runs.exists() or not list(world.workspace.runs.iterdir())


def test_utilisation_is_told_where_the_driver_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> int:
        raise ModuleNotFoundError("pynvml")

    device = torch.device("cuda")
    assert metrics.utilisation(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 97)
    assert metrics.utilisation(device) == 0.97
    monkeypatch.setattr(torch.cuda, "utilization", absent)
    assert metrics.utilisation(device) is None


def test_figures_are_means_since_the_last_line_and_the_bar_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(torch.device("cpu"))
    for value in (1.0, 3.0):
        window.add({"loss": torch.tensor(value)}, 4)
    figures = window.figures(0.0)
    assert figures["loss"] == 2.0
    assert "gpu_utilisation" not in figures, "left out and not made up"
    assert figures["samples_per_second"] > 0
    assert shown(figures).keys() == {"loss", "samples/s", "wait", "GiB"}
    monkeypatch.setattr("vipocc.training.window.utilisation", lambda device: 0.5)
    window.add({"loss": torch.tensor(5.0)}, 4)
    figures = window.figures(0.0)
    assert figures["loss"] == 5.0
    assert shown(figures)["gpu"] == 0.5


def test_tensorboard_is_written_by_default(world: TinyWorld) -> None:
    from vipocc.training.config import TrainingConfig

    assert TrainingConfig().tensorboard
    config = world.configured("training.tensorboard=true", "training.max_steps=1")
    start_training(world.workspace, config, name="board", say=lambda text: None)
    found = list(Path(world.workspace.runs / "board" / "tensorboard").glob("events*"))
    assert found
    assert found[0].stat().st_size > 100
