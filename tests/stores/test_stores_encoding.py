"""Shards are put together byte for byte as zarr would."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from vipocc.stores.layout import decode_shard, encode_shard, encode_shard_reference
from vipocc.stores.spec import SHARD, ArraySpec, Codec


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
