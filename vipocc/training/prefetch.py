"""Batches on the trainer's device before they are asked for, and how long the device waited for them all the same.

A thread takes batches from the stream, puts them into page-locked memory and copies them on a stream of the device of
its own, so that neither the host nor the device's work stops for a copy. What counts as waiting is the device's own
time: from the end of the work it had when the batch was asked for to the arrival of the batch. The host's time would
count as waiting when it merely runs ahead of a busy device.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from vipocc.training.packing import Packed

#: Seconds between two looks of the thread at whether it is still wanted.
_LOOK = 0.1


class Lane(Protocol):
    """How batches get to a device."""

    def send(self, packed: Packed) -> tuple[Packed, Any]:
        """Start copying a batch; return it and a mark of its arrival. Called in the prefetcher's thread.

        The memory that is handed over may be used again as soon as this returns.
        """
        ...

    def mark(self) -> Any:
        """Return a mark of the end of the work that the device has now."""
        ...

    def receive(self, packed: Packed, asked: Any, arrived: Any) -> None:
        """Let work that is queued from now on wait for a batch that was asked for at `asked`."""
        ...

    def waited(self) -> float:
        """Return the seconds that the device waited for batches, as far as they are over, since the last call."""
        ...


class CudaLane:
    """Copies to a CUDA device on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._copies = torch.cuda.Stream(device)
        self._pairs: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def send(self, packed: Packed) -> tuple[Packed, torch.cuda.Event]:
        """Start copying a batch from page-locked memory, which its allocator keeps until the copy is over."""
        with torch.cuda.stream(self._copies):
            there = packed.pin_memory().to(self.device)
            arrived = torch.cuda.Event(enable_timing=True)
            arrived.record(self._copies)
        return there, arrived

    def mark(self) -> torch.cuda.Event:
        """Return an event at the end of the work queued so far."""
        asked = torch.cuda.Event(enable_timing=True)
        asked.record(torch.cuda.current_stream(self.device))
        return asked

    def receive(self, packed: Packed, asked: torch.cuda.Event, arrived: torch.cuda.Event) -> None:
        """Let the current stream wait for the batch; the memory is not given away before that stream is done."""
        working = torch.cuda.current_stream(self.device)
        working.wait_event(arrived)
        packed.memory.record_stream(working)
        self._pairs.append((asked, arrived))

    def waited(self) -> float:
        """Return the seconds from `asked` to `arrived` of batches for which both have passed; waits for none."""
        total = 0.0
        while self._pairs and self._pairs[0][0].query() and self._pairs[0][1].query():
            asked, arrived = self._pairs.popleft()
            total += max(asked.elapsed_time(arrived), 0.0) / 1000.0
        return total


class HostLane:
    """Batches that stay where they are; the host's time is the device's."""

    def __init__(self) -> None:
        self._total = 0.0

    def send(self, packed: Packed) -> tuple[Packed, float]:
        """Return a copy, since the stream uses the batch's memory again."""
        return packed.clone(), 0.0

    def mark(self) -> float:
        """Return the time now."""
        return time.perf_counter()

    def receive(self, packed: Packed, asked: float, arrived: float) -> None:
        """Count the time since the batch was asked for."""
        self._total += time.perf_counter() - asked

    def waited(self) -> float:
        """Return the seconds since the last call that were spent waiting."""
        total, self._total = self._total, 0.0
        return total


class Prefetcher:
    """An iterator over the batches of a stream, tensors by name on a device; `close` it, or use it in a `with`."""

    def __init__(self, stream: Iterator[Packed], lane: Lane, *, depth: int = 2) -> None:
        """Start to read.

        Args:
            stream: the batches (`vipocc.training.stream.load_packed`); used and closed in the prefetcher's thread.
            lane: how they get to the device.
            depth: batches that may lie on the device before they are asked for.
        """
        self._stream, self._lane = stream, lane
        self._ready: queue.Queue[tuple[Packed, Any] | BaseException | None] = queue.Queue(depth)
        self._unwanted, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._read, name="vipocc-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Prefetcher:
        return self

    def __next__(self) -> dict[str, Tensor]:
        """Return the next batch; an error of the stream is raised here, in its place among the batches."""
        if self._over:
            raise StopIteration
        asked = self._lane.mark()
        item = self._ready.get()
        if item is None or isinstance(item, BaseException):
            self._over = True
            if item is None:
                raise StopIteration
            raise item
        packed, arrived = item
        self._lane.receive(packed, asked, arrived)
        return packed.tensors()

    def waited(self) -> float:
        """Return the seconds since the last call in which the device had to wait for batches."""
        return self._lane.waited()

    def close(self) -> None:
        """End the thread and with it the stream's workers; batches not yet asked for are lost."""
        self._over = True
        self._unwanted.set()
        self._thread.join()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        last: BaseException | None = None
        try:
            for packed in self._stream:
                if self._unwanted.is_set() or not self._put(self._lane.send(packed)):
                    return
        except BaseException as error:
            last = error
        finally:
            # In this thread, since a generator cannot be closed by another one while it runs.
            close = getattr(self._stream, "close", None)
            if close is not None:
                close()
            self._put(last)

    def _put(self, item: tuple[Packed, Any] | BaseException | None) -> bool:
        """Hand an item over; return whether it was wanted."""
        while not self._unwanted.is_set():
            try:
                self._ready.put(item, timeout=_LOOK)
            except queue.Full:
                continue
            return True
        return False


def prefetched(stream: Iterator[Packed], device: torch.device, *, depth: int = 2) -> Prefetcher:
    """Return the batches of a stream on `device`, at most `depth` of them ahead of the trainer."""
    return Prefetcher(stream, CudaLane(device) if device.type == "cuda" else HostLane(), depth=depth)
