"""What only a CUDA device can show of the trainer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import losses_of
from tiny_world import OVERRIDES, TinyWorld

from vipocc.cli import run
from vipocc.errors import DeviceError
from vipocc.model.checkpoint import read_weights
from vipocc.training.metrics import read_metrics
from vipocc.training.session import start_training

pytestmark = pytest.mark.gpu

SHORT = ("training.device=cuda", "training.dtype=float32", "training.validation_frames=0")


def train(world: TinyWorld, name: str, *more: str, **given: Any) -> list[tuple[int, float]]:
    start_training(world.workspace, world.configured(*SHORT, *more), name=name, say=lambda text: None, **given)
    return losses_of(world.workspace.runs / name)


def test_resuming_is_exact_to_rounding(world: TinyWorld) -> None:
    """With the average of weights, two parts, and saving in the background."""
    more = ("training.batch_size=4", "training.accumulate=2", "training.ema=0.9")
    whole = train(world, "whole", *more)
    train(world, "again", *more, "training.max_steps=4", "training.decay_last=0")
    start_training(
        world.workspace,
        None,
        resume="again",
        overrides=("training.max_steps=6", "training.decay_last=0.4"),
        say=lambda text: None,
    )
    again = losses_of(world.workspace.runs / "again")
    assert [step for step, _ in again] == [step for step, _ in whole]
    assert [loss for _, loss in again] == pytest.approx([loss for _, loss in whole], rel=1e-3)


def test_deterministic_runs_are_equal_bit_for_bit(world: TinyWorld) -> None:
    more = ("training.deterministic=true", "training.max_steps=3")
    assert train(world, "first", *more) == train(world, "second", *more)
    first, second = (
        read_weights(world.workspace.runs / name / "checkpoints" / "step_3") for name in ("first", "second")
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_figures_of_the_device_are_logged(world: TinyWorld) -> None:
    train(world, "run", "training.max_steps=2")
    line = read_metrics(world.workspace.runs / "run" / "metrics.jsonl")[0]
    assert 0.0 < line["peak_memory_gib"] < 200.0
    assert 0.0 <= line.get("gpu_utilisation", 0.0) <= 1.0


def test_a_trace_shows_the_kernels(world: TinyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["-C", str(world.workspace.path)]
    options = [part for text in (*OVERRIDES, *SHORT) for part in ("-o", text)]
    assert run(["train", *where, *options, "--steps", "11", "--run", "traced", "--profile-trace"]) == 0
    assert "Self CUDA" in capsys.readouterr().out
    assert (world.workspace.runs / "traced" / "trace-steps_8-10.json.gz").is_file()


def test_running_out_of_memory_names_the_options(world: TinyWorld) -> None:
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(DeviceError, match=r"out of memory on cuda.*training\.batch_size"):
            train(world, "large", "training.patches=512")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_two_devices_train_one_run(world: TinyWorld) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    options = [part for text in (*OVERRIDES, *SHORT) for part in ("-o", text)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "vipocc", "train"]
    command = [*torchrun, "-C", str(world.workspace.path), "--run", "pair", "--steps", "4", *options]
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in read_metrics(world.workspace.runs / "pair" / "metrics.jsonl") if "loss" in line]
    assert [line["samples"] for line in lines] == [2, 4, 6, 8]


def test_two_devices_have_the_gradient_of_one(world: TinyWorld, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    from test_gradients import at_once, expect_equal
    from test_samples import open_samples
    from whole_step import SHARED

    from vipocc.training.stream import RunBatches, load_batches

    stream = load_batches(open_samples(world), RunBatches(0, 4, 4), workers=0, prefetch=1)
    raw = {name: values.clone() for name, values in next(iter(stream)).items()}
    torch.save(raw, tmp_path / "raw.pt")
    script = Path(__file__).with_name("whole_step.py")
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), f"cuda:{rank}"],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    for case, parts in SHARED:
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{case}-{parts}-{rank}.pt", weights_only=True, map_location="cpu")
            expect_equal(at_once(case, raw), found)
