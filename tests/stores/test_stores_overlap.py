"""Several units in hand at once: in this process, in worker processes, on dask workers."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from staged import Staged, assert_overlapping, events, lines, staged_requests, staged_store
from stores_helpers import GROUP, check_values, requests, shards, spec

from vipocc.errors import DataError, StoreError
from vipocc.stores import LocalExecutor, Store, StoreReader, plan, run, verify

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


#: A writer with three units in hand, as another process: `python -c WRITER store log`.
WRITER = """
import sys
from pathlib import Path
from staged import Staged, staged_requests
from stores_helpers import GROUP, requests, spec
from vipocc.stores import LocalExecutor, Store, run
import numpy as np
store = Store.create_or_open(Path(sys.argv[1]), spec(), Path(sys.argv[1]).parent)
store.ensure_group(GROUP, np.arange(64 * 12) * 3)
for rows in (range(0, 64 * 12, 3), range(64 * 12)):
    run(store, requests(rows), Staged(Path(sys.argv[2]), stage=0.01), LocalExecutor(("cuda:0",)))
"""


def writer(store: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(store), str(log)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_with_three_units_in_hand(tmp_path: Path) -> None:
    """Killed again and again at random moments, the bytes are those of a run that had one unit at a time."""
    plain = staged_store(tmp_path / "plain", 12)
    for rows in (range(0, 64 * 12, 3), range(64 * 12)):
        run(plain, requests(rows), Staged(tmp_path / "plain.log", at_once=1, stage=0.0), HERE)
    rng, log, path = random.Random(5), tmp_path / "log", tmp_path / "depth.zarr"
    for _ in range(8):
        before = log.stat().st_size if log.exists() else 0
        process = writer(path, log)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.stat().st_size > before:
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        if (path / "zarr.json").exists():
            assert verify(path).sound
    last = writer(path, log)
    _, errors = last.communicate()
    assert last.returncode == 0, errors.decode()
    assert shards(Store.create_or_open(path, spec(), tmp_path)) == shards(plain)
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.next"))
