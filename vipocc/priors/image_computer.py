"""What computers with networks share: prepared images are read side by side, the device is one thread's at a time."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import NonFiniteError
from vipocc.priors.batching import ON_CPU
from vipocc.stores import SHARD, StoreReader, Unit


@dataclass
class ImageComputer(ABC):
    """Prepared images in, arrays of a store out; picklable until opened, the networks loaded once per worker.

    Once opened, threads may share it.
    """

    frames: Path
    """frames.zarr."""
    rows_per_call: int = field(default=SHARD, init=False)
    _reader: StoreReader | None = field(default=None, init=False, repr=False)
    _lock: Any = field(default=None, init=False, repr=False)

    @abstractmethod
    def load(self, device: str) -> None:
        """Load the networks onto `device`."""

    @abstractmethod
    def infer(self, unit: Unit, rows: Sequence[int], images: NDArray[np.uint8]) -> Any:
        """Return what the networks find in images [n, H, W, 3]; one thread at a time is here."""

    @abstractmethod
    def pack(self, found: Any, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        """Return the store's arrays for what `infer` found."""

    @abstractmethod
    def unload(self) -> None:
        """Let go of the networks."""

    def open(self, device: str) -> None:
        """Load the networks onto `device`."""
        self.load(device)
        # A GPU gets a whole unit, so that it never waits; on the CPU, progress is to move within one.
        self.rows_per_call = SHARD if device.startswith("cuda") else ON_CPU
        self._reader, self._lock = StoreReader(self.frames), threading.Lock()

    def units_at_once(self, device: str) -> int:
        """Return how many units a worker has in hand: one is read, one is on the GPU, one is packed and written."""
        return 3 if device.startswith("cuda") else 1

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        """Return the store's arrays for these rows."""
        assert self._reader is not None
        images = np.asarray(self._reader.read_many(unit.group, rows, "rgb"))
        try:
            with self._lock:
                found = self.infer(unit, rows, images)
        except NonFiniteError as error:
            raise NonFiniteError(error.what, where=f"{unit.group} rows {list(rows)}", fix=error.fix) from None
        return self.pack(found, images)

    def close(self) -> None:
        """Let go of the networks and the reader."""
        self.unload()
        self._reader = self._lock = None

    def seconds_per_row(self, device: str, size: tuple[int, int]) -> float:
        """Return the time that one image of `size` takes, measured on the second of two batches of noise."""
        self.load(device)
        try:
            count = SHARD if device.startswith("cuda") else ON_CPU
            images = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
            self.trial(images)
            start = time.perf_counter()
            self.trial(images)
            return (time.perf_counter() - start) / count
        finally:
            self.unload()

    @abstractmethod
    def trial(self, images: NDArray[np.uint8]) -> object:
        """Run the networks once on images of noise [n, H, W, 3], for the estimate of time."""
