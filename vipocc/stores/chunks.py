"""Rows straight from shard files into the caller's array: what a training loader reads by the thousand a second.

tensorstore reads any Zarr; the shards here are of one shape (`vipocc.stores.layout`: one chunk per row, compressed,
with its CRC-32C, and at the end of the file an index of the chunks' places), and reading just that takes no thread, no
cache that grows, and no copy between decompression and the caller's array. `StoreReader.read_many` is the plain twin.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd
from numpy.typing import NDArray

from vipocc.stores.spec import SHARD, ArraySpec

# Place and length of each chunk, both 2**64 - 1 for a chunk that is not there, then their CRC-32C.
_INDEX_BYTES, _CRC_BYTES = SHARD * 16, 4
_ABSENT = np.iinfo(np.uint64).max
_CODECS = {"blosc": "blosc", "zstd": "zstd"}

#: Shard files held open at a time, so that the disk is asked for many chunks before the first is waited for.
OPEN_FILES = 128


class ChunkError(ValueError):
    """A row's chunk is missing, truncated or altered; the message says which of these."""


@dataclass(frozen=True)
class ShardFiles:
    """The shards of one array of one group."""

    folder: Path
    """Folder of the array."""
    spec: ArraySpec
    codec: str

    @classmethod
    def open(cls, folder: Path, spec: ArraySpec) -> ShardFiles | None:
        """Return the shards of the array in `folder`, None where its metadata is not what `layout` writes."""
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            codec = _chunk_codec(json.loads((folder / "zarr.json").read_bytes()), spec)
            if codec is not None and sys.byteorder == "little":
                return cls(folder, spec, codec)
        return None

    def path(self, shard: int) -> str:
        """Return the file of a shard."""
        return "/".join([str(self.folder), "c", str(shard), *["0"] * len(self.spec.shape)])

    def decode(self, chunk: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Decompress one chunk, CRC-32C included, into a row.

        Raises:
            ChunkError: it is not a sound chunk of this array.
        """
        body, crc = chunk[:-_CRC_BYTES], chunk[-_CRC_BYTES:]
        if google_crc32c.value(body) != int(crc.view("<u4")[0]):
            raise ChunkError("a chunk was altered (its CRC-32C differs)")
        if self.codec == "blosc":
            # The header says how many bytes come out; fewer would leave the rest of the row as it was.
            if len(body) < 16 or int(body[4:8].view("<u4")[0]) != out.nbytes:
                raise ChunkError("a chunk is of another size")
            blosc.decompress(body, out)
        else:
            made = zstd.decompress(body)
            if len(made) != out.nbytes:
                raise ChunkError("a chunk is of another size")
            out.reshape(-1).view(np.uint8)[:] = np.frombuffer(made, np.uint8)


@dataclass(frozen=True)
class _Chunk:
    """Where a wanted row lies: in an open file, at an offset, and where it goes."""

    file: int
    offset: int
    length: int
    shards: ShardFiles
    row: int
    place: int


def read_rows(wanted: Iterable[tuple[ShardFiles, int, int]], out: NDArray[Any]) -> None:
    """Read rows of any number of arrays of one shape into `out`.

    Args:
        wanted: for each row its array, its number in the group, and its place in `out`.
        out: `[n, *shape]`, C-contiguous, of the arrays' data type.

    Raises:
        ChunkError: a row is missing, truncated or altered; its arguments are the reason, the array's folder and the
            row.
    """
    files: dict[tuple[ShardFiles, int], list[tuple[int, int]]] = {}
    for shards, row, place in wanted:
        files.setdefault((shards, row // SHARD), []).append((row, place))
    todo = list(files.items())
    for first in range(0, len(todo), OPEN_FILES):
        with ExitStack() as opened:
            chunks = [
                chunk
                for (shards, shard), rows in todo[first : first + OPEN_FILES]
                for chunk in _locate(shards, shard, rows, opened)
            ]
            for chunk in chunks:
                _advise(chunk)
            for chunk in chunks:
                try:
                    chunk.shards.decode(_content(chunk), out[chunk.place, ...])
                except (ChunkError, RuntimeError, ValueError, OSError) as error:
                    raise ChunkError(str(error), chunk.shards.folder, chunk.row) from None


def _locate(shards: ShardFiles, shard: int, rows: list[tuple[int, int]], opened: ExitStack) -> list[_Chunk]:
    """Open a shard and look the rows up in its index.

    The index is read at every call: another process may put a fuller shard in the place of this one at any time, and
    an index of the old one would point anywhere in the new one.
    """
    try:
        file = os.open(shards.path(shard), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ChunkError(f"its shard cannot be opened: {error.strerror}", shards.folder, rows[0][0]) from None
    opened.callback(os.close, file)
    size = os.fstat(file).st_size
    end = size - _INDEX_BYTES - _CRC_BYTES
    held = os.pread(file, _INDEX_BYTES + _CRC_BYTES, max(end, 0))
    body = held[:_INDEX_BYTES]
    if end < 0 or len(held) < _INDEX_BYTES + _CRC_BYTES:
        raise ChunkError("its shard is truncated", shards.folder, rows[0][0])
    if google_crc32c.value(body) != int.from_bytes(held[_INDEX_BYTES:], "little"):
        raise ChunkError("its shard was altered (the CRC-32C of its index differs)", shards.folder, rows[0][0])
    index = np.frombuffer(body, "<u8").reshape(SHARD, 2)
    chunks = []
    for row, place in rows:
        offset, length = (int(value) for value in index[row % SHARD])
        if offset == _ABSENT:
            raise ChunkError("its shard does not hold it", shards.folder, row)
        if length <= _CRC_BYTES or offset + length > end:
            raise ChunkError("its shard is truncated", shards.folder, row)
        chunks.append(_Chunk(file, offset, length, shards, row, place))
    return chunks


def _advise(chunk: _Chunk) -> None:
    # The disk works on all of a batch's chunks at once; with warm pages this costs a microsecond.
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(chunk.file, chunk.offset, chunk.length, os.POSIX_FADV_WILLNEED)


_buffers = threading.local()


def _content(chunk: _Chunk) -> NDArray[np.uint8]:
    """Return the bytes of a chunk, in memory that the thread's next call takes again."""
    held: NDArray[np.uint8] | None = getattr(_buffers, "held", None)
    if held is None or len(held) < chunk.length:
        held = _buffers.held = np.empty(2 * chunk.length, np.uint8)
    content = held[: chunk.length]
    if os.preadv(chunk.file, [content.data], chunk.offset) != chunk.length:
        raise ChunkError("its shard is truncated")
    return content


def _chunk_codec(metadata: Any, spec: ArraySpec) -> str | None:
    """Return the codec of an array's chunks, None if the array is not laid out as `layout` does it."""
    sharding, *others = metadata["codecs"]
    settings = sharding["configuration"]
    chain = [codec["name"] for codec in settings["codecs"]]
    endian = settings["codecs"][0].get("configuration", {}).get("endian", "little")
    sound = (
        not others
        and sharding["name"] == "sharding_indexed"
        and metadata["chunk_grid"]["configuration"]["chunk_shape"] == [SHARD, *spec.shape]
        and metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
        and settings["chunk_shape"] == [1, *spec.shape]
        and settings.get("index_location", "end") == "end"
        and [codec["name"] for codec in settings["index_codecs"]] == ["bytes", "crc32c"]
        and metadata["data_type"] == spec.dtype
        and metadata["shape"][1:] == list(spec.shape)
        and endian == "little"
        and len(chain) == 3
        and (chain[0], chain[2]) == ("bytes", "crc32c")
    )
    return _CODECS.get(chain[1]) if sound else None
