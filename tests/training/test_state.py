import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_world import TinyWorld

from vipocc.errors import CheckpointError, MissingInputError, StoreError, UsageError
from vipocc.model.checkpoint import read_weights
from vipocc.training import state
from vipocc.training.runs import find_run, new_run
from vipocc.training.session import start_training
from vipocc.training.state import RunState, checkpoints, latest_checkpoint, read_state, write_checkpoint


def a_state(step: int) -> RunState:
    optimiser = {"state": {0: {"step": torch.tensor(float(step))}}}
    return RunState(step, 2 * step, 2, 1, 1, 10, None, None, optimiser)


def a_model(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.yaml").write_text("a: 1\n")


def write(folder: Path, step: int, *, keep: int = 2, best: bool = False) -> Path:
    return write_checkpoint(folder, a_state(step), a_model, keep=keep, best=best)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        write(tmp_path, step, best=step == 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_2", "step_5", "step_6"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step_2", "step_5", "step_6"]
    assert (tmp_path / "best").read_text() == "step_2\n"
    assert read_state(tmp_path / "step_6").samples == 12


def test_a_step_that_comes_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "step_1" / "config.yaml").write_text("altered: 12345\n")
    assert latest_checkpoint(tmp_path) is None
    write(tmp_path, 1)
    assert (tmp_path / "step_1" / "config.yaml").read_text() == "a: 1\n"
    assert latest_checkpoint(tmp_path) == tmp_path / "step_1"


@pytest.mark.parametrize("call", ["save", "fsync", "replace"])
def test_a_full_disk_is_one_error_and_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(*(torch, "save") if call == "save" else (os, call), full)
        with pytest.raises(StoreError, match=r"step 2 cannot be written \(No space left on device\).*--resume"):
            write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step_1"


def test_what_an_interrupted_writer_leaves_is_swept_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write(tmp_path, 1)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, 2)
    assert any(path.name.startswith(".partial-step_2") for path in tmp_path.iterdir())
    assert latest_checkpoint(tmp_path) == tmp_path / "step_1"
    write(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1", "step_3"]


def test_a_state_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    write(tmp_path, 1)
    (tmp_path / "step_1" / state.STATE).write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(CheckpointError, match="training state cannot be read"):
        read_state(tmp_path / "step_1")
    torch.save({"step": Evil()}, tmp_path / "step_1" / state.STATE)
    with pytest.raises(CheckpointError, match="training state cannot be read"):
        read_state(tmp_path / "step_1")
    torch.save({"step": 1}, tmp_path / "step_1" / state.STATE)
    with pytest.raises(CheckpointError, match="training state cannot be read"):
        read_state(tmp_path / "step_1")
    assert not (tmp_path / "owned").exists()


def test_runs_are_named_once_and_found(tmp_path: Path) -> None:
    first, second = new_run(tmp_path, "demo"), new_run(tmp_path, "demo")
    assert first != second
    assert first.name.endswith("-demo")
    named = new_run(tmp_path, "demo", "mine")
    with pytest.raises(UsageError, match="there is a run of this name"):
        new_run(tmp_path, "demo", "mine")
    with pytest.raises(UsageError, match="cannot name a run"):
        new_run(tmp_path, "demo", "../mine")
    with pytest.raises(MissingInputError, match="no run here"):
        find_run(tmp_path, "latest")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        find_run(tmp_path, "mine")
    with pytest.raises(MissingInputError, match=r"there is no run 'yours'.*mine"):
        find_run(tmp_path, "yours")
    for step, run in ((1, first), (9, named), (2, second)):
        path = write(run / "checkpoints", step)
        os.utime(path, (step, step))
    assert find_run(tmp_path, "latest") == (named, named / "checkpoints" / "step_9")
    assert find_run(tmp_path, str(first)) == (first, first / "checkpoints" / "step_1")


_KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from tiny_world import OVERRIDES
from vipocc import config as configuration
from vipocc.training import state
from vipocc.training.session import start_training
from vipocc.workspace import Workspace

calls = 0
plain = getattr(*((torch, "save") if sys.argv[3] == "save" else (os, sys.argv[3])))

def fatal(*arguments, **more):
    global calls
    writing = any(".partial-step_4" in str(a) for a in arguments) or (
        sys.argv[3] == "fsync" and any(state._ASIDE in name for name in os.listdir(folder) if "step_4" in name))
    if writing:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*arguments, **more)

folder = sys.argv[2] + "/runs/killed/checkpoints"
if sys.argv[3] == "save":
    torch.save = fatal
else:
    setattr(os, sys.argv[3], fatal)
config = configuration.load("demo", overrides=(*OVERRIDES, *sys.argv[4:]))
start_training(Workspace.open(__import__("pathlib").Path(sys.argv[2])), config, name="killed", say=print)
"""


#: The average of the weights, and steps in two parts; checkpoints are written in the background anyway.
AVERAGED = ("training.ema=0.9", "training.accumulate=2")


@pytest.mark.slow
@pytest.mark.parametrize("call, more", [("save", ()), ("fsync", ()), ("replace", ()), ("save", AVERAGED)])
def test_a_kill_while_a_checkpoint_is_written_costs_nothing_before_it(
    world: TinyWorld, undisturbed: Path, call: str, more: tuple[str, ...]
) -> None:
    if more:
        start_training(world.workspace, world.configured(*more), name="whole", say=lambda text: None)
        undisturbed = world.workspace.runs / "whole"
    command = [sys.executable, "-c", _KILLED, str(Path(__file__).parent), str(world.workspace.path), call, *more]
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, capture_output=True, text=True, env=threads, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    folder = world.workspace.runs / "killed" / "checkpoints"
    assert any(path.name.startswith(".partial-") for path in folder.iterdir())
    assert latest_checkpoint(folder) == folder / "step_3"
    start_training(world.workspace, None, resume="killed", say=lambda text: None)
    first, second = (read_weights(run / "step_6") for run in (folder, undisturbed / "checkpoints"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_an_edited_card_does_no_damage(tmp_path: Path) -> None:
    def with_card(folder: Path) -> None:
        a_model(folder)
        (folder / "README.md").write_text("card")

    written = write_checkpoint(tmp_path, a_state(1), with_card, keep=3, best=True)
    (written / "README.md").write_text("license: mit")
    assert checkpoints(tmp_path) == [written]
