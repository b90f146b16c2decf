"""Which positions each batch holds, and the processes that read them: their errors, their ends, their memory."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_samples import open_samples
from tiny_world import SEQUENCE, TinyWorld

from vipocc.errors import ConfigError, DataError
from vipocc.training.packing import Packed, Rooms, Shapes
from vipocc.training.samples import Share, TrainingSamples
from vipocc.training.stream import RunBatches, load_batches, load_packed


def test_batches_fill_up_and_resume_at_a_position() -> None:
    assert list(RunBatches(0, 7, 3)) == [Share(range(first, first + 3), first) for first in (0, 3, 6)]
    assert list(RunBatches(3, 7, 3)) == [Share(range(first, first + 3), first) for first in (3, 6)]
    assert len(RunBatches(3, 7, 3)) == 2


def test_processes_and_parts_share_the_batches_of_one() -> None:
    alone = list(RunBatches(8, 40, 12))
    assert [share.first for share in alone] == [8, 20, 32]
    for world in (1, 2, 3):
        for parts in (1, 2):
            shares = [RunBatches(8, 40, 12, rank=rank, world=world, parts=parts) for rank in range(world)]
            assert all(len(list(share)) == len(share) == 3 * parts for share in shares)
            assert all(share.steps == 3 for share in shares)
            for step, whole in enumerate(alone):
                read = [part for share in shares for part in list(share)[step * parts : (step + 1) * parts]]
                assert [position for part in read for position in part.positions] == list(whole.positions)
                assert {part.first for part in read} == {whole.first}


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch of 8 .* by 3 processes; set -o training.batch_size=6 or 9"):
        RunBatches(0, 8, 8, world=3)
    with pytest.raises(ConfigError, match=r"by 2 processes and 2 parts in each; set -o training.batch_size=4$"):
        RunBatches(0, 8, 3, world=2, parts=2)


@pytest.mark.slow
def test_workers_read_the_same_batches(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world)
    batches = RunBatches(0, 6, 2)
    here = list(load_batches(samples, batches, workers=0, prefetch=1))
    there = list(load_batches(samples, batches, workers=2, prefetch=1))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_errors_of_samples_are_raised_as_themselves(world: TinyWorld, workers: int) -> None:
    batches = RunBatches(0, 6, 2)
    for shard in (world.workspace.store("frames") / SEQUENCE / "image_00" / "rgb").glob("c/**/*"):
        if shard.is_file():
            shard.write_bytes(b"altered")
    with pytest.raises(Exception, match="truncated or altered") as error:
        list(load_batches(open_samples(world), batches, workers=workers, prefetch=1))
    assert type(error.value).__name__ == "StoreError"
    assert "\n" not in str(error.value)


def gone(pids: list[int], within: float) -> bool:
    """Whether processes end within so many seconds; one that waits to be collected has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        states = [Path(f"/proc/{pid}/stat") for pid in pids]
        if all(not file.exists() or file.read_text().rpartition(")")[2].split()[0] == "Z" for file in states):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_killed_worker_is_one_error_and_leaves_no_other(shared_world: TinyWorld) -> None:
    stream = load_packed(open_samples(shared_world), RunBatches(0, 4000, 2), workers=2, prefetch=2)
    next(stream)
    pids = [process.pid for process in multiprocessing.active_children() if process.pid]
    assert len(pids) == 2
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(DataError, match=r"process that reads samples ended \(SIGKILL\); .*train --resume") as error:
        for _ in stream:
            pass
    assert "\n" not in str(error.value)
    assert gone(pids, 10)


@pytest.mark.slow
def test_a_stream_that_is_left_early_ends_its_workers(shared_world: TinyWorld) -> None:
    stream = load_packed(open_samples(shared_world), RunBatches(0, 4000, 2), workers=2, prefetch=2)
    next(stream)
    pids = [process.pid for process in multiprocessing.active_children() if process.pid]
    stream.close()
    assert gone(pids, 10)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


SCRIPT = """
import multiprocessing, pickle, sys, torch
from vipocc.training.prefetch import prefetched
from vipocc.training.stream import RunBatches, load_packed
if __name__ == "__main__":
    samples = pickle.load(open(sys.argv[1], "rb"))
    source = load_packed(samples, RunBatches(0, 10**7, 2), workers=2, prefetch=2)
    try:
        with prefetched(source, torch.device("cpu")) as stream:
            next(stream)
            print(*[process.pid for process in multiprocessing.active_children()], flush=True)
            for _ in stream:
                pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl_c", "kill"])
def test_nothing_is_left_of_a_run_that_is_stopped(shared_world: TinyWorld, tmp_path: Path, how: str) -> None:
    script, held = tmp_path / "read.py", tmp_path / "samples.pickle"
    script.write_text(SCRIPT)
    held.write_bytes(pickle.dumps(open_samples(shared_world)))
    process = subprocess.Popen(
        [sys.executable, str(script), str(held)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    if how == "ctrl_c":
        # As a terminal does: to all processes at once.
        os.killpg(process.pid, signal.SIGINT)
        said, complained = process.communicate(timeout=60)
        assert (said.strip(), complained, process.returncode) == ("interrupted", "", 0)
    else:
        process.kill()
        process.communicate(timeout=60)
    assert gone(pids, 30)


class Numbers:
    """Batches that are their first position; one of them meets a fault."""

    def __init__(self, fault_at: int | None = None) -> None:
        self.fault_at = fault_at

    def shapes(self, share: Share) -> Shapes:
        return {"first": ((len(share.positions),), torch.int64)}

    def batch(self, share: Share, room: Packed | None = None) -> Packed:
        if share.first == self.fault_at:
            raise ZeroDivisionError("a fault")
        packed = room or Packed.allocate(self.shapes(share))
        packed.copy_from({"first": torch.tensor(list(share.positions))})
        return packed


@pytest.mark.slow
def test_batches_come_in_order_in_few_rooms_from_whichever_process() -> None:
    stream = load_packed(Numbers(), RunBatches(0, 120, 2), workers=2, prefetch=3)
    seen, rooms = [], set()
    for packed in stream:
        seen += packed.tensors()["first"].tolist()
        rooms.add(packed.memory.data_ptr())
    assert seen == list(range(120))
    assert len(rooms) <= 7
    assert not list(load_packed(Numbers(), RunBatches(4, 4, 2), workers=1, prefetch=1))


@pytest.mark.slow
def test_a_fault_of_ours_comes_with_its_traceback_in_its_place() -> None:
    stream = load_packed(Numbers(fault_at=4), RunBatches(0, 20, 2), workers=2, prefetch=2)
    assert [next(stream).tensors()["first"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(RuntimeError, match=r"failed:\nTraceback(?s:.*)ZeroDivisionError: a fault"):
        next(stream)


def test_too_little_shared_memory_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(shapes: Shapes, count: int) -> Rooms:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)\nmore")

    monkeypatch.setattr(Rooms, "allocate", full)
    with pytest.raises(DataError, match=r"no shared memory for 5 batches .*/dev/shm; .*--shm-size.*training.workers"):
        next(load_packed(Numbers(), RunBatches(0, 20, 2), workers=2, prefetch=2))


def resident(pid: int) -> int:
    """Return the memory in KiB that a process has of its own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


@pytest.mark.slow
def test_memory_does_not_grow_with_epochs(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world)
    epoch, epochs = len(samples.table) // 2, 160
    stream = load_packed(samples, RunBatches(0, 2 * epoch * epochs, 2), workers=2, prefetch=2)
    own, descriptors = [], []
    for at, _ in enumerate(stream, 1):
        if at % (epoch * epochs // 4) == 0:
            pids = [os.getpid(), *(process.pid for process in multiprocessing.active_children() if process.pid)]
            own.append(sum(resident(pid) for pid in pids))
            descriptors.append(len(os.listdir("/proc/self/fd")))
    assert len(own) == 4
    # What an epoch of 12 samples of 64x96 reads is 1.9 MB, so that keeping any of 80 epochs shows.
    assert own[-2] - own[0] < 6000
    assert descriptors[-2] - descriptors[0] < 20
    assert samples.table.row.is_shared(), "workers look into the same table"


def test_a_sample_set_travels_without_its_readers(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world)
    samples.batch(Share(range(2), 0))
    there: TrainingSamples = pickle.loads(pickle.dumps(samples))
    assert not [name for name in there.__dict__ if name.startswith("_")]
    here, far = (one.batch(Share(range(2), 0)).tensors() for one in (samples, there))
    assert all(torch.equal(value.nan_to_num(), far[name].nan_to_num()) for name, value in here.items())
