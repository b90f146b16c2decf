"""A small two-array store and computers for it; imported by the worker processes of the tests too."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError
from vipocc.stores import ArraySpec, Request, Store, StoreReader, StoreSpec, Unit, requests_for

GROUP = "drive/image_00"
SHAPE = (6, 10)


def spec(**attributes: Any) -> StoreSpec:
    return StoreSpec(
        "depth",
        (
            ArraySpec("depth", SHAPE, "float16", np.nan, ("height", "width"), "m", "depth", "distance along the axis"),
            ArraySpec("count", (), "uint16", 0, (), "1", "plain", "number of things"),
            ArraySpec("image", (*SHAPE, 3), "uint8", 0, ("height", "width", "channel"), "1", "image"),
        ),
        attributes={"dataset": "synthetic", **attributes},
    )


def values(row: int, salt: int = 0) -> dict[str, NDArray[Any]]:
    """The values of one row; row 7 is all zeros."""
    rng = np.random.default_rng((row, salt))
    if row == 7:
        return {"depth": np.zeros(SHAPE, np.float16), "count": np.uint16(0), "image": np.zeros((*SHAPE, 3), np.uint8)}
    return {
        "depth": rng.uniform(1, 80, SHAPE).astype(np.float16),
        "count": np.uint16(rng.integers(1, 1000)),
        "image": rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8),
    }


def batch(rows: Sequence[int], salt: int = 0) -> dict[str, NDArray[Any]]:
    made = [values(row, salt) for row in rows]
    return {name: np.stack([m[name] for m in made]) for name in ("depth", "count", "image")}


@dataclass
class Computer:
    """Counts what it is asked for in a log file, so that calls in other processes are seen too."""

    log: Path
    salt: int = 0
    delay: float = 0.0
    bad_row: int | None = None
    killed_at: int | None = None
    fault_at: int | None = None
    rows_per_call: int = 64
    opened: bool = field(default=False)

    def open(self, device: str) -> None:
        assert not self.opened
        self.opened = True
        self._note(f"open {device} {os.getpid()}")

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, NDArray[Any]]:
        assert self.opened
        assert unit.group == GROUP
        time.sleep(self.delay)
        if self.killed_at in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.bad_row in rows:
            raise DataError("image is truncated", where=f"row {self.bad_row}", fix="download it again")
        if self.fault_at in rows:
            raise ZeroDivisionError("a fault")
        self._note("rows " + " ".join(map(str, rows)))
        return batch(rows, self.salt)

    def close(self) -> None:
        self.opened = False
        self._note("close")

    def _note(self, line: str) -> None:
        with self.log.open("a") as file:
            file.write(line + "\n")


def computed(log: Path) -> list[int]:
    """Rows computed, in order, by all processes."""
    if not log.exists():
        return []
    return [int(w) for line in log.read_text().splitlines() if line.startswith("rows ") for w in line.split()[1:]]


def requests(rows: Sequence[int] | range, **fingerprint: Any) -> list[Request]:
    return requests_for(GROUP, rows, {"model": "tiny", "revision": "1", **fingerprint})


def shards(store: Store) -> dict[str, str]:
    """Digest of every shard file, by path."""
    files = [p for p in store.path.rglob("*") if p.is_file() and "/c/" in p.as_posix()]
    return {p.relative_to(store.path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def check_values(store: Store, rows: Sequence[int] | range, salt: int = 0) -> None:
    """Every row read back is what was computed, by our reader and by plain zarr."""
    import zarr

    from vipocc.stores import StoreReader

    reader, plain = StoreReader(store.path), zarr.open_group(str(store.path), mode="r")
    expected = batch(list(rows), salt)
    for name, array in expected.items():
        np.testing.assert_array_equal(reader.read_many(GROUP, list(rows), name), array)
        held = np.asarray(plain[f"{GROUP}/{name}"][:])
        np.testing.assert_array_equal(held[list(rows)], array)


def read_in_worker(reader: StoreReader, row: int) -> tuple[int, NDArray[Any]]:
    """Read a row in another process."""
    return os.getpid(), reader.read(GROUP, row, "image")
