"""Shards are put together byte for byte as zarr would."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from vipocc.stores.commit import commit, pack_row
from vipocc.stores.layout import decode_shard, encode_shard, encode_shard_reference, shard_path
from vipocc.stores.spec import SHARD, ArraySpec, Codec, Request, StoreSpec, Unit
from vipocc.stores.writer import Store


@pytest.mark.parametrize("codec", get_args(Codec))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize(("held", "n"), [((0, 1, 2, 7, 63), 64), ((3,), 5), (tuple(range(64)), 64)])
def test_bytes_are_those_of_zarr(codec: Codec, dtype: str, held: tuple[int, ...], n: int) -> None:
    spec = ArraySpec("value", (192, 160), dtype, 0, ("y", "x"), "1", codec)
    rng = np.random.default_rng(len(held))
    rows = {k: (rng.integers(0, 40, spec.shape) * (k != 1)).astype(dtype) for k in held}
    content = encode_shard(spec, rows, n)
    assert content == encode_shard_reference(spec, rows, n)
    whole = decode_shard(spec, content, n)
    assert all((whole[k] == rows[k]).all() for k in held)


def test_rows_that_are_not_contiguous() -> None:
    spec = ArraySpec("value", (70, 90, 3), "uint8", 0, ("y", "x", "c"), "1", "picture")
    rows = {SHARD - 1: np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8).swapaxes(0, 1)}
    assert encode_shard(spec, rows, SHARD) == encode_shard_reference(spec, rows, SHARD)


def test_rows_packed_beforehand_commit_the_same_bytes(tmp_path: Path) -> None:
    """With rows of an earlier commit kept, and without."""
    arrays = (
        ArraySpec("image", (40, 60, 3), "uint8", 0, ("y", "x", "c"), "1", "picture"),
        ArraySpec("count", (), "uint16", 0, (), "1", "plain"),
    )
    rng, unit, shards, digests = np.random.default_rng(0), Unit("g", 0), [], []
    made = {
        row: {"image": rng.integers(0, 9, (1, 40, 60, 3), dtype=np.uint8), "count": np.array([row], np.uint16)}
        for row in range(6)
    }
    for beforehand in (False, True):
        store = Store.create_or_open(tmp_path / f"{beforehand}.zarr", StoreSpec("frames", arrays), tmp_path)
        store.ensure_group("g", np.arange(8))
        record = None
        for rows in ((0, 3), (1, 2, 5)):
            values = {name: np.concatenate([made[row][name] for row in rows]) for name in ("image", "count")}
            packed = {row: pack_row(store.spec, values, k) for k, row in enumerate(rows)} if beforehand else None
            request = Request(unit, rows, {"model": "none"}, {})
            store.adopt("g", request.fingerprint)
            record = commit(store, request, rows, values, {}, record, packed=packed)
        assert record is not None
        assert sorted(record.rows) == [0, 1, 2, 3, 5]
        digests.append({row: entry["digest"] for row, entry in record.rows.items()})
        shards.append([shard_path(store.path, unit, spec).read_bytes() for spec in arrays])
    assert shards[0] == shards[1]
    assert digests[0] == digests[1]
