from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import TinyWorld

from vipocc.errors import StoreError
from vipocc.model.checkpoint import read_weights
from vipocc.model.network import ViPOcc
from vipocc.training import saving
from vipocc.training.saving import Saver, on_host
from vipocc.training.session import start_training
from vipocc.training.state import RunState, checkpoints, read_state


def a_state(step: int) -> RunState:
    return RunState(step, 2 * step, 2, 1, 1, 10, None, None, {"state": {0: {"moment": torch.full((3,), float(step))}}})


def held(monkeypatch: pytest.MonkeyPatch, then: Callable[..., Any]) -> threading.Event:
    """Let writers wait until the event is set."""
    go = threading.Event()

    def write(*arguments: Any, **more: Any) -> Any:
        assert go.wait(60)
        return then(*arguments, **more)

    monkeypatch.setattr(saving, "write_checkpoint", write)
    return go


def full(*_: Any, **__: Any) -> Path:
    raise StoreError("the checkpoint cannot be written (No space left on device)")


@pytest.fixture
def model(shared_world: TinyWorld) -> ViPOcc:
    return ViPOcc(shared_world.config.model, "centre")


def test_what_is_written_is_what_was_there_when_it_was_asked_for(
    tmp_path: Path, shared_world: TinyWorld, model: ViPOcc, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, saving.write_checkpoint)
    saver = Saver(tmp_path, shared_world.config)
    state, before = a_state(1), {name: value.clone() for name, value in model.state_dict().items()}
    path = saver.save(model, state)
    assert not path.exists(), "it returned before anything was written"
    saver.check()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    state.optimiser["state"][0]["moment"].zero_()
    go.set()
    saver.close()
    assert checkpoints(tmp_path) == [path]
    assert all(torch.equal(value, before[name]) for name, value in read_weights(path).items())
    assert read_state(path).optimiser["state"][0]["moment"].tolist() == [1.0] * 3


def test_one_write_waits_for_the_one_before(
    tmp_path: Path, shared_world: TinyWorld, model: ViPOcc, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch, saving.write_checkpoint)
    saver = Saver(tmp_path, shared_world.config)
    saver.save(model, a_state(1))
    threading.Timer(0.2, go.set).start()
    saver.save(model, a_state(2))
    assert next(path.name for path in checkpoints(tmp_path)) == "step_1"
    saver.close()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_1", "step_2"]


def test_an_error_of_the_writer_surfaces_at_the_next_step(
    tmp_path: Path, shared_world: TinyWorld, model: ViPOcc, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(monkeypatch, full).set()
    saver = Saver(tmp_path, shared_world.config)
    saver.save(model, a_state(1))
    assert saver._writing is not None
    assert saver._writing.exception(timeout=60) is not None
    with pytest.raises(StoreError, match="No space left"):
        saver.check()
    saver.check()
    saver.save(model, a_state(2))
    with pytest.raises(StoreError, match="No space left"):
        saver.close()


def test_a_run_that_fails_of_something_else_says_it_only(
    tmp_path: Path,
    shared_world: TinyWorld,
    model: ViPOcc,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held(monkeypatch, full).set()
    saver = Saver(tmp_path, shared_world.config)
    saver.save(model, a_state(1))
    saver.close(failing=True)
    assert "No space left" in capsys.readouterr().err


def test_a_run_stops_at_the_step_after_a_failed_write_and_can_go_on(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = saving.write_checkpoint

    def fails(folder: Path, state: RunState, *arguments: Any, **more: Any) -> Path:
        return full() if state.step == 4 else plain(folder, state, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(saving, "write_checkpoint", fails)
        with pytest.raises(StoreError, match="No space left"):
            start_training(world.workspace, world.config, name="full", say=lambda text: None)
    folder = world.workspace.runs / "full" / "checkpoints"
    assert [path.name for path in checkpoints(folder)][-1] == "step_3"
    assert start_training(world.workspace, None, resume="full", say=lambda text: None).steps == 6


def test_in_the_foreground_it_is_there_on_return(tmp_path: Path, world: TinyWorld, model: ViPOcc) -> None:
    saver = Saver(tmp_path, world.configured("training.save_in_background=false"))
    assert saver.save(model, a_state(3), best=True).is_dir()
    assert (tmp_path / "best").read_text() == "step_3\n"
    saver.close()


def test_copies_share_no_memory() -> None:
    values = {"a": [torch.zeros(2)], "b": 3, "c": None, "d": (1, 2)}
    copied = on_host(values)
    values["a"][0].fill_(1.0)  # type: ignore[index]
    assert copied["a"][0].tolist() == [0.0, 0.0]
    assert (copied["b"], copied["c"], copied["d"]) == (3, None, (1, 2))
