"""Runs of two real processes, as torchrun starts them (gloo on the CPU)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import equal_weights, losses_of
from tiny_world import OVERRIDES, TinyWorld

from vipocc.errors import ConfigError, DeviceError, UsageError
from vipocc.training import distributed
from vipocc.training.distributed import ALONE, GradientSum, device_here, joined
from vipocc.training.metrics import read_metrics
from vipocc.training.session import start_training
from vipocc.training.state import read_state

HERE = Path(__file__).parent

#: Breaks something in one process and then trains as the command does.
_BROKEN = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from vipocc.training import trainer
plain, optimise = trainer.load_packed, trainer.Trainer._optimise
fault, here = sys.argv[2], os.environ["RANK"] == "1"

def stream(*arguments, **more):
    for number, packed in enumerate(plain(*arguments, **more), 1):
        if number == 2 and here and fault == "nan":
            packed.tensors()["intrinsics"][:] = float("nan")
        if number == 2 and here and fault == "error":
            from vipocc.errors import DataError
            raise DataError("a sample cannot be read")
        yield packed

def step(self, parts):
    if self.step == 1 and here and fault == "killed":
        os.kill(os.getpid(), 9)
    if self.step == 1 and here and fault == "waits":
        os.write(1, b"waiting\\n")
        import time
        time.sleep(120)
    return optimise(self, parts)

trainer.load_packed, trainer.Trainer._optimise = stream, step
from vipocc.cli import run
sys.exit(run(sys.argv[3:]))
"""


def arguments(world: TinyWorld, *more: str) -> list[str]:
    return ["train", "-C", str(world.workspace.path), *more]


def options(*more: str) -> list[str]:
    return [part for text in (*OVERRIDES, "training.validation_frames=0", *more) for part in ("-o", text)]


def a_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start(command: list[str], rank: int, port: str) -> subprocess.Popen[str]:
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **ranks, "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], env=environment, **pipes)


def two(world: TinyWorld, fault: str, *more: str) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of two processes, one of which is broken."""
    port = a_port()
    command = ["-c", _BROKEN, str(HERE), fault, *arguments(world, *more)]
    running = [start(command, rank, port) for rank in (0, 1)]
    ended = [process.communicate(timeout=300) for process in running]
    return [(process.returncode, *told) for process, told in zip(running, ended, strict=True)]


@pytest.mark.slow
def test_torchrun_trains_one_run_that_goes_on_with_another_number_of_processes(
    world: TinyWorld, undisturbed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", a_port(), "-m", "--", "vipocc"]
    ended = subprocess.run(
        [sys.executable, *torchrun, *arguments(world, "--run", "pair", "--steps", "4", *options())],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("preset 'demo'") == 1, "only the first process tells"
    assert "on 2 processes, each on its own cpu" in ended.stdout
    assert [path.name for path in world.workspace.runs.iterdir()] == ["pair"]
    pair = world.workspace.runs / "pair"
    lines = [line for line in read_metrics(pair / "metrics.jsonl") if "loss" in line]
    assert [line["samples"] for line in lines] == [2, 4, 6, 8], "batch_size is that of both"
    # The first step has the same samples and weights; its loss differs by batch normalisation over one sample each.
    alone = dict(losses_of(undisturbed))
    assert lines[0]["loss"] == pytest.approx(alone[1], rel=0.3)
    assert read_state(pair / "checkpoints" / "step_4").world == 2
    over = ("training.max_steps=5",)
    start_training(world.workspace, None, resume="pair", overrides=over, say=lambda text: None)
    said = [line for line in capfd.readouterr().err.splitlines() if "processes" in line]
    assert len(said) == 1
    assert said[0].startswith(
        "the run had 2 processes and now has 1 process: the order of samples and the batches stay"
    )


@pytest.mark.slow
def test_all_processes_stop_together_at_a_loss_that_is_not_finite(world: TinyWorld) -> None:
    more = options("training.checkpoint_every=1")
    (first, out, err), (second, other_out, other_err) = two(world, "nan", "--run", "pair", *more)
    assert (first, second) == (1, 1), err + other_err
    assert "step 2 is not a finite number (samples: " in err
    assert out
    assert other_out == other_err == "", "the first process tells"
    dump = world.workspace.runs / "pair" / "nonfinite-step_2"
    content = torch.load(dump / "batch.pt", weights_only=True)
    assert [part["position"] for part in content["parts"]] == [2, 3], "the parts of both processes"
    assert (world.workspace.runs / "pair" / "checkpoints" / "step_1").is_dir()
    from vipocc.training.failure import reproduce

    again = reproduce(dump, torch.device("cpu"))
    assert not again.finite
    assert [value != value for value in again.alone.values()] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error", "killed"])
def test_nobody_waits_for_a_process_that_stopped(world: TinyWorld, fault: str) -> None:
    began = time.monotonic()
    (first, _, err), (second, _, other_err) = two(world, fault, "--run", "pair", *options())
    assert time.monotonic() - began < 200
    assert first == 2
    assert "process 0 of 2 stopped because another one did, or cannot be reached" in err
    assert "Traceback" not in err
    if fault == "killed":
        assert second == -signal.SIGKILL
    else:
        assert second == 2
        assert "a sample cannot be read" in other_err


@pytest.mark.slow
def test_ctrl_c_stops_all(world: TinyWorld) -> None:
    port = a_port()
    command = ["-c", _BROKEN, str(HERE), "waits", *arguments(world, "--run", "pair", *options())]
    running = [start(command, rank, port) for rank in (0, 1)]
    assert running[1].stdout is not None
    assert running[1].stdout.readline() == "waiting\n"
    for process in running:
        process.send_signal(signal.SIGINT)
    told = [process.communicate(timeout=200) for process in running]
    assert [process.returncode for process in running] == [130, 130], told
    assert told[0][1].count("interrupted") == 1
    assert "interrupted" not in told[1][1]


def test_a_batch_that_cannot_be_shared_is_refused(world: TinyWorld) -> None:
    with pytest.raises(ConfigError, match=r"a batch of 2 samples cannot be shared evenly by 3 parts.*batch_size=3"):
        start_training(world.workspace, world.configured("training.accumulate=3"), say=lambda text: None)


def test_alone_nothing_is_joined_and_nothing_is_sent() -> None:
    with joined(torch.device("cpu")) as ranks:
        assert ranks is ALONE
    values = torch.ones(2)
    assert ALONE.add(values) is values
    assert ALONE.tell("a") == "a"
    assert ALONE.collect(3) == [3]
    ALONE.meet()


def test_summed_gradients_lie_in_memory_as_their_parameters() -> None:
    layers = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), torch.nn.Linear(4, 2)
    parameters = [value for layer in layers for value in layer.parameters()]
    summed = GradientSum(parameters, ALONE, bucket_bytes=200)
    summed._cut([3, 2])
    assert [bucket.parameters for bucket in summed._buckets] == [[3, 2], [0], [1]], "in order of coming, late ones last"
    for bucket in summed._buckets:
        for index, view in zip(bucket.parameters, bucket.views, strict=True):
            assert view.shape == parameters[index].shape
            assert view.stride() == parameters[index].stride()
            view.fill_(index)
        assert bucket.flat.tolist() == [i for i in bucket.parameters for _ in range(parameters[i].numel())]


def test_each_process_takes_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_here("cuda:1") == "cuda:1"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_here("cpu") == "cpu"
    with pytest.raises(UsageError, match="2 processes cannot share cuda:0"):
        device_here("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_here("auto") == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        DeviceError, match=r"more processes on this machine than its 2 CUDA devices.*--nproc-per-node 2"
    ):
        device_here("cuda")


def test_errors_of_others_are_told_from_ours() -> None:
    assert distributed._is_of_connection(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert not distributed._is_of_connection(RuntimeError("shapes do not match"))


def test_a_change_of_parts_is_said(world: TinyWorld, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(undisturbed, world.workspace.runs / "other")
    over = ("training.max_steps=7", "training.accumulate=2")
    start_training(world.workspace, None, resume="other", overrides=over, say=lambda text: None)
    assert (
        "training.accumulate was 1 and is now 2: the order of samples and the batches stay" in capsys.readouterr().err
    )
    first, second = (run / "checkpoints" / "step_4" for run in (undisturbed, world.workspace.runs / "other"))
    assert not second.exists() or equal_weights(first, second)
