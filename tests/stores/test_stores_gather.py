"""Rows read straight from shard files: the same as tensorstore gives, and nothing at all of a damaged file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stores_helpers import GROUP, SHAPE, Computer, batch, requests, spec

from vipocc.errors import MissingInputError, StoreError, UsageError
from vipocc.stores import Store, StoreReader, Unit, run
from vipocc.stores import chunks as chunks_module
from vipocc.stores.chunks import ShardFiles
from vipocc.stores.layout import shard_path

NewStore = Callable[..., Store]
ROWS = [70, 3, 7, 3, 99, 64, 63]


@pytest.fixture
def filled(new_store: NewStore, tmp_path: Path) -> Store:
    store = new_store()
    run(store, requests(range(100)), Computer(tmp_path / "log"))
    return store


def shard(store: Store, name: str, number: int = 0) -> Path:
    return shard_path(store.path, Unit(GROUP, number), store.spec.array(name))


@pytest.mark.parametrize("name", spec().names)
def test_rows_are_those_that_tensorstore_reads(filled: Store, name: str) -> None:
    reader = StoreReader(filled.path)
    assert ShardFiles.open(filled.path / GROUP / name, filled.spec.array(name)) is not None, "read the fast way"
    gathered = reader.gather([(GROUP, row) for row in ROWS], name)
    expected = reader.read_many(GROUP, ROWS, name)
    assert gathered.dtype == expected.dtype
    np.testing.assert_array_equal(gathered, expected)
    np.testing.assert_array_equal(gathered, batch(ROWS)[name])
    assert reader.gather([], name).shape == (0, *filled.spec.array(name).shape)


def test_rows_go_where_they_are_asked_to(filled: Store) -> None:
    reader, room = StoreReader(filled.path), np.zeros((4, 2, *SHAPE, 3), np.uint8)
    reader.gather([(GROUP, row) for row in (5, 80)], "image", out=room[1])
    np.testing.assert_array_equal(room[1], batch([5, 80])["image"])
    assert not room[[0, 2, 3]].any()
    for wrong in (room[1, :1], room[1].astype(np.int8), np.zeros((2, *SHAPE, 6), np.uint8)[..., ::2]):
        with pytest.raises(UsageError, match="do not fit"):
            reader.gather([(GROUP, row) for row in (5, 80)], "image", out=wrong)


def test_more_shards_than_files_may_be_open(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "OPEN_FILES", 1)
    before = len(os.listdir("/proc/self/fd"))
    gathered = StoreReader(filled.path).gather([(GROUP, row) for row in ROWS], "depth")
    np.testing.assert_array_equal(gathered, batch(ROWS)["depth"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_rows_not_committed_are_missing_until_they_are(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    run(store, requests(range(10)), Computer(tmp_path / "log"))
    reader = StoreReader(store.path, fix="run `it`")
    with pytest.raises(MissingInputError, match=r"does not hold row 11 of .*; run `it`"):
        reader.gather([(GROUP, 1), (GROUP, 11)], "depth")
    with pytest.raises(MissingInputError, match="does not hold row -1"):
        reader.gather([(GROUP, -1)], "depth")
    run(store, requests(range(20)), Computer(tmp_path / "log"))
    np.testing.assert_array_equal(reader.gather([(GROUP, 11)], "depth"), batch([11])["depth"])


def test_a_shard_of_other_make_is_left_to_tensorstore(filled: Store) -> None:
    metadata = filled.path / GROUP / "depth" / "zarr.json"
    held = json.loads(metadata.read_bytes())
    held["codecs"][0]["configuration"]["index_location"] = "start"
    metadata.write_text(json.dumps(held))
    assert ShardFiles.open(metadata.parent, filled.spec.array("depth")) is None
    with pytest.raises(StoreError, match="altered"):
        StoreReader(filled.path).gather([(GROUP, 1)], "depth")
    held["codecs"][0]["configuration"]["index_location"] = "end"
    held["attributes"]["note"] = "harmless"
    metadata.write_text(json.dumps(held))
    gathered = StoreReader(filled.path).gather([(GROUP, 1)], "depth")
    np.testing.assert_array_equal(gathered, batch([1])["depth"])


@pytest.mark.parametrize("name", spec().names)
def test_whatever_happens_to_a_shard_no_wrong_row_is_read(filled: Store, name: str) -> None:
    """Every kind of damage is an error that names the row and the way out, or did not touch the row."""
    file, rng, expected = shard(filled, name), np.random.default_rng(0), batch(range(64))[name]
    sound, reader, refused = file.read_bytes(), StoreReader(filled.path), []
    for trial in range(150):
        hurt = bytearray(sound)
        kind, at = trial % 4, int(rng.integers(len(sound)))
        if kind == 0:
            hurt[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del hurt[at:]
        elif kind == 2:
            hurt[at : at + 64] = bytes(len(hurt[at : at + 64]))
        else:
            hurt[:at], hurt[at:] = hurt[len(hurt) - at :], hurt[: len(hurt) - at]
        file.write_bytes(bytes(hurt))
        row = int(rng.integers(64))
        try:
            read = reader.gather([(GROUP, row)], name)[0]
        except StoreError as error:
            refused.append((f"row {row} of '{GROUP}/{name}'", str(error)))
        else:
            np.testing.assert_array_equal(read, expected[row])
    assert len(refused) > 75
    for where, said in refused:
        assert where in said
        assert "vipocc stores verify" in said
        assert "\n" not in said
    file.unlink()
    with pytest.raises(StoreError, match="No such file"):
        reader.gather([(GROUP, 1)], name)


def test_threads_gather_while_the_store_grows(new_store: NewStore, tmp_path: Path) -> None:
    """A fuller shard takes the place of the one that was just looked into."""
    store = new_store()
    run(store, requests(range(0, 60, 2)), Computer(tmp_path / "log"))
    reader, expected = StoreReader(store.path), batch(range(64))

    def look(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            rows = rng.integers(30, size=6) * 2
            gathered = reader.gather([(GROUP, int(row)) for row in rows], "image")
            np.testing.assert_array_equal(gathered, expected["image"][rows])

    with ThreadPoolExecutor(5) as threads:
        looks = [threads.submit(look, seed) for seed in range(4)]
        for row in range(1, 20, 2):
            threads.submit(run, store, requests([row]), Computer(tmp_path / "log")).result()
        for each in looks:
            each.result()
