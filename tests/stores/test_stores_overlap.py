"""Several units in hand at once: in this process, in worker processes, on dask workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from staged import Staged, assert_overlapping, events, lines, staged_requests, staged_store
from stores_helpers import GROUP, check_values

from vipocc.errors import DataError, StoreError
from vipocc.stores import LocalExecutor, StoreReader, plan, run, verify

HERE, TWO = LocalExecutor(("cuda:7",)), LocalExecutor(("cuda:0", "cuda:1"))


@pytest.mark.parametrize(("executor", "workers"), [(HERE, 1), (TWO, 2)], ids=["here", "processes"])
def test_stages_of_different_units_overlap(tmp_path: Path, executor: LocalExecutor, workers: int) -> None:
    units, log = 8 * workers, tmp_path / "log"
    store = staged_store(tmp_path, units)
    done = run(store, staged_requests(units), Staged(log), executor)
    assert (done.units, done.rows) == (units, units)
    assert_overlapping(log, units, workers)
    assert sorted(line[1] for line in lines(log, "open")) == sorted(executor.devices), "opened once a device"
    assert len(lines(log, "close")) == workers
    assert multiprocessing.active_children() == []
    check_values(store, range(0, 64 * units, 64))
    again = tmp_path / "again"
    assert run(store, staged_requests(units), Staged(again), executor).units == 0
    assert not again.exists()


def test_a_computer_that_does_not_say_has_one_unit_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(staged_store(tmp_path, 3), staged_requests(3), Staged(log, at_once=1, stage=0.02), HERE)
    known = events(log)
    assert [(e.stage, e.shard) for e in known] == [(s, k) for k in range(3) for s in ("read", "infer", "write")]


@pytest.mark.parametrize("executor", [HERE, pytest.param(TWO, marks=pytest.mark.slow)], ids=["here", "processes"])
@pytest.mark.parametrize("stage", ["read", "infer", "write"])
def test_an_error_in_any_stage_is_its_units(tmp_path: Path, executor: LocalExecutor, stage: str) -> None:
    store, log = staged_store(tmp_path, 5), tmp_path / "log"
    with pytest.raises(DataError, match="image is truncated: unit 1"):
        run(store, staged_requests(5), Staged(log, bad=stage, stage=0.02), executor)
    assert list(np.flatnonzero(StoreReader(store.path).rows(GROUP))) == [0, 128, 192, 256]
    assert len(lines(log, "close")) == len(executor.devices)


@pytest.mark.parametrize(
    ("executor", "kind"),
    [(HERE, ZeroDivisionError), pytest.param(TWO, RuntimeError, marks=pytest.mark.slow)],
    ids=["here", "processes"],
)
def test_a_fault_ends_the_run_after_what_is_in_hand(
    tmp_path: Path, executor: LocalExecutor, kind: type[Exception]
) -> None:
    store, log = staged_store(tmp_path, 24), tmp_path / "log"
    with pytest.raises(kind, match="a fault"):
        run(store, staged_requests(24), Staged(log, bad="infer!", stage=0.02), executor)
    held = np.flatnonzero(StoreReader(store.path).rows(GROUP))
    assert 64 not in held
    assert len(held) < 20, "the run went on"
    assert len(lines(log, "close")) == len(executor.devices)
    assert verify(store.path).sound


class Dying(Staged):
    """Is killed while unit 4 is being written."""

    def do(self, stage: str) -> None:
        if self.unit.shard == 4 and stage == "write":
            os.kill(os.getpid(), signal.SIGKILL)
        super().do(stage)


def test_a_killed_worker_loses_what_it_had_in_hand(tmp_path: Path) -> None:
    store, log = staged_store(tmp_path, 12), tmp_path / "log"
    with pytest.raises(StoreError, match=r"worker process died \(SIGKILL"):
        run(store, staged_requests(12), Dying(log, stage=0.05), TWO)
    missing = plan(store, staged_requests(12)).missing
    assert 1 <= missing <= 3, "three units were in hand"
    assert verify(store.path).sound
    run(store, staged_requests(12), Staged(log, stage=0.0), HERE)
    check_values(store, range(0, 64 * 12, 64))


def test_as_many_threads_as_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (began.append(self), start(self))[1])
    run(staged_store(tmp_path, 2), staged_requests(2), Staged(tmp_path / "log", at_once=9, stage=0.0), HERE)
    assert len([thread for thread in began if thread.name.count("_work")]) == 2
