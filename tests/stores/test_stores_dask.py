"""Units on a dask cluster: who gets which, what travels, what deaths cost."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from staged import Cluster, Staged, assert_overlapping, lines, real_cluster, staged_requests, staged_store
from stores_helpers import GROUP, Computer, check_values, computed, requests, shards, spec

from vipocc.errors import DataError, DeviceError, StoreError, UsageError
from vipocc.stores import DaskExecutor, Store, plan, run, verify
from vipocc.stores.cluster import Mark, Seat, look, marked, refuse
from vipocc.stores.dask_worker import Run, close, do_unit

ROWS = range(200)


@contextmanager
def workers(*options: dict[str, Any]) -> Iterator[str]:
    """A cluster in this process with one worker for each `options`; gives its address."""
    from distributed import Scheduler, SpecCluster, Worker

    specs = {str(k): {"cls": Worker, "options": {"nthreads": 1, **o}} for k, o in enumerate(options)}
    scheduler = {"cls": Scheduler, "options": {"port": 0, "host": "127.0.0.1", "dashboard": False}}
    with SpecCluster(workers=specs, scheduler=scheduler) as cluster:
        yield cluster.scheduler_address


@dataclass
class Placed(Computer):
    """Notes on which worker each unit was computed."""

    def compute(self, unit: Any, rows: Any) -> Any:
        from distributed import get_worker

        worker = get_worker()
        self._note(f"on {'gpu' if worker.state.total_resources.get('GPU') else 'plain'}")
        return super().compute(unit, rows)

    def places(self) -> set[str]:
        return {line.split()[1] for line in self.log.read_text().splitlines() if line.startswith("on ")}


def any_device() -> str:
    return "cuda:0"


GPU_WORKER: dict[str, Any] = {"resources": {"GPU": 1}, "nthreads": 2}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path)
    made.ensure_group(GROUP, np.arange(200) * 3)
    return made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    made = Store.create_or_open(folder / "depth.zarr", spec(), folder)
    made.ensure_group(GROUP, np.arange(200) * 3)
    run(made, requests(ROWS), Computer(folder / "log"))
    return shards(made)


@pytest.mark.parametrize(
    ("cluster", "device", "places", "said"),
    [
        ((GPU_WORKER, {}), any_device, {"gpu"}, "dask: 1 workers with a GPU; 1 without are left to other work"),
        ((GPU_WORKER, {}), "cpu", {"plain"}, "dask: 1 workers; 1 with a GPU are left to networks"),
        ((GPU_WORKER,), "cpu", {"gpu"}, "dask: 1 workers\n"),
        (({},), any_device, {"plain"}, "dask: 1 workers, none started with `--resources GPU=1`; each uses what device"),
    ],
    ids=["network", "cpu", "cpu on gpus", "no gpu offered"],
)
def test_networks_go_to_gpus_and_other_work_elsewhere(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    cluster: tuple[dict[str, Any], ...], device: str | Callable[[], str], places: set[str], said: str,
) -> None:  # fmt: skip
    computer = Placed(tmp_path / "log")
    with workers(*cluster) as address:
        run(store, requests(ROWS), computer, DaskExecutor(address, device))
    assert computer.places() == places
    assert said in capfd.readouterr().err
    opened = [line.split()[1] for line in computer.log.read_text().splitlines() if line.startswith("open")]
    assert opened == ["cpu" if device == "cpu" else "cuda:0"]
    check_values(store, ROWS)


def test_units_overlap_on_one_gpu_worker(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    with workers({"resources": {"GPU": 1}, "nthreads": 4}) as address:
        run(staged_store(tmp_path, 9), staged_requests(9), Staged(log), DaskExecutor(address, any_device))
    assert_overlapping(log, 9, 1)
    assert "note" not in capfd.readouterr().err


def test_a_gpu_worker_with_one_thread_is_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with workers({"resources": {"GPU": 1}}) as address:
        executor = DaskExecutor(address, any_device)
        run(staged_store(tmp_path, 2), staged_requests(2), Staged(tmp_path / "log", stage=0.0), executor)
    assert "note: a dask worker with one thread does not read and write while its GPU works" in capfd.readouterr().err


def test_arrays_never_travel(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client

    from vipocc.stores import dask_executor

    sent, came = [], []
    submit, unpack = Client.submit, dask_executor.unpack
    monkeypatch.setattr(
        Client, "submit", lambda self, f, *a, **k: (sent.append(len(pickle.dumps(a))), submit(self, f, *a, **k))[1]
    )
    monkeypatch.setattr(dask_executor, "unpack", lambda m, r: (came.append(len(pickle.dumps(m))), unpack(m, r))[1])
    with workers({}) as address:
        run(store, requests(ROWS), Computer(tmp_path / "log"), DaskExecutor(address))
    assert len(sent) == len(came) == 4
    a_units_arrays = 64 * (60 * 2 + 2 + 180)
    assert max(sent + came) < a_units_arrays / 3


def test_a_failing_device_names_its_host(store: Store, tmp_path: Path) -> None:
    def broken() -> str:
        raise DeviceError("no CUDA device is available", fix="check the driver with `nvidia-smi`")

    with workers({}) as address, pytest.raises(DeviceError, match=f"on {socket.gethostname()}: no CUDA device.*nvidia"):
        run(store, requests(ROWS), Computer(tmp_path / "log"), DaskExecutor(address, broken))
    assert not (tmp_path / "log").exists()


def test_bad_input_costs_its_unit_only(store: Store, tmp_path: Path) -> None:
    with workers(GPU_WORKER) as address, pytest.raises(DataError, match="image is truncated: row 70"):
        run(store, requests(ROWS), Computer(tmp_path / "log", bad_row=70), DaskExecutor(address, any_device))
    assert plan(store, requests(ROWS)).missing == 64


def test_a_cluster_without_workers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vipocc.stores.cluster.PATIENCE", 0.5)
    with workers() as address, pytest.raises(UsageError, match=r"has no workers.*start some: `dask worker tcp://"):
        run(store, requests(ROWS), Computer(tmp_path / "log"), DaskExecutor(address))
    assert "no worker yet; waiting for one" in capfd.readouterr().err


def test_a_worker_that_does_not_see_the_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote would lie on a disk that nobody else has."""

    @contextmanager
    def elsewhere(path: Path, ledger: Path) -> Iterator[Mark]:
        yield Mark.of(path, tmp_path / "not there")

    monkeypatch.setattr("vipocc.stores.dask_executor.marked", elsewhere)
    with workers({}) as address, pytest.raises(UsageError, match=r"worker on .* does not see the store.*this path"):
        run(store, requests(ROWS), Computer(tmp_path / "log"), DaskExecutor(address))
    assert not (tmp_path / "log").exists()


def test_a_worker_that_comes_later_is_looked_at_too(store: Store, tmp_path: Path) -> None:
    computer, request = Computer(tmp_path / "log"), requests(ROWS)[0]
    with marked(store.path, store.ledger.path) as mark:
        assert look(mark) == Seat(look(mark).host, look(mark).version, sees=True, excluded=True)
        refuse(look(mark), mark)
        another = Mark(mark.store, "0" * 32, mark.lock)
    for wrong in (mark, another):  # the lock's file is gone; the store is another one
        answer = do_unit(Run("a", store, pickle.dumps(computer), "cpu", wrong), request)
        assert answer.outcome.fatal
        assert answer.kind is UsageError
        assert "does not see the store" in answer.what
    assert not computer.log.exists()
    with pytest.raises(UsageError, match=r"has vipocc 0\.0\.1, not .*same vipocc"):
        refuse(Seat("node7", "0.0.1", sees=True, excluded=True), mark)


def test_a_model_that_a_killed_client_left_open_makes_room(store: Store, tmp_path: Path) -> None:
    first, second, third = (Computer(tmp_path / name) for name in ("first", "second", "third"))

    def done(computer: Computer, mark: Mark, shard: int) -> str:
        return do_unit(Run("a", store, pickle.dumps(computer), "cpu", mark), requests(ROWS)[shard]).outcome.state

    store.adopt(GROUP, requests(ROWS)[0].fingerprint)
    with marked(store.path, store.ledger.path) as mark:
        assert done(first, mark, 0) == done(second, mark, 1) == done(first, mark, 2) == "committed"
        assert [computer.log.read_text().count("open") for computer in (first, second)] == [1, 1], "both may be in use"
    with marked(store.path.parent / "depth.zarr", tmp_path / "elsewhere") as mark:
        assert done(third, mark, 3) == "committed"
        for computer in (first, second):
            assert computer.log.read_text().splitlines()[-1] == "close"
        close(Run("a", store, pickle.dumps(third), "cpu", mark).token, "a")
    assert third.log.read_text().splitlines()[-1] == "close"


def test_locks_that_do_not_reach_are_told_of(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from vipocc.stores import dask_executor

    real = dask_executor.check_workers
    open_ = lambda client, mark: {a: Seat("node7", s.version, True, False) for a, s in real(client, mark).items()}  # noqa: E731
    monkeypatch.setattr(dask_executor, "check_workers", open_)
    with workers({}) as address:
        run(store, requests([1]), Computer(tmp_path / "log"), DaskExecutor(address))
    assert "note: locks of this file system do not reach node7" in capfd.readouterr().err


def test_sigterm_finishes_what_has_begun(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"

    def stop() -> None:
        while not (log.exists() and "open" in log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with workers({}) as address, pytest.raises(SystemExit) as left:
        run(store, requests(ROWS), Computer(log, delay=1.5), DaskExecutor(address))
    thread.join()
    assert left.value.code == 143
    assert "stopping after the units in hand" in capfd.readouterr().err
    assert plan(store, requests(ROWS)).done == 64, "the unit in hand was finished, the one in line not begun"
    assert log.read_text().splitlines()[-1] == "close"
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.next")) + list(tmp_path.rglob("*.lock"))


# With real processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with real_cluster(tmp_path_factory.mktemp("cluster")) as made:
        for _ in range(2):
            made.add("--nthreads", "4", "--resources", "GPU=1")
        yield made


@pytest.mark.slow
def test_units_overlap_on_each_worker_process(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = staged_store(tmp_path, 16)
    run(store, staged_requests(16), Staged(log), DaskExecutor(cluster.address, partial(str, "cuda:0")))
    assert_overlapping(log, 16, 2)
    assert len(lines(log, "open")) == len(lines(log, "close")) == 2, "loaded once per worker"
    check_values(store, range(0, 64 * 16, 64))


#: A client as another process: `python -c CLIENT store log delay address`.
CLIENT = """
import sys
from pathlib import Path
import numpy as np
from stores_helpers import GROUP, Computer, requests, spec
from vipocc.stores import DaskExecutor, Store, run
store = Store.create_or_open(Path(sys.argv[1]), spec(), Path(sys.argv[1]).parent)
store.ensure_group(GROUP, np.arange(200) * 3)
run(store, requests(range(200)), Computer(Path(sys.argv[2]), delay=float(sys.argv[3])), DaskExecutor(sys.argv[4]))
"""


def client(store: Path, log: Path, delay: float, address: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CLIENT, str(store), str(log), str(delay), address]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_two_clients_at_once_share_the_work(cluster: Cluster, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    path, log = tmp_path / "depth.zarr", tmp_path / "log"
    for process in [client(path, log, 0.5, cluster.address) for _ in range(2)]:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert sorted(computed(log)) == list(ROWS), "no row was made twice"
    assert shards(Store.create_or_open(path, spec(), tmp_path)) == undisturbed


@pytest.mark.slow
def test_a_killed_client_loses_nothing(cluster: Cluster, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    path, log = tmp_path / "depth.zarr", tmp_path / "log"
    process = client(path, log, 0.5, cluster.address)
    wait_for(lambda: computed(log))
    process.kill()
    process.communicate()
    last = client(path, log, 0.0, cluster.address)
    _, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors.decode()
    store = Store.create_or_open(path, spec(), tmp_path)
    assert shards(store) == undisturbed
    assert verify(path).sound
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.next"))


def test_what_a_killed_client_left_beside_the_store_is_cleared_away(store: Store, tmp_path: Path) -> None:
    killed = subprocess.Popen(["true"])
    killed.wait()
    left = store.ledger.path / "runs" / f"{socket.gethostname()}-{killed.pid}.json.lock"
    left.parent.mkdir()
    left.touch()
    run(store, requests([1]), Computer(tmp_path / "log"))
    assert not left.parent.exists()


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    store = Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path)
    store.ensure_group(GROUP, np.arange(200) * 3)
    log = tmp_path / "log"
    with real_cluster(tmp_path) as cluster:
        doomed = cluster.add("--nthreads", "1")

        def kill() -> None:
            wait_for(lambda: log.exists() and "open" in log.read_text())
            cluster.add("--nthreads", "1")
            doomed.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        done = run(store, requests(ROWS), Computer(log, delay=3.0), DaskExecutor(cluster.address))
        thread.join()
    assert done.rows == 200
    opened = [line.split()[2] for line in log.read_text().splitlines() if line.startswith("open")]
    assert len(opened) == len(set(opened)) == 2, "the other worker took over"
    assert opened[0] == str(doomed.pid)
    assert shards(store) == undisturbed
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.next"))


@pytest.mark.slow
def test_a_dead_scheduler_is_one_error(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    with real_cluster(tmp_path) as cluster:
        cluster.add("--nthreads", "1")

        def kill() -> None:
            wait_for(lambda: len(computed(log)) > 64)
            cluster.scheduler.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(StoreError, match=r"scheduler went away; what was committed stands: tcp.*same command"):
            run(store, requests(ROWS), Computer(log, delay=0.5), DaskExecutor(cluster.address))
        thread.join()
    assert plan(store, requests(ROWS)).done >= 64
    assert verify(store.path).sound
    run(store, requests(ROWS), Computer(log))
    check_values(store, ROWS)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
