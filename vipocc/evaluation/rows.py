"""Rows of a store read a shard at a time, for evaluations that go through small arrays in order.

Ground truth of a slice is four arrays of a few kilobytes: read one by one, opening and asking takes six times as long
as decoding.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.stores import SHARD, StoreReader

_HELD = 24
"""Blocks in memory: those of four arrays that the threads of an evaluation are in, and some to come."""

Block = tuple[str, int, str]


class ShardRows:
    """Reads what `StoreReader.read` reads; all committed rows of a shard at the first of them. Threads may share it."""

    def __init__(self, reader: StoreReader) -> None:
        """Read from `reader`; it should hold small arrays, of which most rows are wanted."""
        self._reader = reader
        self._blocks: OrderedDict[Block, Future[dict[int, NDArray[Any]]]] = OrderedDict()
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self._lock = threading.Lock()

    def has(self, group: str) -> bool:
        """Whether the store has a group."""
        return group in self._masks or self._reader.has(group)

    def rows(self, group: str) -> NDArray[np.bool_]:
        """Which rows of a group were committed when it was first asked for."""
        if group not in self._masks:
            self._masks[group] = self._reader.rows(group)
        return self._masks[group]

    def read(self, group: str, row: int, array: str | None = None) -> NDArray[Any]:
        """Return one row of an array; errors as `StoreReader.read`, also for a neighbour that is damaged."""
        mask = self.rows(group)
        if array is None or not 0 <= row < len(mask) or not mask[row]:
            return self._reader.read(group, row, array)
        block = (group, row // SHARD, array)
        with self._lock:
            held = self._blocks.get(block)
            mine = held is None
            if held is None:
                held = self._blocks[block] = Future()
                if len(self._blocks) > _HELD:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(block)
        if mine:
            # Others who ask meanwhile wait for this thread.
            try:
                held.set_result(self._read(block, mask))
            except BaseException as error:
                held.set_exception(error)
        return held.result()[row]

    def _read(self, block: Block, mask: NDArray[np.bool_]) -> dict[int, NDArray[Any]]:
        group, number, array = block
        rows = number * SHARD + np.flatnonzero(mask[number * SHARD : (number + 1) * SHARD])
        values = self._reader.gather([(group, int(row)) for row in rows], array)
        values.flags.writeable = False
        return {int(row): values[at] for at, row in enumerate(rows)}
