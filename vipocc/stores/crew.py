"""Several units in hand at once on one device: while one is on it, the others are read, compressed and committed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vipocc.stores.spec import Request, UnitComputer
from vipocc.stores.work import Advance, Outcome, perform
from vipocc.stores.writer import Store


def units_at_once(computer: UnitComputer, device: str) -> int:
    """Return how many units one worker may have in hand with this computer on this device; 1 unless it says more."""
    told = getattr(computer, "units_at_once", None)
    return 1 if told is None else max(1, int(told(device)))


class Crew:
    """Threads that share one opened computer, a unit each.

    Reading, checksums, compression and writing leave Python's lock free for most of their time, so threads do.
    """

    def __init__(self, store: Store, computer: UnitComputer, count: int, tell: Callable[[Outcome | int], None]) -> None:
        """Start `count` threads; `tell`, called in them, gets rows just computed and outcomes."""
        self._store, self._computer, self._tell = store, computer, tell
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        # Daemons: who leaves at once (a second Ctrl-C) does not wait for the units in hand, which are then lost.
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def take(self, request: Request) -> None:
        """Put a request in line."""
        self._requests.put(request)

    def leave(self, *, wait: bool = True) -> None:
        """Let the threads end after what was put in line; with `wait`, return when they have."""
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            self._tell(perform(self._store, request, self._computer, self._tell))


@dataclass
class Threads:
    """The pool of one device with several units in hand at once, in this process."""

    store: Store
    computer: UnitComputer
    device: str
    advance: Advance
    count: int
    in_hand: int = 0
    crew: Crew | None = None
    news: queue.SimpleQueue[Outcome | int] = field(default_factory=queue.SimpleQueue)
    waiting: list[Request] = field(default_factory=list)

    def free(self) -> bool:
        """Tell whether a thread has nothing in hand."""
        return self.in_hand < self.count

    def busy(self) -> bool:
        """Tell whether any thread has a unit in hand."""
        return self.in_hand > 0

    def submit(self, request: Request) -> None:
        """Take a request; it begins in `wait`, which opens the computer first."""
        self.in_hand += 1
        self.waiting.append(request)

    def wait(self) -> Iterator[Outcome]:
        """Yield the next outcome."""
        if self.crew is None:
            self.computer.open(self.device)
            self.crew = Crew(self.store, self.computer, self.count, self.news.put)
        while self.waiting:
            self.crew.take(self.waiting.pop(0))
        while isinstance(message := self.news.get(), int):
            self.advance(message)
        self.in_hand -= 1
        yield message

    def withdraw(self) -> None:
        """Do nothing: what was taken has begun."""

    def close(self) -> None:
        """End the threads and close the computer, unless units are in hand: then they are left to the process's end."""
        if self.crew is not None:
            self.crew.leave(wait=not self.in_hand)
            if not self.in_hand:
                self.crew = None
                self.computer.close()
