"""One device, two units at a time: while one is on the device, the other is read, compressed and committed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from vipocc.stores import Request, Store, UnitComputer
from vipocc.stores.executors import Advance, Pool
from vipocc.stores.work import Outcome, perform


@dataclass(frozen=True)
class OverlapExecutor:
    """Units in threads of this process, which share one opened computer.

    For a computer that threads may share and that keeps its device to one of them at a time (`DepthComputer`). Reading,
    checksums, compression and writing leave Python's lock free for most of their time, so threads do.
    """

    device: str
    threads: int = 2

    def start(self, store: Store, computer: UnitComputer, units: int, advance: Advance) -> Pool:
        """Return the threads."""
        return _Threads(store, computer, self.device, advance, min(self.threads, max(units, 1)))


@dataclass
class _Threads:
    store: Store
    computer: UnitComputer
    device: str
    advance: Advance
    count: int
    opened: bool = False
    in_hand: int = 0
    requests: queue.SimpleQueue[Request | None] = field(default_factory=queue.SimpleQueue)
    news: queue.SimpleQueue[Outcome | int] = field(default_factory=queue.SimpleQueue)
    workers: list[threading.Thread] = field(default_factory=list)

    def free(self) -> bool:
        return self.in_hand < self.count

    def busy(self) -> bool:
        return self.in_hand > 0

    def submit(self, request: Request) -> None:
        self.in_hand += 1
        self.requests.put(request)

    def wait(self) -> Iterator[Outcome]:
        if not self.opened:
            self.computer.open(self.device)
            self.opened = True
            # Daemons: who leaves at once (a second Ctrl-C) does not wait for the units in hand, which are then lost.
            self.workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self.count)]
            for worker in self.workers:
                worker.start()
        while True:
            message = self.news.get()
            if isinstance(message, Outcome):
                self.in_hand -= 1
                yield message
                return
            self.advance(message)

    def _work(self) -> None:
        while (request := self.requests.get()) is not None:
            self.news.put(perform(self.store, request, self.computer, self.news.put))

    def close(self) -> None:
        for _ in self.workers:
            self.requests.put(None)
        if self.in_hand:
            return
        for worker in self.workers:
            worker.join()
        if self.opened:
            self.opened = False
            self.computer.close()
