"""The Zarr v3 side of a store: metadata of groups and arrays, and shards to and from bytes.

Everything is written by zarr and readable with zarr or xarray alone. Shards are encoded into memory first, so that they
can be checksummed, staged and fsynced as whole files; encoding is deterministic, so the same rows give the same bytes.
Every chunk ends in a CRC-32C: a reader that knows nothing of the ledger still cannot return altered data.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc
from numcodecs import blosc as blosc_settings
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from vipocc.errors import MissingInputError, StoreError
from vipocc.stores.files import digest_bytes, sync_file, sync_folder
from vipocc.stores.spec import FORMAT_VERSION, FRAME_ID, ROW_DIMENSION, SHARD, ArraySpec, Json, StoreSpec, Unit

# With threads of its own, Blosc appends blocks as they get ready, and the same rows would not give the same bytes.
blosc_settings.use_threads = False

_ATTRIBUTE, _METADATA = "vipocc", "zarr.json"


def compressors(spec: ArraySpec) -> list[Any]:
    """Return the chunk codecs of an array; the choice for depth is measured, the others follow its bit layout."""
    size = np.dtype(spec.dtype).itemsize
    packed: Any
    if spec.codec == "depth":
        packed = BloscCodec(typesize=size, cname="zstd", clevel=3, shuffle="bitshuffle")
    elif spec.codec == "image":
        packed = BloscCodec(typesize=size, cname="zstd", clevel=3, shuffle="noshuffle")
    elif spec.codec == "picture":
        # Street scenes at 192x640: `image`'s size, an eighth of its time to write, half of its time to read.
        packed = BloscCodec(typesize=size, cname="lz4", clevel=9, shuffle="bitshuffle")
    elif spec.codec == "labels":
        packed = BloscCodec(typesize=size, cname="zstd", clevel=5, shuffle="shuffle" if size > 1 else "noshuffle")
    else:
        packed = ZstdCodec(level=3)
    return [packed, Crc32cCodec()]


def shard_path(root: Path, unit: Unit, spec: ArraySpec) -> Path:
    """Return the file of one unit's shard of one array."""
    return root / unit.group / spec.name / "c" / "/".join([str(unit.shard)] + ["0"] * len(spec.shape))


def create_root(path: Path, spec: StoreSpec) -> None:
    """Write the root group with the store's specification in its attributes."""
    description = {"format_version": spec.format_version, "kind": spec.kind, **_flat(spec), _ATTRIBUTE: spec.to_json()}
    zarr.create_group(LocalStore(path), attributes=description, overwrite=True)


def read_root(path: Path, fix: str | None = None) -> StoreSpec:
    """Read a store's specification.

    Raises:
        MissingInputError: there is nothing at `path`.
        StoreError: it is not a store of vipocc, its metadata is damaged, or its format version is not this one.
    """
    file = path / _METADATA
    try:
        values = json.loads(file.read_text(encoding="utf-8"))["attributes"]
        held = values[_ATTRIBUTE]
    except (FileNotFoundError, NotADirectoryError):
        if path.exists():
            raise StoreError("this is not a Zarr v3 store of vipocc", where=path, fix="choose another path") from None
        raise MissingInputError(f"there is no store '{path.stem}' yet", where=path, fix=fix) from None
    except (ValueError, KeyError, TypeError):
        raise StoreError("the store's metadata is damaged or not vipocc's", where=file, fix=_MOVE) from None
    version = held.get("format_version")
    if version != FORMAT_VERSION:
        age = "a newer" if isinstance(version, int) and version > FORMAT_VERSION else "an older"
        fix = f"this vipocc reads version {FORMAT_VERSION}: move the store away and run its command again"
        raise StoreError(f"the store has format version {version}, of {age} vipocc", where=path, fix=fix)
    try:
        return StoreSpec.from_json(held)
    except (KeyError, TypeError, ValueError):
        raise StoreError("the store's metadata is damaged", where=file, fix=_MOVE) from None


_MOVE = "move the store away and run the command that writes it again"


def create_group(
    root: Path, group: str, frame_ids: NDArray[np.int64], spec: StoreSpec, only: Collection[str] | None = None
) -> None:
    """Write the metadata of a group and its arrays, and its `frame_id` array, durably; shards stay as they are.

    `only` names the arrays to write; by default all.
    """
    store = LocalStore(root)
    parts = group.split("/")
    for depth in range(1, len(parts) + 1):
        zarr.open_group(store, path="/".join(parts[:depth]), mode="a", zarr_format=3, use_consolidated=False)
    n = len(frame_ids)
    if only is None or FRAME_ID in only:
        ids = zarr.create_array(
            store, name=f"{group}/{FRAME_ID}", shape=(n,), dtype="int64", chunks=(max(n, 1),), fill_value=-1,
            dimension_names=(ROW_DIMENSION,), overwrite=True,
            attributes={"units": "1", "description": "frame id of each row, as in the dataset's file names"},
        )  # fmt: skip
        ids[:] = frame_ids
    for array in spec.arrays:
        if only is None or array.name in only:
            attributes: Json = {"units": array.units, "description": array.description, "coordinates": FRAME_ID}
            # Where zarr finds an array it would remove its shards with it.
            (root / group / array.name / _METADATA).unlink(missing_ok=True)
            _create_array(store, f"{group}/{array.name}", n, array, attributes, overwrite=False)
    _sync_group(root, group, spec)


def _sync_group(root: Path, group: str, spec: StoreSpec) -> None:
    folders = [root / group / name for name in (FRAME_ID, *spec.names)]
    above = [folder for folder in (root / group, *(root / group).parents) if folder.is_relative_to(root)]
    for folder in (*folders, *above):
        sync_file(folder / _METADATA)
    for chunk in (root / group / FRAME_ID / "c").glob("*"):
        sync_file(chunk)
        sync_folder(chunk.parent)
    for folder in (*folders, *above, root.parent):
        sync_folder(folder)


def group_faults(root: Path, group: str, held: Json, spec: StoreSpec) -> dict[str, str]:
    """Return, by array, what is wrong with a group's metadata and frame ids; `held` is the group's record."""
    faults = {}
    for array in spec.arrays:
        try:
            there = json.loads((root / group / array.name / _METADATA).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            faults[array.name] = "has no metadata"
            continue
        except ValueError:
            there = None
        shape = [held["rows"], *array.shape]
        if not isinstance(there, dict) or (there.get("shape"), there.get("data_type")) != (shape, array.dtype):
            faults[array.name] = "has other metadata"
    try:
        if digest_bytes(read_frame_ids(root, group).tobytes()) != held["frame_ids_digest"]:
            faults[FRAME_ID] = "was altered"
    except StoreError:
        faults[FRAME_ID] = "cannot be read"
    return faults


def has_shards(root: Path, group: str, spec: StoreSpec) -> bool:
    """Tell whether a group has any shard file, recorded or not."""
    return any((root / group / name / "c").exists() for name in spec.names)


def read_frame_ids(root: Path, group: str) -> NDArray[np.int64]:
    """Return the `frame_id` array of a group; raises `StoreError` if it cannot be read."""
    try:
        ids = zarr.open_array(LocalStore(root, read_only=True), path=f"{group}/{FRAME_ID}", mode="r")
        return np.asarray(ids[:], dtype=np.int64)
    except _CODEC_ERRORS as error:
        where = root / group / FRAME_ID
        raise StoreError(f"the frame ids of a group cannot be read ({error})", where=where, fix=_MOVE) from None


def encode_shard(spec: ArraySpec, rows: Mapping[int, NDArray[Any]], n: int) -> bytes:
    """Return the bytes of the shard of `n <= 64` rows that holds `rows`, by position in the shard.

    A row held has a chunk even where it equals the fill value; a row not held has none. The bytes are zarr's own
    (`encode_shard_reference`), put together here in a third of its time: compressed chunks one after the other, each
    with its CRC-32C, then the index of their places with its own (Zarr v3, codec `sharding_indexed`).
    """
    if not packs_chunks(spec):
        return encode_shard_reference(spec, rows, n)
    return join_shard({position: encode_chunk(spec, row) for position, row in rows.items()})


def packs_chunks(spec: ArraySpec) -> bool:
    """Tell whether the array's chunks can be encoded one by one, as `encode_chunk` and `join_shard` do."""
    return isinstance(compressors(spec)[0], BloscCodec)


def encode_chunk(spec: ArraySpec, row: NDArray[Any]) -> bytes:
    """Return one row as a chunk of the array: compressed, with its CRC-32C."""
    packed = compressors(spec)[0]
    # zarr 3.1 keeps names as enumerations, later ones as text.
    name, shuffle = (str(getattr(value, "value", value)) for value in (packed.cname, packed.shuffle))
    codec = Blosc(name, packed.clevel, _SHUFFLES[shuffle], packed.blocksize, packed.typesize)
    values = np.ascontiguousarray(row, dtype=np.dtype(spec.dtype).newbyteorder("<"))
    return _with_crc(codec.encode(values.reshape(-1).view(np.uint8)))


def join_shard(chunks: Mapping[int, bytes]) -> bytes:
    """Return the bytes of a shard that has `chunks`, by position: chunks, then the index with its CRC-32C."""
    index = np.full((SHARD, 2), np.iinfo(np.uint64).max, "<u8")
    positions, at = sorted(chunks), 0
    for position in positions:
        index[position] = at, len(chunks[position])
        at += len(chunks[position])
    return b"".join([*(chunks[position] for position in positions), _with_crc(index.tobytes())])


_SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


def _with_crc(content: bytes) -> bytes:
    checksum: int = google_crc32c.value(content)
    return content + checksum.to_bytes(4, "little")


def encode_shard_reference(spec: ArraySpec, rows: Mapping[int, NDArray[Any]], n: int) -> bytes:
    """The plain twin of `encode_shard`: what zarr writes."""
    held: dict[str, Any] = {}
    array = _create_array(MemoryStore(held), "", n, spec, {})
    positions = sorted(rows)
    breaks = [k for k in range(1, len(positions)) if positions[k] != positions[k - 1] + 1]
    for first, end in zip([0, *breaks], [*breaks, len(positions)], strict=True):
        run = positions[first:end]
        array[run[0] : run[-1] + 1] = np.stack([rows[p] for p in run])
    content: bytes = held[_shard_key(spec)].to_bytes()
    return content


def decode_shard(spec: ArraySpec, content: bytes, n: int) -> NDArray[Any]:
    """Return the `n` rows of a shard; raises `StoreError` if its bytes are not a sound shard of this array."""
    array = _in_memory(spec, content, n)
    try:
        return np.asarray(array[...])
    except _CODEC_ERRORS as error:
        raise StoreError(f"a shard of '{spec.name}' cannot be decoded ({error})") from None


def decode_rows(spec: ArraySpec, content: bytes, n: int) -> dict[int, NDArray[Any]]:
    """Return those rows `[1, *shape]` of a damaged shard that still decode, by position."""
    array = _in_memory(spec, content, n)
    with suppress(*_CODEC_ERRORS):
        whole = np.asarray(array[...])
        return {position: whole[position : position + 1] for position in range(n)}
    rows = {}
    for position in range(n):
        with suppress(*_CODEC_ERRORS):
            rows[position] = np.asarray(array[position : position + 1])
    return rows


# What zarr and the codecs raise on bytes that are not their own.
_CODEC_ERRORS = (ValueError, RuntimeError, IndexError, KeyError, TypeError, OSError, AssertionError, EOFError)


def _in_memory(spec: ArraySpec, content: bytes, n: int) -> Any:
    held: dict[str, Any] = {}
    array = _create_array(MemoryStore(held), "", n, spec, {})
    held[_shard_key(spec)] = default_buffer_prototype().buffer.from_bytes(content)
    return array


def _create_array(store: Any, name: str, n: int, spec: ArraySpec, attributes: Json, *, overwrite: bool = True) -> Any:
    return zarr.create_array(
        store,
        name=name or None,
        shape=(n, *spec.shape),
        dtype=spec.dtype,
        chunks=(1, *spec.shape),
        shards=(SHARD, *spec.shape),
        compressors=compressors(spec),
        fill_value=np.dtype(spec.dtype).type(spec.fill),
        dimension_names=(ROW_DIMENSION, *spec.dims),
        attributes=attributes,
        config={"write_empty_chunks": True},
        overwrite=overwrite,
    )


def _shard_key(spec: ArraySpec) -> str:
    return "c/" + "/".join(["0"] * (1 + len(spec.shape)))


def _flat(spec: StoreSpec) -> Json:
    # Beside our own object, so that a plain reader sees the dataset and its like without knowing our names.
    return {k: v for k, v in spec.attributes.items() if k not in {"kind", "format_version", _ATTRIBUTE}}
