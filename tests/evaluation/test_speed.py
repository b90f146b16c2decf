from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vipocc import cli, config
from vipocc.evaluation.inputs import untrained_model
from vipocc.evaluation.speed.evaluate import evaluate_speed
from vipocc.evaluation.speed.foundation import Foundation, is_here
from vipocc.evaluation.speed.parameters import count_parameters
from vipocc.evaluation.speed.timing import LEAST, WARM_UP, time_calls
from vipocc.evaluation.speed.uses import example, uses_of
from vipocc.model.network import ViPOcc
from vipocc.priors.config import DepthConfig
from vipocc.priors.tiny import make_tiny_depth
from vipocc.workspace import Workspace

CPU = torch.device("cpu")
SIZE = (64, 96)


class Clock:
    """A clock that a call moves on by a second for each of its images' hundredths."""

    def __init__(self, seconds: list[float]) -> None:
        self.now, self.seconds, self.calls = 0.0, seconds, 0

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self.seconds[self.calls % len(self.seconds)]
        self.calls += 1


def test_a_rate_is_images_over_the_time_of_a_call() -> None:
    clock = Clock([0.5])
    timing = time_calls(clock.work, 4, CPU, images=40, clock=clock)
    assert timing.rates == (8.0,) * 10
    assert (timing.median, timing.spread) == (8.0, (8.0, 8.0))
    assert clock.calls == 10 + WARM_UP


def test_the_middle_is_told_with_its_spread() -> None:
    clock = Clock([1.0, 1.0, 1.0, 1.0, 10.0])
    timing = time_calls(clock.work, 1, CPU, images=10, patience=1000, clock=clock)
    assert timing.median == 1.0
    assert timing.spread[0] == pytest.approx(0.1)


def test_slow_calls_end_early_but_are_repeated() -> None:
    clock = Clock([100.0])
    timing = time_calls(clock.work, 1, CPU, images=446, clock=clock)
    assert len(timing.rates) == LEAST
    assert clock.calls == LEAST + 2


@pytest.fixture(scope="module")
def model() -> ViPOcc:
    return untrained_model(config.load("demo"), CPU)


def test_weights_are_counted_by_what_reaches_a_prediction(model: ViPOcc) -> None:
    assert model.depth_branch is not None
    counted = count_parameters(model)
    held = sum(one.numel() for one in model.parameters())
    branch = sum(one.numel() for one in model.depth_branch.parameters())
    assert counted.total == held
    assert counted.by_use["depth_branch"] <= branch
    assert counted.by_use["occupancy"] <= held - branch
    assert counted.used == counted.by_use["occupancy"] + counted.by_use["depth_branch"] == counted.trained


def test_the_published_network_s_used_weights_are_those_that_a_training_step_reaches() -> None:
    counted = count_parameters(untrained_model(config.load("vipocc", profile="official"), CPU))
    assert counted.used == 47_022_322  # published_system.md 3.8


def test_dead_and_frozen_weights_are_not_counted_as_used_and_trained() -> None:
    made = untrained_model(config.load("demo"), CPU)
    plain = count_parameters(made)
    made.register_parameter("dead", torch.nn.Parameter(torch.zeros(1000)))
    frozen = next(made.encoder.parameters())
    frozen.requires_grad_(False)
    counted = count_parameters(made)
    assert counted.total == plain.total + 1000
    assert counted.used == plain.used
    assert counted.trained == plain.trained - frozen.numel()
    assert not frozen.requires_grad
    assert all(one.grad is None for one in made.parameters())


def test_what_is_timed_is_what_the_model_predicts(model: ViPOcc) -> None:
    given = example(2, SIZE, CPU)
    uses = uses_of(model, given)
    assert {name: list(use.call(graphed=True)().shape) for name, use in uses.items()} == {
        "occupancy": [2, 12_800],
        "rendered_depth": [2, 1, *SIZE],
        "depth_branch": [2, 1, *SIZE],
    }
    assert torch.equal(uses["depth_branch"].call(graphed=False)(), model.refine_depth(given.images, given.prior))
    assert torch.equal(given.images, example(2, SIZE, CPU).images)
    assert not uses["occupancy"].call(graphed=False)().requires_grad


def test_the_table_has_our_rows_the_foundation_model_s_share_and_the_published_ones(
    model: ViPOcc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny_depth(tmp_path / "tiny")
    wanted = DepthConfig(model=str(folder), input_size="native", batch_size=1)
    assert is_here(wanted)
    assert not is_here(DepthConfig(model="nobody/no-such-model"))
    foundation, called = Foundation(wanted, CPU), []
    plain = foundation.depth
    monkeypatch.setattr(foundation, "depth", lambda images: called.append(1) or plain(images))  # type: ignore[func-returns-value]
    report = evaluate_speed(
        model, SIZE, name="demo", dataset="synthetic", device=CPU, batches=(1,), images=1, foundation=foundation
    )
    counted = count_parameters(model)
    ours, rendered = report.row("demo, batch 1"), report.row("demo, rendered depth, batch 1")
    assert ours.metrics["parameters"].mean == counted.used / 1e6
    assert rendered.metrics["parameters"].mean == counted.by_use["occupancy"] / 1e6
    assert ours.metrics["occupancy_fps"].low <= ours.metrics["occupancy_fps"].mean
    assert ours.metrics["depth_fps"].mean > 0
    both, alone = report.row("demo, branch after tiny, batch 1"), report.row("tiny, batch 1")
    assert both.metrics["parameters"].mean == pytest.approx(
        (counted.by_use["depth_branch"] + foundation.parameters) / 1e6
    )
    assert both.metrics["depth_fps"].mean > 0
    assert len(called) >= 2 * (LEAST + 2)  # alone, and before the branch
    assert alone.metrics["depth_fps"].frames == LEAST
    assert report.row("ViPOcc").metrics["depth_fps"].mean == 124.58
    assert any("4090D" in note for note in report.notes)


def test_a_missing_foundation_model_is_named(model: ViPOcc) -> None:
    report = evaluate_speed(model, SIZE, name="demo", dataset="synthetic", device=CPU, batches=(1,), images=1)
    assert any("share was not measured" in note for note in report.notes)
    assert [row.name for row in report.rows if row.kind != "published"] == [
        "demo, batch 1",
        "demo, rendered depth, batch 1",
    ]


def test_the_command_needs_no_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Workspace.create(tmp_path / "ws", "synthetic")
    small = ["-o", "data.image_size=[64,96]", "--images", "1", "--batch-size", "1", "--device", "cpu"]
    assert cli.run(["eval", "speed", "-C", str(made.path), *small]) == 2
    assert "vipocc train" in capsys.readouterr().err
    assert cli.run(["eval", "speed", "-C", str(made.path), *small, "--dtype", "bfloat16", "--untrained"]) == 2
    assert "--dtype float32" in capsys.readouterr().err
    assert cli.run(["eval", "speed", "-C", str(made.path), *small, "--depth-model", "nowhere", "--untrained"]) == 2
    assert "nowhere" in capsys.readouterr().err

    assert cli.run(["eval", "speed", "-C", str(made.path), *small, "--untrained", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "speed"
    settings = report["settings"]
    assert settings["device"] == "cpu"
    assert settings["networks"] == "as they are"
    assert settings["hardware"]
    assert settings["parameters"]["total"] >= settings["parameters"]["used"]
    (saved,) = made.reports.iterdir()
    assert {"report.json", "table.md"} <= {path.name for path in saved.iterdir()}


@pytest.mark.gpu
def test_graphs_give_what_the_networks_give() -> None:
    device = torch.device("cuda")
    made = untrained_model(config.load("demo"), device)
    given = example(2, (96, 320), device)
    for use in uses_of(made, given).values():
        torch.testing.assert_close(use.call(graphed=True)(), use.call(graphed=False)())
