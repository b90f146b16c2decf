"""--profile-trace and --deterministic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from tiny_world import OVERRIDES, TinyWorld

from vipocc.cli import run
from vipocc.errors import DeviceError
from vipocc.training.determinism import deterministic
from vipocc.training.session import start_training

OPTIONS = [part for text in (*OVERRIDES, "training.validation_frames=0") for part in ("-o", text)]


def test_some_steps_after_the_first_ones_are_traced(world: TinyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["-C", str(world.workspace.path)]
    assert run(["train", *where, *OPTIONS, "--steps", "11", "--run", "traced", "--profile-trace"]) == 0
    out = capsys.readouterr().out
    trace = world.workspace.runs / "traced" / "trace-steps_8-10.json.gz"
    assert f"the trace of 3 steps is {trace}" in out
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep#")}
    assert len(steps) == 3
    rows = [line for line in out.splitlines() if line.lstrip().startswith(("aten::", "autograd::", "ProfilerStep"))]
    assert 5 <= len(rows) <= 10


def test_a_run_too_short_to_trace_says_so(world: TinyWorld) -> None:
    said: list[str] = []
    config = world.configured("training.max_steps=2", "training.validation_frames=0")
    start_training(world.workspace, config, name="short", profile=True, say=said.append)
    assert said[-1] == "no trace: the run ended before step 8, the first that is recorded"
    assert not list((world.workspace.runs / "short").glob("trace*"))


def test_deterministic_is_said_kept_and_undone(world: TinyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.backends.cudnn.deterministic
    where = ["-C", str(world.workspace.path)]
    assert run(["train", *where, *OPTIONS, "--steps", "1", "--run", "exact", "--deterministic"]) == 0
    assert "(float32 networks, deterministic)" in capsys.readouterr().out
    assert "deterministic: true" in (world.workspace.runs / "exact" / "config.yaml").read_text()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic == before


def test_inside_only_deterministic_algorithms_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_such_a_form_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    text = "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set ..."
    named = r"grid_sampler_2d_backward_cuda has no deterministic form.*--deterministic"
    with pytest.raises(DeviceError, match=named), deterministic(True):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="something else"), deterministic(True):
        raise RuntimeError("something else")


def test_the_path_is_of_the_run(tmp_path: Path) -> None:
    from vipocc.training.profiling import StepProfile

    profile = StepProfile(tmp_path, 20, torch.device("cpu"))
    assert profile.path == tmp_path / "trace-steps_28-30.json.gz"
    profile.close()
