from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores_helpers import GROUP, SHAPE, Computer, batch, read_in_worker, requests, spec

from vipocc.errors import UsageError
from vipocc.stores import Store, StoreReader, Unit, file_ref, requests_for, row_refs, run
from vipocc.stores.commit import recover
from vipocc.stores.ledger import Ledger

NewStore = Callable[..., Store]


def test_everything_a_plain_reader_needs_stands_in_the_metadata(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    run(store, requests([1, 70]), Computer(tmp_path / "log"))
    group = zarr.open_group(str(store.path), mode="r")[GROUP]
    assert set(group.array_keys()) == {"frame_id", *spec().names}
    assert group["frame_id"].metadata.dimension_names == ("frame",)
    for array in spec().arrays:
        held = group[array.name]
        assert held.metadata.dimension_names == ("frame", *array.dims)
        assert held.attrs["units"] == array.units
        assert held.attrs["description"] == array.description
        assert held.attrs["coordinates"] == "frame_id"
        assert (held.shape, held.dtype) == ((100, *array.shape), np.dtype(array.dtype))
        np.testing.assert_array_equal(held[0], np.full(array.shape, array.fill, array.dtype))
    assert (group["depth"].attrs["units"], group["depth"].metadata.dimension_names) == (
        "m",
        ("frame", "height", "width"),
    )
    assert group["image"].metadata.dimension_names == ("frame", "height", "width", "channel")


def test_many_threads_share_a_reader_while_the_store_grows(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store(n=140)
    run(store, requests(range(0, 140, 2)), Computer(tmp_path / "log"))
    reader, expected = StoreReader(store.path), batch(range(140))
    grown = threading.Event()

    def grow() -> None:
        run(store, requests(range(140)), Computer(tmp_path / "log"))
        grown.set()

    def look(seed: int) -> int:
        rng, count = np.random.default_rng(seed), 0
        while not (grown.is_set() and count >= 8):
            name = ("depth", "count", "image")[int(rng.integers(3))]
            rows = rng.integers(70, size=5) * 2
            np.testing.assert_array_equal(reader.read_many(GROUP, rows, name), expected[name][rows])
            np.testing.assert_array_equal(reader.read(GROUP, int(rows[0]), name), expected[name][rows[0]])
            assert reader.rows(GROUP)[::2].all()
            count += 1
        return count

    with ThreadPoolExecutor(8) as threads:
        looks = [threads.submit(look, seed) for seed in range(7)]
        threads.submit(grow).result()
        assert all(each.result() >= 8 for each in looks)
    np.testing.assert_array_equal(reader.read_many(GROUP, range(140), "image"), expected["image"])


def test_a_reader_travels_to_spawned_processes(new_store: NewStore, tmp_path: Path) -> None:
    """As a data set does to the workers of a DataLoader, used or not before."""
    store = new_store()
    run(store, requests(range(100)), Computer(tmp_path / "log"))
    reader = StoreReader(store.path, fix="run it")
    reader.read(GROUP, 3, "depth")
    assert pickle.loads(pickle.dumps(reader)).fix == "run it"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers = pool.starmap(read_in_worker, [(reader, row) for row in range(0, 100, 9)], chunksize=1)
    assert os.getpid() not in {pid for pid, _ in answers}
    expected = batch(range(0, 100, 9))["image"]
    np.testing.assert_array_equal(np.stack([image for _, image in answers]), expected)


FORKED = """
import os, sys
from vipocc.errors import UsageError
from vipocc.stores import StoreReader
reader = StoreReader(sys.argv[1])
if sys.argv[2] == "used":
    reader.read(sys.argv[3], 1, "depth")
child = os.fork()
if child == 0:
    try:
        print(reader.read(sys.argv[3], 1, "depth").shape, flush=True)
    except UsageError as error:
        print(error, flush=True)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), reader.read(sys.argv[3], 1, "depth").shape)
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("used", "cannot be read in the fork; start workers with the 'spawn' method"),
        pytest.param("unused", "(6, 10)", marks=pytest.mark.slow),
    ],
)
def test_a_forked_process_gets_an_error_instead_of_an_abort(
    new_store: NewStore, tmp_path: Path, before: str, said: str
) -> None:
    store = new_store()
    run(store, requests([1]), Computer(tmp_path / "log"))
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(store.path), before, GROUP], capture_output=True, text=True, timeout=60
    )
    in_child, in_parent = done.stdout.splitlines()
    assert said in in_child, done.stderr
    assert in_parent == f"7 {SHAPE}"


def test_the_guard_speaks_before_tensorstore_is_touched(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store()
    run(store, requests([1]), Computer(tmp_path / "log"))
    reader = StoreReader(store.path)
    reader.read(GROUP, 1, "depth")
    monkeypatch.setattr(os, "getpid", lambda: -5)
    for each in (reader, StoreReader(store.path)):
        with pytest.raises(UsageError, match="'spawn'"):
            each.read(GROUP, 1, "depth")


def test_a_replacement_that_ends_while_the_ledger_is_read(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it ends, no row is reported with the digest of content that is gone."""
    store, log = new_store(), tmp_path / "log"
    file = tmp_path / "1.png"

    def wanted() -> list:
        return requests_for(GROUP, [1, 2], {"model": "tiny"}, {1: [file_ref(file, tmp_path)]})

    file.write_bytes(b"a")
    run(store, wanted(), Computer(log))
    before = row_refs(StoreReader(store.path), GROUP, [1, 2])
    file.write_bytes(b"other")

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("vipocc.stores.commit._put_in_place", die)
        with pytest.raises(Killed):
            run(store, wanted(), Computer(log, salt=5))
    assert list(np.flatnonzero(StoreReader(store.path).rows(GROUP))) == [2]
    real, reads = Ledger.read, []

    def read(ledger: Ledger, unit: Unit, ending: str = "json") -> object:
        found = real(ledger, unit, ending)
        reads.append(ending)
        if len(reads) == 1:
            recover(store, unit)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "read", read)
        held = row_refs(StoreReader(store.path), GROUP, [1, 2])
    assert held[2] == before[2]
    assert held[1]["digest"] != before[1]["digest"], "the content of row 1 was replaced meanwhile"
    np.testing.assert_array_equal(StoreReader(store.path).read(GROUP, 1, "depth"), batch([1], salt=5)["depth"][0])
