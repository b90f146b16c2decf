"""Verification over shard-aligned dask arrays: in threads and on a cluster, with memory that does not grow."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
from stores_helpers import GROUP, Computer, requests

from vipocc.errors import StoreError, UsageError
from vipocc.stores import ArraySpec, Store, StoreSpec, Unit, file_ref, requests_for, run, verify
from vipocc.stores.arrays import computing, each_unit
from vipocc.stores.layout import shard_path

NewStore = Callable[..., Store]
UNITS = [Unit(GROUP, number) for number in range(30)]


def shard_of(unit: Unit) -> tuple[int, int]:
    return unit.shard, os.getpid()


def test_answers_come_in_order_and_are_counted(tmp_path: Path, new_store: NewStore) -> None:
    told: list[int] = []
    with computing(None, new_store().path) as client:
        assert client is None
        answers = each_unit(UNITS, shard_of, client, lambda: told.append(1))
        assert each_unit([], shard_of, client) == []
    assert answers == [(number, os.getpid()) for number in range(30)]
    assert len(told) == 30


def test_as_many_units_at_once_as_threads(new_store: NewStore) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def watched(unit: Unit) -> int:
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
        time.sleep(0.005)
        with lock:
            running -= 1
        return unit.shard

    with computing(None, new_store().path), dask.config.set(num_workers=3):
        each_unit(UNITS, watched)
    assert most == 3


def test_an_error_in_a_unit_is_the_error(new_store: NewStore) -> None:
    def fails(unit: Unit) -> int:
        raise StoreError("the disk is gone", where=unit.key)

    with computing(None, new_store().path), pytest.raises(StoreError, match="the disk is gone"):
        each_unit(UNITS, fails)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of forty shards of half a megabyte, and one of ten."""
    folder = tmp_path_factory.mktemp("large")
    blocks = StoreSpec("blocks", (ArraySpec("block", (256, 512), "float32", 0.0, ("y", "x"), "1"),))
    rng = np.random.default_rng(0)

    class Noise:
        def open(self, device: str) -> None: ...

        def compute(self, unit: Unit, rows: list[int]) -> dict[str, np.ndarray]:
            return {"block": rng.standard_normal((len(rows), 256, 512), np.float32)}

        def close(self) -> None: ...

    for units in (10, 40):
        store = Store.create_or_open(folder / f"blocks-{units}.zarr", blocks, folder)
        store.ensure_group(GROUP, np.arange(64 * units))
        run(store, requests_for(GROUP, range(0, 64 * units, 64), {"model": "noise"}), Noise())
    return folder


def peak(path: Path) -> int:
    """Bytes that a verification takes at most."""
    with dask.config.set(num_workers=2):
        tracemalloc.start()
        try:
            report = verify(path)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert report.sound
    assert report.bytes > report.units * 400_000
    return most


def test_memory_does_not_grow_with_the_store(large: Path) -> None:
    peak(large / "blocks-10.zarr")  # what is imported on the way counts once
    few, many = peak(large / "blocks-10.zarr"), peak(large / "blocks-40.zarr")
    assert many < few + 2_000_000, "fifteen megabytes more"
    assert many < 5_000_000, "of twenty"


def test_the_graph_does_not_grow_with_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    from vipocc.stores import arrays

    monkeypatch.setattr(arrays, "CHUNKS", 50)
    units, peaks = [Unit(GROUP, number) for number in range(800)], []
    for count in (50, 800):  # what is imported on the way counts once
        tracemalloc.start()
        assert [shard for shard, _ in each_unit(units[:count], shard_of)] == list(range(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2_500_000, "seven kilobytes a unit in one graph"


def test_inputs_that_units_share_are_read_once(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sweep = new_store(n=200), tmp_path / "sweep.bin"
    sweep.write_bytes(b"points")
    wanted = requests_for(GROUP, range(200), {"model": "a"}, {r: [file_ref(sweep, tmp_path)] for r in range(200)})
    run(store, wanted, Computer(tmp_path / "log"))
    from vipocc.stores import inputs

    read: list[Path] = []
    digest = inputs.digest_file
    monkeypatch.setattr(inputs, "digest_file", lambda path: (read.append(path), digest(path))[1])
    with dask.config.set(num_workers=1):
        report = verify(store.path, deep=True, root=tmp_path)
    assert (report.sound, report.inputs_checked, report.inputs_gone) == (True, 1, 0)
    assert read == [sweep]
    sweep.unlink()
    report = verify(store.path, deep=True, root=tmp_path)
    assert (report.sound, report.inputs_checked, report.inputs_gone) == (True, 0, 1), "each verification looks anew"


def test_verification_on_a_cluster(new_store: NewStore, tmp_path: Path) -> None:
    from distributed import LocalCluster

    store = new_store(n=300)
    run(store, requests(range(300)), Computer(tmp_path / "log"))
    shard = shard_path(store.path, Unit(GROUP, 3), store.spec.array("depth"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        report = verify(store.path, scheduler=cluster.scheduler_address)
        assert (report.units, report.rows) == (5, 300)
        assert [(f.unit, f.marked) for f in report.findings] == [(f"{GROUP}/00003", True)]
        with computing(cluster.scheduler_address, store.path) as client:
            assert [number for number, _ in each_unit(UNITS, shard_of, client)] == list(range(30))
    assert store.ledger.file(Unit(GROUP, 3), "rejected").exists()


def test_a_cluster_that_is_not_there(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipocc.stores.cluster.TIMEOUT", 1)
    with pytest.raises(UsageError, match="scheduler does not answer"):
        verify(new_store().path, scheduler="tcp://127.0.0.1:9")


def test_workers_that_see_another_store(new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds nothing under the path would find nothing wrong."""
    from distributed import LocalCluster

    from vipocc.stores import arrays

    monkeypatch.setattr(arrays.Mark, "of", lambda store: arrays.Mark(tmp_path / "gone.zarr", "0" * 32))
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, pytest.raises(UsageError, match="does not see the store"):
        verify(new_store().path, scheduler=cluster.scheduler_address)
