"""The report's tables: one shard a thread in memory, and the same figures on a cluster."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from vipocc.priors.report import tables
from vipocc.stores import SHARD, ArraySpec, Store, StoreSpec, requests_for, run
from vipocc.stores.arrays import computing

SIZE, CAMERAS = (24, 80), {"few": 6, "many": 36}


class Depths:
    def open(self, device: str) -> None: ...

    def compute(self, unit: object, rows: list[int]) -> dict[str, np.ndarray]:
        return {"depth": np.full((len(rows), *SIZE), 10, np.float16) + np.float16(rows[0] % 7)}

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """depth.zarr with a camera of six shards and one of thirty-six."""
    folder = tmp_path_factory.mktemp("depth")
    spec = StoreSpec("depth", (ArraySpec("depth", SIZE, "float16", float("nan"), ("y", "x"), "m", "depth"),))
    store = Store.create_or_open(folder / "depth.zarr", spec, folder)
    for camera, shards in CAMERAS.items():
        store.ensure_group(f"drive/{camera}", np.arange(SHARD * shards))
        run(store, requests_for(f"drive/{camera}", range(SHARD * shards), {"model": "x"}), Depths())
    return store.path


def test_memory_does_not_grow_with_the_store(depth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, most, lock, whole = 0, 0, threading.Lock(), tables._depth_rows

    def watched(rows: np.ndarray, **more: Any) -> np.ndarray:
        nonlocal live, most
        with lock:
            live, most = live + 1, max(most, live + 1)
        found = whole(rows, **more)
        with lock:
            live -= 1
        return found

    monkeypatch.setattr(tables, "_depth_rows", watched)
    peaks: dict[str, int] = {}
    for camera in ("few", "few", "many"):  # what is imported on the way counts once
        with dask.config.set(num_workers=2):
            tracemalloc.start()
            table = tables.depth_table(depth, f"drive/{camera}", 80.0)
            peaks[camera] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert len(table) == SHARD * CAMERAS[camera]
    assert most == 2, "shards in memory"
    shard = 4 * SHARD * SIZE[0] * SIZE[1]
    grown = (CAMERAS["many"] - CAMERAS["few"]) * SHARD * 3 * tables.DEPTH.itemsize
    assert peaks["many"] < peaks["few"] + shard + grown, "more than a few numbers a frame"


def test_a_cluster_gives_the_same_figures(depth: Path) -> None:
    from distributed import LocalCluster

    here = tables.depth_table(depth, "drive/few", 80.0)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        computing(cluster.scheduler_address, depth) as client,
    ):
        there = tables.depth_table(depth, "drive/few", 80.0)
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter) > 0
    assert here.tobytes() == there.tobytes()
