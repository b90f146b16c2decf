from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vipocc.errors import MissingInputError, StoreError
from vipocc.evaluation import rows as module
from vipocc.evaluation.rows import ShardRows
from vipocc.stores import ArraySpec, LocalExecutor, Store, StoreReader, StoreSpec, requests_for, run
from vipocc.stores.spec import Unit

ROWS = [row for row in range(150) if row % 7 != 3]


class Small:
    rows_per_call = 64

    def open(self, device: str) -> None: ...

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        values = np.stack([np.random.default_rng(row).integers(0, 9, (4, 5), np.uint8) for row in rows])
        return {"cells": values, "known": np.asarray(rows, np.uint8) % 2}

    def close(self) -> None: ...

    def notes(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def reader(tmp_path: Path) -> StoreReader:
    arrays = (ArraySpec("cells", (4, 5), "uint8", 0, ("y", "x"), "1"), ArraySpec("known", (), "uint8", 0, (), "1"))
    store = Store.create_or_open(tmp_path / "small.zarr", StoreSpec("small", arrays, attributes={}), tmp_path)
    store.ensure_group("a/b", np.arange(150))
    run(store, requests_for("a/b", ROWS, {}), Small(), LocalExecutor(("cpu",)))
    return StoreReader(tmp_path / "small.zarr", fix="make it")


def test_rows_are_those_of_the_plain_reader_in_any_order_and_thread(
    reader: StoreReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HELD", 3)
    fast = ShardRows(reader)
    assert fast.has("a/b")
    assert not fast.has("a/c")
    assert np.array_equal(fast.rows("a/b"), reader.rows("a/b"))
    order = np.random.default_rng(0).permutation(ROWS * 2)

    def same(row: int) -> bool:
        return all(
            np.array_equal(fast.read("a/b", row, name), reader.read("a/b", row, name)) for name in ("cells", "known")
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, map(int, order)))
    assert len(fast._blocks) <= 3


def test_a_shard_is_read_once(reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = reader.gather
    monkeypatch.setattr(reader, "gather", lambda places, array: asked.append(len(places)) or plain(places, array))  # type: ignore[func-returns-value]
    fast = ShardRows(reader)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: fast.read("a/b", row, "cells"), ROWS))
    assert sum(asked) == len(ROWS)
    assert len(asked) == 3


def test_rows_that_are_not_there_and_damaged_ones_raise(reader: StoreReader) -> None:
    fast = ShardRows(reader)
    with pytest.raises(MissingInputError, match="does not hold row 3"):
        fast.read("a/b", 3, "cells")
    with pytest.raises(MissingInputError, match="no group"):
        fast.read("a/c", 3, "cells")
    shard = next(path for path in (reader.path / "a/b/cells/c").rglob("*") if path.is_file() and "1" in path.parts[-3:])
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    for _ in range(2):
        with pytest.raises(StoreError):
            fast.read("a/b", 64, "cells")
