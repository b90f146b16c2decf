from __future__ import annotations

import math

import pytest

from vipocc.training.best import Best
from vipocc.training.config import TrainingConfig
from vipocc.training.resuming import changes
from vipocc.training.state import RunState

STATE = RunState(10, 80, 8, 1, 1, 100, None, None, {})


def test_nothing_changed_is_nothing_said() -> None:
    assert changes(STATE, TrainingConfig(batch_size=8), 100, 1) == []


@pytest.mark.parametrize(
    "config, keys, world, told",
    [
        ({"batch_size": 4}, 100, 1, ["training.batch_size was 8 and is now 4", "samples keep their order"]),
        ({}, 100, 2, ["the run had 1 process and now has 2 processes", "the order of samples and the batches stay"]),
        ({"accumulate": 4}, 100, 1, ["training.accumulate was 1 and is now 4", "the order of samples"]),
        ({}, 90, 1, ["the split had 100 samples and now has 90", "their order from here on is another one"]),
        ({"ema": 0.99}, 100, 1, ["training.ema was off and is now 0.99", "starts here"]),
    ],
)
def test_each_change_is_one_line_with_old_new_and_effect(
    config: dict[str, float], keys: int, world: int, told: list[str]
) -> None:
    lines = changes(STATE, TrainingConfig(**config), keys, world)
    assert len(lines) == 1
    assert all(text in lines[0] for text in told)


@pytest.mark.parametrize("metric, worse, better", [("refined_depth/abs_rel", 0.3, 0.1), ("occupancy/o_acc", 0.1, 0.3)])
def test_the_best_is_the_smallest_error_or_the_largest_accuracy(metric: str, worse: float, better: float) -> None:
    best = Best(metric)
    assert not best.improves({"other": 1.0}, 1)
    assert not best.improves({metric: math.nan}, 2)
    assert best.improves({metric: worse}, 3)
    assert not best.improves({metric: worse}, 4)
    assert best.improves({metric: better}, 5)
    assert not best.improves({metric: worse}, 6)
    assert (best.value, best.step) == (better, 5)
    assert not Best(metric, better, 5).improves({metric: worse}, 7), "what a run had before it was resumed counts"
