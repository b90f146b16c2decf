from __future__ import annotations

import errno
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stores_helpers import GROUP, Computer, check_values, computed, requests, shards, spec

from vipocc.errors import DataError, StoreError, UsageError, VipoccError
from vipocc.stores import DaskExecutor, LocalExecutor, Store, StoreReader, Unit, plan, run, verify

NewStore = Callable[..., Store]
ROWS = range(200)

#: A writer as another process: `python -c WRITER store log delay workers`.
WRITER = """
import sys
from pathlib import Path
import numpy as np
from stores_helpers import GROUP, Computer, requests, spec
from vipocc.stores import LocalExecutor, Store, run
if __name__ == "__main__":
    store = Store.create_or_open(Path(sys.argv[1]), spec(), Path(sys.argv[1]).parent)
    store.ensure_group(GROUP, np.arange(200) * 3)
    delay = float(sys.argv[3])
    for step in (range(0, 200, 2), range(200)):
        run(store, requests(step), Computer(Path(sys.argv[2]), delay=delay), LocalExecutor(workers=int(sys.argv[4])))
"""


def writer(store: Path, log: Path, delay: float = 0.0, workers: int = 1) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(store), str(log), str(delay), str(workers)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    store = Store.create_or_open(folder / "depth.zarr", spec(), folder)
    store.ensure_group(GROUP, np.arange(200) * 3)
    run(store, requests(ROWS), Computer(folder / "log"))
    return shards(store)


def kill_until_done(folder: Path, kills: int, seed: int) -> Store:
    """Kill writers at random moments, checking after each kill that what counts is right; then let one end."""
    rng = random.Random(seed)
    path, log = folder / "depth.zarr", folder / "log"
    for _ in range(kills):
        process = writer(path, log, delay=0.005)
        # Most of a short run is imports; wait for the first sign of work in this run, then for a random while.
        before = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.stat().st_size > before:
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (path / "zarr.json").exists():
            reader = StoreReader(path)
            if reader.has(GROUP):
                held = np.flatnonzero(reader.rows(GROUP))
                if len(held):
                    _exact(reader, held[:: max(1, len(held) // 20)])
    last = writer(path, log)
    _, errors = last.communicate()
    assert last.returncode == 0, errors.decode()
    return Store.create_or_open(path, spec(), folder)


def _exact(reader: StoreReader, rows: np.ndarray) -> None:
    from stores_helpers import batch

    for name, expected in batch(rows.tolist()).items():
        np.testing.assert_array_equal(reader.read_many(GROUP, rows, name), expected)


def test_killed_writers_lose_at_most_the_unit_in_hand(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    store = kill_until_done(tmp_path, kills=2, seed=1)
    assert shards(store) == undisturbed
    assert verify(store.path).sound
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.next")) + list(tmp_path.rglob("*.lock"))
    check_values(store, ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_writers_killed_many_times(tmp_path: Path, undisturbed: dict[str, str], seed: int) -> None:
    store = kill_until_done(tmp_path, kills=25, seed=seed)
    assert shards(store) == undisturbed
    assert verify(store.path).sound


class Killed(BaseException):
    """Stands for SIGKILL: passes every `except Exception`."""


#: More than the steps that the run below takes, its note included; the test checks that it is.
STEPS = 22


@pytest.mark.parametrize("after", range(STEPS))
def test_a_kill_between_any_two_steps_of_a_commit(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Every rename, fsync and removal of the commit that extends a shard is a place to die."""
    store, log = new_store(), tmp_path / "log"
    run(store, requests([1, 2]), Computer(log))
    reader = StoreReader(store.path)
    assert reader.rows(GROUP).sum() == 2
    count = 0
    with monkeypatch.context() as patch:

        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                nonlocal count
                count += 1
                if count > after:
                    raise Killed
                return real(*args, **kwargs)

            return call

        for name in ("replace", "fsync", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            run(store, requests([1, 2, 3, 7]), Computer(log))
            finished = True
        except Killed:
            finished = False
    # Between death and the next run: what counts is right, for a reader that knew the store and for a new one.
    for each in (reader, StoreReader(store.path)):
        held = np.flatnonzero(each.rows(GROUP))
        assert {1, 2} <= set(held.tolist()) <= {1, 2, 3, 7}
        _exact(each, held)
    if after == STEPS - 1:
        assert finished, "the steps of a commit were not all tried"
    assert verify(store.path).sound
    run(store, requests([1, 2, 3, 7]), Computer(log))
    check_values(store, [1, 2, 3, 7])
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.next"))
    # Rows 1 and 2 were never made twice.
    assert computed(log)[:2] == [1, 2]
    assert not {1, 2} & set(computed(log)[2:])


def test_a_reader_during_a_replacement_by_other_values(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that a half-done replacement changes do not count; those it leaves alone do."""
    store, log = new_store(), tmp_path / "log"
    files = [tmp_path / f"{row}.png" for row in range(3)]
    for file in files:
        file.write_bytes(b"a")

    def wanted() -> list:
        from vipocc.stores import file_ref, requests_for

        return requests_for(
            GROUP, range(3), {"model": "tiny"}, {r: [file_ref(f, tmp_path)] for r, f in enumerate(files)}
        )

    run(store, wanted(), Computer(log))
    files[1].write_bytes(b"other")
    real = os.replace
    with monkeypatch.context() as patch:

        def replace(source: Path, target: Path) -> None:
            if str(target).endswith("/image/c/0/0/0/0"):
                raise Killed
            real(source, target)

        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            run(store, wanted(), Computer(log, salt=5))
    assert list(np.flatnonzero(StoreReader(store.path).rows(GROUP))) == [0, 2]
    _exact(StoreReader(store.path), np.array([0, 2]))
    run(store, wanted(), Computer(log, salt=5))
    assert computed(log) == [0, 1, 2, 1]
    check_values(store, [1], salt=5)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_share_the_work(tmp_path: Path, undisturbed: dict[str, str], workers: int) -> None:
    path, log = tmp_path / "depth.zarr", tmp_path / "log"
    both = [writer(path, log, 0.05 if workers == 1 else 0.5, workers) for _ in range(2)]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert sorted(computed(log)) == list(ROWS), "no row was made twice"
    store = Store.create_or_open(path, spec(), tmp_path)
    assert shards(store) == undisturbed
    assert len({line for line in log.read_text().splitlines() if line.startswith("open")}) >= 2


def test_a_unit_held_by_another_is_left_to_it(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    unit = Unit(GROUP, 0)
    release = threading.Event()
    held = threading.Event()

    def other() -> None:
        with store.ledger.lock(unit) as mine:
            assert mine
            held.set()
            release.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(10)
    with store.ledger.lock(unit) as mine:
        assert not mine
    threading.Timer(0.3, release.set).start()
    run(store, requests(range(100)), Computer(log))
    thread.join()
    assert computed(log) == [*range(64, 100), *range(64)], "the free unit went first"


def test_spawned_workers(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    store = Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path)
    store.ensure_group(GROUP, np.arange(200) * 3)
    log = tmp_path / "log"
    summary = run(store, requests(ROWS), Computer(log, delay=0.05), LocalExecutor(("cpu:0", "cpu:1")))
    assert (summary.units, summary.rows) == (4, 200)
    assert shards(store) == undisturbed
    lines = log.read_text().splitlines()
    assert sorted(line.split()[1] for line in lines if line.startswith("open")) == ["cpu:0", "cpu:1"]
    assert lines.count("close") == 2
    assert multiprocessing.active_children() == []


def test_a_dead_worker_costs_its_unit_only(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(n=200), tmp_path / "log"
    with pytest.raises(StoreError, match=r"worker process died \(SIGKILL.*drive/image_00/00001"):
        run(store, requests(ROWS), Computer(log, killed_at=70), LocalExecutor(workers=2))
    assert plan(store, requests(ROWS)).missing == 64
    assert multiprocessing.active_children() == []
    run(store, requests(ROWS), Computer(log))
    check_values(store, ROWS)


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from stores_helpers import GROUP, Computer, requests, spec
from vipocc.stores import LocalExecutor, Store, run
store = Store.create_or_open(Path(sys.argv[1]), spec(), Path(sys.argv[1]).parent)
store.ensure_group(GROUP, np.arange(200) * 3)
run(store, requests(range(200)), Computer(Path(sys.argv[2])), LocalExecutor(workers=2))
"""


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ("", 'UsageError: the calling script starts worker processes.*`if __name__ == "__main__":`'),
        pytest.param(
            "import multiprocessing\nif multiprocessing.current_process().name != 'MainProcess': raise SystemExit(3)\n",
            r'StoreError: .*worker process died \(while starting, exit code 3\).*`if __name__ == "__main__":`',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_script_without_a_main_guard(tmp_path: Path, top: str, said: str) -> None:
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(top + SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "depth.zarr"), str(log)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(said, done.stderr.strip().splitlines()[-1]), done.stderr
    assert done.stderr.count("Traceback") == 1, "it is said once"
    assert not log.exists()


def test_a_process_that_cannot_be_started_is_its_own_error(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_process: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", fail)
    with pytest.raises(BlockingIOError, match="temporarily unavailable"):
        run(new_store(n=200), requests(ROWS), Computer(tmp_path / "log"), LocalExecutor(workers=2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_input_costs_its_unit_only(new_store: NewStore, tmp_path: Path, workers: int) -> None:
    store = new_store(n=200)
    with pytest.raises(DataError, match="image is truncated: row 70; download it again"):
        run(store, requests(ROWS), Computer(tmp_path / "log", bad_row=70), LocalExecutor(workers=workers))
    assert plan(store, requests(ROWS)).missing == 64


def test_a_fault_ends_the_run(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store(n=200)
    with pytest.raises(ZeroDivisionError):
        run(store, requests(ROWS), Computer(tmp_path / "log", fault_at=70))
    assert plan(store, requests(ROWS)).done == 64


@pytest.mark.slow
def test_a_fault_in_a_worker_ends_the_run(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store(n=200)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a fault") as caught:
        run(store, requests(ROWS), Computer(tmp_path / "log", fault_at=70), LocalExecutor(workers=2))
    assert "stores_helpers.py" in caught.value.__notes__[0], "the worker's traceback travels with the error"


def test_rows_per_call(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests(range(10)), Computer(log, rows_per_call=4))
    assert [line for line in log.read_text().splitlines() if line.startswith("rows")] == [
        "rows 0 1 2 3", "rows 4 5 6 7", "rows 8 9",
    ]  # fmt: skip
    check_values(store, range(10))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_finishes_the_units_in_hand(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    """Worker processes get the signal too, as from a terminal or a batch system, and leave it to their parent."""
    log = tmp_path / "log"
    process = writer(tmp_path / "depth.zarr", log, 0.4 if workers == 1 else 3.0, workers)
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("open") == workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert b"stopping after the units in hand" in errors
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)
    store = Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path)
    assert plan(store, requests(range(0, 200, 2))).done == 32 * workers
    assert log.read_text().splitlines()[-workers:] == ["close"] * workers
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.next")) + list(tmp_path.rglob("*.lock"))


def test_no_workers_is_an_error(new_store: NewStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no workers"):
        run(new_store(), requests([1]), Computer(tmp_path / "log"), LocalExecutor(()))


def test_dask_in_this_process(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    from distributed import LocalCluster

    store = Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path)
    store.ensure_group(GROUP, np.arange(200) * 3)
    log = tmp_path / "log"
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        executor = DaskExecutor(cluster.scheduler_address)
        with pytest.raises(DataError, match="image is truncated: row 70"):
            run(store, requests(ROWS), Computer(log, bad_row=70), executor)
        assert plan(store, requests(ROWS)).missing == 64
        run(store, requests(ROWS), Computer(log), executor)
    assert shards(store) == undisturbed
    assert [line.split()[0] for line in log.read_text().splitlines()].count("open") == 2, "once a run, not once a unit"
    assert log.read_text().splitlines().count("close") == 2


def test_a_scheduler_that_is_not_there(new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipocc.stores.cluster.TIMEOUT", 1)
    with pytest.raises(UsageError, match=r"scheduler does not answer.*127\.0\.0\.1:9.*dask scheduler"):
        run(new_store(), requests([1]), Computer(tmp_path / "log"), DaskExecutor("tcp://127.0.0.1:9"))


def test_errors_of_workers_keep_their_kind() -> None:
    from vipocc.stores.messages import pack, unpack
    from vipocc.stores.work import Outcome

    request = requests([1])[0]
    for kind in (StoreError, DataError, VipoccError):
        outcome = unpack(pack(Outcome(request, "failed", error=kind("a", where="b", fix="c"))), request)
        assert type(outcome.error) is kind
        assert str(outcome.error) == "a: b; c"
